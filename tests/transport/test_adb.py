"""The adb transport through the system's real adb against a fake adbd (fake_adbd.py), and its refusals."""

import os
import socket
import threading
from pathlib import Path

import pytest
from transport.fake_adbd import FakeAdbd, wait_until

from edgebit.errors import TransportError
from edgebit.transport import Section, open_transport, resume_at
from edgebit.transport.adb import AdbTransport


@pytest.fixture(params=["shell_v2", "legacy"])
def phone(request, fake_phone):
    """A phone of today, and one whose adbd has neither exit codes nor streams."""
    if request.param == "legacy":
        fake_phone.phone.features = ""
    return fake_phone


def test_arguments_arrive_as_they_are(phone):
    """The device's shell changes nothing in them."""
    arguments = ["plain", "two words", "it's", '"', "$HOME `id` ; #", "-n", "*", "a\nb", "ü🎈", "\\", ""]
    with open_transport(phone.url) as device:
        assert device.run(["printf", "%s|", *arguments, "end"]).stdout == "|".join([*arguments, "end|"])


def test_input_output_and_code(phone):
    """All three streams and the exit code come through, whatever bytes they have."""
    with open_transport(phone.url) as device:
        done = device.run(["sh", "-c", "cat; echo wrong >&2; exit 7"], input=b"in\r\n\n~.\nend")

    assert (done.stdout, done.stderr, done.code) == ("in\r\n\n~.\nend", "wrong\n", 7)


def test_no_input_is_an_empty_one(phone):
    """A command that reads does not wait for the terminal."""
    with open_transport(phone.url) as device:
        assert device.run(["cat"], timeout_s=20).stdout == ""


def test_nothing_is_left_in_the_scratch_folder(phone):
    """An old adbd's detour over files clears up behind it."""
    with open_transport(phone.url) as device:
        device.run(["true"], input=b"x")
        assert isinstance(device, AdbTransport)
        assert not list(Path("/tmp").glob(f"{device._token}*"))


def test_command_that_hangs_is_given_up(fake_phone):
    """After its time-out, with its name."""
    with (
        open_transport(fake_phone.url) as device,
        pytest.raises(TransportError, match=r"sleep on 127\.0\.0\.1:[0-9]+ did not end within 0\.5 s"),
    ):
        device.run(["sleep", "5"], timeout_s=0.5)


