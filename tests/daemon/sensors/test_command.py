"""Programs that are asked: in time, one at a time, and what they get wrong is said."""

import stat
from pathlib import Path

import pytest

from edgebit.daemon.sensors import command as module
from edgebit.daemon.sensors.command import Command
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.reading import NotHere, NotYet, Unreadable


@pytest.fixture
def program(tmp_path):
    """Makes a program `ask` from a shell script, on a root of its own; gives a Command with a clock of the test's."""

    def make(script, **options):
        path = tmp_path / "usr/bin/ask"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return Command(DeviceFiles(tmp_path), ["ask", "me"], clock=lambda: make.now, **options)

    make.now = 0.0
    return make


def test_an_answer(program):
    """With its arguments, without blanks around it."""
    command = program('echo " asked $1 "')
    assert command.output() == ("asked me", 0.0)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no such thing >&2; exit 3", "ask me failed with 3: no such thing"),
        ("exit 1", "failed with 1: no word"),
        ("printf '\\033[2J'; exit 1", r"failed with 1: \?\[2J"),
        ("kill -9 $$", "failed with -9"),
        ("exec /no/such/program", "failed with 127"),
    ],
)
def test_a_failure(program, script, words):
    """The first line of what it says is in the reason."""
    with pytest.raises(Unreadable, match=words):
        program(script).output()


def test_not_installed(tmp_path, monkeypatch):
    """It is looked for again once a minute, not at every reading."""
    now = [0.0]
    command = Command(DeviceFiles(tmp_path), ["ask"], clock=lambda: now[0])
    with pytest.raises(NotHere, match="ask is not installed"):
        command.output()
    folder = tmp_path / "usr/bin"
    folder.mkdir(parents=True)
    (folder / "ask").write_text("#!/bin/sh\necho here\n")
    (folder / "ask").chmod(0o755)
    now[0] = 59.0
    with pytest.raises(NotHere):
        command.output()
    now[0] = 60.0
    assert command.output()[0] == "here"


def test_not_a_program(tmp_path):
    """A file that cannot be run is said to be one."""
    folder = tmp_path / "usr/bin"
    folder.mkdir(parents=True)
    (folder / "ask").write_bytes(b"\x00\x01")
    (folder / "ask").chmod(0o755)
    with pytest.raises(Unreadable, match="cannot be started"):
        Command(DeviceFiles(tmp_path), ["ask"]).output()


def test_one_that_hangs(program, tmp_path):
    """It is given up in time, ended with what it started, and started again when asked again."""
    command = program(f"echo $$ >> {tmp_path}/pids; sleep 1000 & wait", limit_s=2.0, hint=" (is it well?)")
    with pytest.raises(NotYet, match="has not answered yet"):
        command.output()
    program.now = 2.0
    with pytest.raises(Unreadable, match=r"ask did not answer within 2 s \(is it well\?\)"):
        command.output()
    process = command._process
    process.wait(60)
    with pytest.raises(Unreadable, match="did not answer within 2 s"):
        command.output()
    with pytest.raises(NotYet):
        command.output()
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2 and not Path(f"/proc/{pids[0]}").exists()
    command.close()


def test_one_that_cannot_be_ended(program, tmp_path, monkeypatch):
    """A program stuck in a driver survives SIGKILL: no second one is put beside it, at no call."""
    command = program(f"echo x >> {tmp_path}/started; exec sleep 1000")
    with pytest.raises(NotYet):
        command.output()
    process = command._process
    monkeypatch.setattr(module.os, "killpg", lambda pid, number: None)
    for program.now in (2.0, 10.0, 100.0):
        with pytest.raises(Unreadable, match="did not answer within 2 s"):
            command.output()
    assert (tmp_path / "started").read_text() == "x\n"
    process.kill()
    process.wait(60)


def test_an_answer_stands_while_the_next_is_awaited(program, tmp_path):
    """It is old then, and says so."""
    command = program(f"[ -e {tmp_path}/slow ] && exec sleep 1000; echo 42")
    assert command.output() == ("42", 0.0)
    (tmp_path / "slow").touch()
    program.now = 1.5
    assert command.output() == ("42", 1.5)
    command.close()


def test_one_that_never_stops_talking(program):
    """More than a sensor could say is a failure, and the memory that it takes is bounded."""
    command = program("exec yes")
    with pytest.raises(Unreadable, match="did not answer"):
        command.output()
    assert len(command._content) <= 70_000


def test_a_child_that_outlives_it_holds_nothing_up(program):
    """The answer is taken when the program ends, though the pipe stays open."""
    command = program("sleep 2 & echo done")
    assert command.output()[0] == "done"
