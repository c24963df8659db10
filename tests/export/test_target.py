"""The folder of an export is replaced whole or not at all, and nothing that anybody would miss goes with it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgebit.errors import ExportError
from edgebit.export import record, target
from edgebit.export.exchange import ending_signals_wait, exchange
from edgebit.export.record import RECORD_NAME
from edgebit.export.target import check_out_folder, replace_folder

_KILLED = """
import os, signal, sys
from pathlib import Path
from edgebit.export import target

out, at, rename = Path(sys.argv[1]), sys.argv[2], Path.rename
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
exchange = target.exchange

def killed_between(self, to):
    kill() if Path(to) == out else rename(self, to)

if at == "between the renames":
    target.exchange = lambda one, other: False
    Path.rename = killed_between
elif at == "after the exchange":
    target.exchange = lambda one, other: exchange(one, other) and kill()
with target.replace_folder(out, force=True) as folder:
    (folder / "README.md").write_text("second")
    if at == "half-made":
        kill()
"""


@pytest.fixture
def out(tmp_path):
    """An export's folder, alone in another."""
    (tmp_path / "parent").mkdir()
    write(tmp_path / "parent" / "out", "first")
    return tmp_path / "parent" / "out"


def write(out: Path, text: str) -> None:
    check_out_folder(out, force=True, inputs=[])
    with replace_folder(out, force=True) as folder:
        (folder / "README.md").write_text(text)


def killed(out: Path, at: str) -> Path:
    """The hidden folder that is left."""
    done = subprocess.run([sys.executable, "-c", _KILLED, out, at], check=False, capture_output=True, text=True)
    if at == "after the exchange" and done.returncode == 0:
        pytest.skip("this system or disk exchanges no names")
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = out.parent.glob(".out.*")
    return left


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_folder_is_replaced_with_and_without_an_exchange(has_exchange, out, monkeypatch):
    if not has_exchange:
        monkeypatch.setattr(target, "exchange", lambda one, other: False)
    write(out, "second")
    assert (out / "README.md").read_text() == "second" and names(out) == [RECORD_NAME, "README.md"]
    assert names(out.parent) == ["out"]


def test_an_exchange_swaps_two_folders_or_does_nothing(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"was {name}").touch()
    assert not exchange(tmp_path / "a", tmp_path / "missing")
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system or disk exchanges no names")
    assert names(tmp_path / "a") == ["was b"] and names(tmp_path / "b") == ["was a"]


def test_a_libc_without_the_exchange_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not exchange(tmp_path, tmp_path)


def test_what_a_kill_took_away_is_put_back(out):
    """Also where the export that finds it fails."""
    left = killed(out, "between the renames")
    assert not out.exists() and (left / "before" / "README.md").read_text() == "first"
    with pytest.raises(ExportError, match="--force to replace it"):
        check_out_folder(out, force=False, inputs=[])
    assert (out / "README.md").read_text() == "first"
    check_out_folder(out, force=True, inputs=[])
    with pytest.raises(KeyError), replace_folder(out, force=True):
        raise KeyError
    assert (out / "README.md").read_text() == "first"
    write(out, "third")
    assert names(out.parent) == ["out"] and (out / "README.md").read_text() == "third"


def test_what_a_kill_left_goes_when_the_next_is_in_place(out):
    left = killed(out, "after the exchange")
    assert (out / "README.md").read_text() == "second"
    with pytest.raises(KeyError), replace_folder(out, force=True):
        raise KeyError
    assert (left / "made" / "README.md").read_text() == "first"
    write(out, "third")
    assert names(out.parent) == ["out"]


def test_half_of_an_export_goes_at_once(out):
    """It would take the room of the next."""
    left = killed(out, "half-made")
    with replace_folder(out, force=True):
        assert not left.exists()


def test_a_rename_that_fails_leaves_what_was_there(out, monkeypatch):
    rename = Path.rename

    def refuse(self, to):
        if self.name == "made":
            raise PermissionError(13, "Permission denied")
        return rename(self, to)

    monkeypatch.setattr(target, "exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ExportError, match="out: cannot be written: Permission denied"):
        write(out, "second")
    assert names(out.parent) == ["out"] and (out / "README.md").read_text() == "first"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_signal_on_the_way_comes_when_all_is_done(has_exchange, number, out, monkeypatch):
    def stop(number, frame):
        raise KeyboardInterrupt

    def interrupted(one: Path, other: Path) -> bool:
        os.kill(os.getpid(), number)
        return has_exchange and exchange(one, other)

    monkeypatch.setattr(target, "exchange", interrupted)
    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            write(out, "second")
        assert signal.getsignal(number) == stop
    finally:
        signal.signal(number, before)
    assert names(out.parent) == ["out"] and (out / "README.md").read_text() == "second"


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals_wait():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("size", [30, 3000])
def test_what_was_changed_since_is_not_replaced(size, out, monkeypatch):
    """Of a small file its sum, of a large one its size and time tell."""
    monkeypatch.setattr(record, "_HASHED", 1000)
    write(out, "a" * size)
    check_out_folder(out, force=True, inputs=[])
    (out / "README.md").write_text("b" * size)
    os.utime(out / "README.md", ns=(1, 1))
    with pytest.raises(ExportError, match=r"README\.md was changed since.* another --out, or delete the folder"):
        check_out_folder(out, force=True, inputs=[])


@pytest.mark.parametrize("change", ["link", "folder", "no record", "damaged record", "more"])
def test_what_is_not_an_export_s_is_not_replaced(change, out):
    def replace_readme() -> None:
        (out / "README.md").rename(out.parent / "mine")

    if change == "link":
        replace_readme()
        (out / "README.md").symlink_to(out.parent / "mine")
    elif change == "folder":
        replace_readme()
        (out / "README.md").mkdir()
    elif change == "no record":
        (out / RECORD_NAME).unlink()
    elif change == "damaged record":
        (out / RECORD_NAME).write_text(json.dumps([]))
    else:
        (out / "notes").touch()
    with pytest.raises(ExportError, match="no folder that edgebit alone wrote"):
        check_out_folder(out, force=True, inputs=[])


def test_a_change_while_the_export_runs_is_not_lost(out):
    with pytest.raises(ExportError, match="was changed since"), replace_folder(out, force=True):
        (out / "README.md").write_text("edited")
    assert (out / "README.md").read_text() == "edited" and names(out.parent) == ["out"]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_came_while_the_export_ran_is_not_replaced(kind, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ExportError, match="is there already"), replace_folder(out, force=False):
        if kind == "folder":
            write(out, "of another export")
        elif kind == "link":
            out.symlink_to(tmp_path)
        else:
            out.write_text("mine")
    assert names(tmp_path) == ["out"]


def test_nothing_that_is_read_may_lie_in_the_folder(out):
    """By whatever name."""
    (out.parent / "link").symlink_to(out / "README.md")
    (out.parent / "folder").symlink_to(out)
    for path in (out / "README.md", out.parent / "link", out.parent / "folder" / "README.md", out.parent / "folder"):
        with pytest.raises(ExportError, match="is what is read, and would be lost"):
            check_out_folder(out, force=True, inputs=[path])
    check_out_folder(out, force=True, inputs=[out.parent])