def test_section_is_copied_there_and_back(phone, tmp_path, monkeypatch):
    """Any bytes, from the middle of a file, in several pieces; a name with spaces; progress adds up."""
    monkeypatch.setattr("edgebit.transport.adb._CHUNK", 250_000)
    source, told = tmp_path / "source", []
    source.write_bytes(os.urandom(700_000))
    remote = str(phone.folder / "there it's.part")
    with open_transport(phone.url) as device:
        device.put(Section(source, 1000, 600_000), remote, told.append)
        device.get(remote, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == source.read_bytes()[1000:601_000]
    assert told == [250_000, 250_000, 100_000]


@pytest.mark.parametrize(
    ("left", "sent"),
    [
        (b"", 600_000),
        (b"0123456789" * 20_000, 400_000),
        (b"0123456789" * 60_000, 0),
        (b"x" + b"0123456789" * 20_000, 600_000),
        (b"0123456789" * 70_000, 600_000),
    ],
    ids=["nothing", "a third", "all", "something else", "too much"],
)
def test_interrupted_copy_goes_on(fake_phone, tmp_path, left, sent):
    """What an earlier try left is kept if its sum says it is the beginning, and replaced if not."""
    source, remote = tmp_path / "source", fake_phone.folder / "remote.part"
    source.write_bytes(b"0123456789" * 60_000)
    remote.write_bytes(left)
    with open_transport(fake_phone.url) as device:
        assert isinstance(device, AdbTransport)
        assert 600_000 - resume_at(device, Section(source, 0, 600_000), str(remote)) == sent
        device.put(Section(source, 0, 600_000), str(remote))

    assert remote.read_bytes() == source.read_bytes()


def test_cable_pulled_in_the_middle(fake_phone, tmp_path, monkeypatch):
    """adb itself ends with 0 then: the copy still says that it is not whole, and the next one goes on from there."""
    monkeypatch.setattr("edgebit.transport.adb._CHUNK", 300_000)
    source, remote = tmp_path / "source", fake_phone.folder / "remote.part"
    source.write_bytes(os.urandom(1_000_000))
    section, told = Section(source, 0, 1_000_000), []
    with open_transport(fake_phone.url) as device:
        monkeypatch.setattr(fake_phone.phone, "lost_after", 200_000)
        with pytest.raises(TransportError, match=r"0 of 1000000 bytes are there.*connection was lost.*goes on where"):
            device.put(section, str(remote))
    wait_until(lambda: fake_phone.phone.ended == len(fake_phone.phone.commands))
    there = remote.stat().st_size
    assert 0 < there < 300_000
    fake_phone.plug_in()
    with open_transport(fake_phone.url) as device:
        device.put(section, str(remote), told.append)

    assert remote.read_bytes() == source.read_bytes()
    assert told[0] == there and sum(told) == 1_000_000


def test_failed_copy_says_why(phone, tmp_path):
    """The device's own words."""
    (tmp_path / "source").write_bytes(b"x" * 100)
    with (
        open_transport(phone.url) as device,
        pytest.raises(TransportError, match=r"(?s)not sent whole.*No such file.*goes on where it stopped"),
    ):
        device.put(Section(tmp_path / "source", 0, 100), str(phone.folder / "no folder" / "x"))


def test_full_device_says_so(fake_phone, tmp_path):
    """A file system without room, in its own words; nothing is reported as sent."""
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    with (
        open_transport(fake_phone.url) as device,
        pytest.raises(TransportError, match=r"not sent whole \(0 of 100000 bytes are there\): .*No space left"),
    ):
        device.put(Section(tmp_path / "source", 0, 100_000), "/dev/full")


def test_missing_file_is_not_copied_back(phone, tmp_path):
    """And leaves nothing behind here."""
    with open_transport(phone.url) as device, pytest.raises(TransportError, match="cannot be read on 127"):
        device.get(str(phone.folder / "nothing"), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_key_that_was_not_accepted(fake_phone):
    """The words say where to touch."""
    fake_phone.phone.trusts = False
    with pytest.raises(TransportError, match="Unlock it"):
        open_transport(fake_phone.url)
    with pytest.raises(TransportError, match="has not accepted this computer's key"):
        open_transport(f"adb://{fake_phone.serial}")


def test_device_that_is_not_there(adb):
    """Nobody listens at HOST:PORT; a serial that adb does not know; no device at all."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(TransportError, match="nothing listens for adb at 127"):
            open_transport(f"adb://127.0.0.1:{held.getsockname()[1]}")
    with pytest.raises(TransportError, match="adb sees no device"):
        open_transport("adb://R5CT1234")
    with pytest.raises(TransportError, match=r"Switch on USB debugging .*adb://HOST:5555"):
        open_transport("adb://")


def test_one_of_several_devices_must_be_named(fake_phone, adb):
    """The only one is taken without a word; of two, both are listed; ANDROID_SERIAL chooses, as for adb."""
    adb("connect", fake_phone.serial)
    with open_transport("adb://") as device:
        assert device.url == f"adb://{fake_phone.serial}"
    other = FakeAdbd(fake_phone.phone)
    fake_phone.adbds.append(other)
    adb("connect", f"127.0.0.1:{other.port}")

    with pytest.raises(TransportError, match=r"several devices; name one: adb://127\.0\.0\.1:\d+, adb://127"):
        open_transport("adb://")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_SERIAL", fake_phone.serial)
        with open_transport("adb://") as device:
            assert device.url == f"adb://{fake_phone.serial}"


def test_device_gone_between_two_commands(fake_phone):
    """The next command is an error, not an empty answer."""
    with open_transport(fake_phone.url) as device:
        fake_phone.adbds[-1].close()
        with pytest.raises(TransportError, match=r"reconnect|cable"):
            device.run(["true"])


def test_device_lost_while_a_command_runs(fake_phone):
    """adb's exit code 0 is not believed."""
    with open_transport(fake_phone.url) as device:
        begun = fake_phone.folder / "begun"
        seen: list[str] = []

        def pull() -> None:
            while not begun.exists():
                pass
            fake_phone.adbds[-1].close()
            seen.append("pulled")

        thread = threading.Thread(target=pull)
        thread.start()
        with pytest.raises(TransportError, match="connection was lost"):
            device.run(["sh", "-c", ': >"$1"; sleep 2', "sh", str(begun)])
        thread.join()
    assert seen == ["pulled"]


def test_folder_of_the_url_and_the_usual_one(fake_phone):
    """The URL's folder is the root; without one it lies below the user's home, or in Android's folder for adb."""
    with open_transport(fake_phone.url) as device:
        assert device.root == f"{fake_phone.folder}/edgebit"
    with open_transport(f"adb://{fake_phone.serial}") as device:
        android = Path("/data/local/tmp").is_dir()
        assert device.root == ("/data/local/tmp/edgebit" if android else "//.local/share/edgebit")


def test_commands_as_an_app(fake_phone, phone_programs, tmp_path):
    """PACKAGE@ goes through the device's run-as, with the app's own programs first; a refusal says what to do."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for place in phone_programs.iterdir():
        (programs / place.name).symlink_to(place.readlink())
    run_as = programs / "run-as"
    run_as.write_text('#!/bin/sh\n[ "$1" = com.termux ] || { echo "run-as: package not debuggable: $1"; exit 1; }\n'
                      'shift; exec "$@"\n')  # fmt: skip
    run_as.chmod(0o755)
    fake_phone.phone.environment = {"PATH": str(programs)}
    of_the_app = "PATH=/data/data/com.termux/files/usr/bin:/system/bin"
    fake_phone.phone.shell = lambda command: [
        str(programs / "sh"), "-c", command.replace(of_the_app, f"PATH={programs}")
    ]  # fmt: skip
    with open_transport(f"adb://com.termux@{fake_phone.serial}") as device:
        assert device.root == "/data/data/com.termux/files/home/.local/share/edgebit"
        assert of_the_app in fake_phone.phone.commands[-1]
        assert device.run(["sh", "-c", 'echo "$HOME"']).stdout == "/data/data/com.termux/files/home\n"

    with pytest.raises(TransportError, match=r"lets nobody be org\.other.*not debuggable.*ssh://HOST:8022"):
        open_transport(f"adb://org.other@{fake_phone.serial}")


@pytest.mark.parametrize("url", ["adb:", "adb:serial", "adb://a b", "adb://-s;x", "adb://$(id)", "adb://pkg@serial",
                                 "adb://@serial"])  # fmt: skip
def test_url_that_names_no_device(url):
    """Nothing of it reaches a command line."""
    with pytest.raises(TransportError, match="names no device"):
        open_transport(url)


def test_machine_without_adb(monkeypatch, tmp_path):
    """The words say how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TransportError, match="sudo apt install adb"):
        open_transport("adb://serial")
