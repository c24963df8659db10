"""The serial transport against boards: real shells on pseudo-terminals, and a wire that can be bad."""

import contextlib
import errno
import os
import random
import select
import socket
import termios
import threading
from collections.abc import Callable, Iterator

import pytest
import serial
import serial.rfc2217
from console_fixtures import PASSWORD, Board

from edgebit.errors import TransportError
from edgebit.transport import (
    Options,
    Section,
    console_link,
    console_login,
    open_transport,
    seconds_to_send,
    serial_line,
)
from edgebit.transport.console_login import Credentials, Login, is_garbled, readable, recognise
from edgebit.transport.serial_line import Address, Line, _why_not_open

MakeBoard = Callable[..., Board]
SHELLS = {"sh": ["sh", "-i"], "dash": ["dash", "-i"], "bash": ["bash", "-i"], "busybox": ["busybox", "sh", "-i"]}


@pytest.fixture(autouse=True)
def quick_and_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right password stands in the environment; these boards need no time to think before a prompt is believed."""
    monkeypatch.setenv("EDGEBIT_SERIAL_PASSWORD", PASSWORD)
    monkeypatch.setattr(serial_line, "_POLL_S", 0.01)
    monkeypatch.setattr(console_login, "SETTLED_S", 0.02)
    monkeypatch.setattr(console_login, "FIRST_LOOK_S", 0.02)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("\nDebian GNU/Linux 12 pi ttyS0\n\npi login: ", "login"),
        ("\n(none) login: ", "login"),
        ("Password: ", "password"),
        ("\nLogin incorrect\n\npi login: ", "refused"),
        ("Last login: Thu Nov 26 09:00:00 UTC 2026 on ttyS0\n", "unknown"),
        ("Last login: ", "unknown"),
        ("Linux pi 6.6.20\nLast login: Thu Nov 26\npi@raspberrypi:~$ ", "shell"),
        ("You should change your password: run passwd\nroot@pi:~# ", "shell"),
        ("/ # ", "shell"),
        ("~ ❯ ", "shell"),
        ("You are required to change your password immediately (administrator enforced).\nCurrent password: ",
         "new password"),
        ("New password: ", "new password"),
        ("(current) UNIX password: ", "new password"),
        ("Hit any key to stop autoboot:  2 ", "countdown"),
        ("Hit any key to stop autoboot:  0 \n=> ", "boot loader"),
        ("U-Boot> ", "boot loader"),
        ("grub> ", "boot loader"),
        ("ALERT!  UUID=1234 does not exist.  Dropping to a shell!\n(initramfs) ", "initramfs"),
        ("Press Enter for maintenance\n(or press Control-D to continue): ", "emergency"),
        ("\nPlease enter new username: ", "first boot"),
        ('"System is booting up. Unprivileged users are not permitted to log in yet."\n', "booting"),
        ("pi login: [   12.345678] usb 1-1: new high-speed USB device\n", "login"),
        ("pi lo[   12.345678] usb 1-1: new high-speed USB device\ngin: ", "login"),
        ("pi login: \n[  OK  ] Started ssh.service.\n", "unknown"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_what_a_console_shows_is_recognised(text, state):
    """The prompts of getty, login, PAM, shells and boot loaders, and what only looks like one."""
    assert recognise(readable(text.encode())) == state


@pytest.mark.parametrize(
    ("text", "garbled"),
    [("pi login: ", False), ("\ufffd\x00\ufffdx\ufffd\ufffd", True), ("ü", False), ("Grüße, λ\n", False)],
)
def test_another_baud_rate_looks_garbled(text, garbled):
    """Words in any language do not."""
    assert is_garbled(text) == garbled


@pytest.mark.parametrize(("shell", "way"), [*((shell, "serial") for shell in SHELLS), ("sh", "socket")])
def test_runs_puts_and_gets(board, require_tool, tmp_path, shell, way):
    """The same verbs as over ssh: any argument, three streams and a code, any bytes there and back."""
    require_tool(SHELLS[shell][0])
    device, source, told = board(shell=SHELLS[shell]), tmp_path / "source", []
    source.write_bytes(os.urandom(30_000) + bytes(30_000))
    there = str(tmp_path / "there it's.part")
    arguments = ["two words", "it's", '"', "$HOME `id` ; #", "-n", "*", "a\nb", "ü🎈", "", "~", "!x", "\\"]
    with open_transport(device.serial_url if way == "serial" else device.socket_url) as transport:
        echoed = transport.run(["printf", "%s|", *arguments])
        streams = transport.run(["sh", "-c", "cat; echo wrong >&2; exit 7"], input=b"in\n\x00\xff")
        transport.put(Section(source, 1000, 50_000), there, told.append)
        transport.get(there, tmp_path / "back")

    assert echoed.stdout == "".join(f"{argument}|" for argument in arguments)
    assert (streams.stdout, streams.stderr, streams.code) == ("in\n\x00\ufffd", "wrong\n", 7)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()[1000:51_000]
    assert sum(told) == 50_000


def test_large_input_and_output(board):
    """More than any line or buffer of a terminal holds, and no line ends in it."""
    device, text = board(), "0123456789" * 6_000
    with open_transport(device.serial_url) as transport:
        done = transport.run(["sh", "-c", "cat; wc -c <$0 >&2", "/dev/null"], input=text.encode())

    assert (done.stdout, done.stderr.strip()) == (text, "0")


def test_programs_that_fail(board):
    """One that is not there, and one that hangs: it is ended, and the next one runs."""
    with open_transport(board().serial_url) as transport:
        assert transport.run(["no-such-program"]).code == 127
        with pytest.raises(TransportError, match=r"sleep on serial://.* did not end within 0\.5 s"):
            transport.run(["sleep", "30"], timeout_s=0.5)
        assert transport.run(["sh", "-c", "exit 124"]).code == 124
        assert transport.run(["echo", "here"]).stdout == "here\n"


def test_next_command_waits_for_one_that_was_interrupted(board, monkeypatch):
    """Ctrl-C is heard here and not there: what puts the device in order then waits for the command that goes on."""
    with open_transport(board().serial_url) as transport:
        monkeypatch.setattr(console_link, "LATENCY_S", 0.05)  # not before: a busy machine takes longer to begin
        monkeypatch.setattr(console_link, "TRIES", 2)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Line, "read", interrupted)
            transport.run(["sleep", "1"], timeout_s=5)
        assert transport.run(["echo", "next"], timeout_s=1).stdout == "next\n"


def interrupted(line: Line, patience_s: float) -> bytes:
    raise KeyboardInterrupt


def test_console_is_left_as_it_was_found(board, tmp_path):
    """Where nobody was logged in, nobody is afterwards; where somebody was, the terminal is theirs again."""
    log = tmp_path / "log"
    shell = ["sh", "-c", f"echo in >>{log}; sh -i; echo out >>{log}"]
    device = board(shell=shell)
    for _ in range(2):
        with open_transport(device.serial_url) as transport:
            transport.run(["true"])
    assert log.read_text().split() == ["in", "out", "in", "out"]

    theirs = board(SHELLS["sh"])
    before = termios.tcgetattr(theirs.terminal)
    with open_transport(theirs.serial_url) as transport:
        during = termios.tcgetattr(theirs.terminal)
        folder = transport.run(["sh", "-c", 'ls -d "${0%/*}"', "/tmp/x"]).code
    with Line.open(Address.parse(theirs.serial_url)) as line:
        login = Login(line, NOBODY)
        login.reach_shell()
    assert not login.logged_in
    assert folder == 0
    assert during[3] & termios.ECHO == 0 and termios.tcgetattr(theirs.terminal) == before


def test_run_that_was_cut_off_is_cleared_away(board, tmp_path, monkeypatch):
    """Our program still has the console: the next run ends it, and logs out at its own end."""
    monkeypatch.setattr(console_login, "ANSWER_S", 0.2)
    log = tmp_path / "log"
    device = board(shell=["sh", "-c", f"echo in >>{log}; sh -i; echo out >>{log}"])
    first = open_transport(device.serial_url)
    first._line.write(b"<\n:halfalin")
    first._line.close()

    with open_transport(device.serial_url) as transport:
        assert transport.run(["echo", "again"]).stdout == "again\n"
    assert log.read_text().split() == ["in", "out"]


NOBODY = Credentials(lambda: pytest.fail("nobody was to log in"), lambda _: pytest.fail("nobody was to log in"))


@pytest.mark.parametrize(
    ("act", "promised"),
    [
        ({"password": "another"}, r"did not let pi in: wrong user or password.*Login incorrect"),
        ({"expired": True}, r"wants pi to choose a new password.*Current password:"),
    ],
    ids=["wrong password", "forced change"],
)
def test_dead_ends_are_named(board, act, promised):
    """With the mend and the device's own words, and never with the password."""
    with pytest.raises(TransportError, match=rf"(?s){promised}") as refused:
        open_transport(board(**act).serial_url)

    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("program", "promised"),
    [
        ("stty -echo; exec cat >/dev/null", r"nothing came back.*TX wired to RX.*Is 115200 its baud rate\?"),
        ("stty -echo raw; while :; do head -c 1 >/dev/null; printf '\\200\\377\\300x\\201\\376'; done",
         r"at 115200 baud only garbage comes\. Another baud rate\?"),
        ("stty -echo; while read -r l; do echo hello; done", r"there is no prompt that edgebit knows \(it says: hello"),
        ("stty -echo; while read -r l; do printf '$ '; done", r"there is no shell behind the prompt"),
        ("printf 'Hit any key to stop autoboot:  2 '; sleep 0.3; printf '\b0\n=> '; exec cat >/dev/null",
         r"prompt of a boot loader.*in U-Boot: boot"),
    ],
    ids=["silence", "garbage", "chatter", "no shell", "boot loader"],
)  # fmt: skip
def test_what_is_no_console_is_said(board, monkeypatch, program, promised):
    """Nothing, noise, or words without a prompt."""
    monkeypatch.setattr(console_login, "ANSWER_S", 0.1)
    monkeypatch.setattr(console_link, "LATENCY_S", 0.1)

    with pytest.raises(TransportError, match=rf"(?s){promised}"):
        open_transport(board(["sh", "-c", program]).serial_url)


def test_words_of_the_kernel_between(board, tmp_path):
    """They come where they like: behind a prompt, and in the middle of an answer."""
    noise = "[   12.345678] usb 1-1: new high-speed USB device number 4 using xhci_hcd\n"
    device, source = board(noise=noise), tmp_path / "source"
    source.write_bytes(os.urandom(20_000))
    with open_transport(device.serial_url) as transport:
        spoken = [0]

        def speak(data: bytes, to_board: bool) -> bytes:
            if to_board or len(data) < 20 or spoken[0] > 5:
                return data
            spoken[0] += 1
            return data[:10] + noise.encode() + data[10:] if spoken[0] % 2 else noise.encode() + data

        device.damage = speak
        transport.put(Section(source, 0, 20_000), str(tmp_path / "there"))
        device.damage = None

    assert spoken[0] > 5
    assert (tmp_path / "there").read_bytes() == source.read_bytes()


class Noise:
    """Flips a bit of every hundredth block of 1536 bytes, or drops a byte of it, in turns, and of every 20th answer."""

    def __init__(self) -> None:
        self.damaged = 0
        self._bytes = self._answers = 0
        self._random = random.Random(1)

    def __call__(self, data: bytes, to_board: bool) -> bytes:
        if not data:
            return data
        before, self._bytes = self._bytes, self._bytes + len(data)
        self._answers += not to_board
        if before // 153_600 == self._bytes // 153_600 and (to_board or self._answers % 20):
            return data
        self.damaged += 1
        place = self._random.randrange(len(data))
        hit = b"" if self.damaged % 2 else bytes([data[place] ^ 1 << self._random.randrange(8)])
        return data[:place] + hit + data[place + 1 :]


def test_bad_line_is_mended(board, tmp_path, monkeypatch):
    """One block in a hundred arrives damaged; the file arrives whole all the same."""
    monkeypatch.setattr(console_link, "LATENCY_S", 0.2)
    device, source, noise = board(), tmp_path / "source", Noise()
    source.write_bytes(os.urandom(400_000))
    with open_transport(device.serial_url) as transport:
        device.damage = noise
        transport.put(Section(source, 0, 400_000), str(tmp_path / "there"))
        device.damage = None

    assert noise.damaged >= 2
    assert (tmp_path / "there").read_bytes() == source.read_bytes()


def test_wire_goes_on_when_both_ends_spoke_at_once(board, tmp_path):
    """What the board said is carried while bytes go to it; waiting for it once more would hold up the wire for ever."""
    os.mkfifo(tmp_path / "turn")
    held, go_on = threading.Event(), threading.Event()

    def hold(data: bytes, to_board: bool) -> bytes:
        if b"one" in data:
            held.set()
            assert go_on.wait(60)
        return data

    board_does = f"stty raw -echo; echo one; read turn <{tmp_path}/turn; echo two; head -c 9 >/dev/null; echo three"
    device = board(["sh", "-c", board_does], damage=hold)
    with Line.open(Address.parse(device.serial_url)) as line:
        assert held.wait(60)
        (tmp_path / "turn").write_text("yours\n")
        line.write(b"12345")
        for end in (device._master, device._near):
            assert select.select([end], [], [], 60)[0]
        go_on.set()
        heard = b""
        for word, ours in ((b"two", b"6789"), (b"three", b"")):
            while word not in heard:
                heard += (more := line.read(60))
                assert more, heard
            line.write(ours)


def test_line_that_is_too_bad_is_said(board, tmp_path, monkeypatch):
    """Every block is damaged: an error with the mend, and never a wrong file."""
    monkeypatch.setattr(console_link, "TRIES", 4)
    monkeypatch.setattr(console_link, "LATENCY_S", 0.2)
    device, source = board(), tmp_path / "source"
    source.write_bytes(os.urandom(30_000))
    with open_transport(device.serial_url) as transport:
        device.damage = lambda data, to_board: data.replace(b"A", b"B") if to_board else data
        with pytest.raises(TransportError, match="the line is too noisy"):
            transport.put(Section(source, 0, 30_000), str(tmp_path / "there"))
        device.damage = None


def test_connection_that_breaks_is_continued(board, tmp_path):
    """The next try sends only the rest."""
    device, source, told = board(), tmp_path / "source", []
    source.write_bytes(os.urandom(200_000))
    there = tmp_path / "there"

    def stumble(size: int) -> None:
        told.append(size)
        if sum(told) > 100_000:
            device.cut()

    with (
        pytest.raises(
            TransportError, match=r"not sent whole \(\d+ of 200000 bytes arrived\).*it goes on where it stop"
        ),
        open_transport(device.socket_url) as transport,
    ):
        transport.put(Section(source, 0, 200_000), str(there), stumble)
    left, told = there.stat().st_size, []
    assert 100_000 < left < 200_000

    with open_transport(device.socket_url) as transport:
        transport.put(Section(source, 0, 200_000), str(there), told.append)

    assert told[0] == left
    assert there.read_bytes() == source.read_bytes()


def test_what_packs_is_sent_packed(board, tmp_path):
    """Hexadecimal digits at half their size, in pieces that grow as they do for other files."""
    device, source, carried = board(), tmp_path / "source", [0]
    source.write_bytes(os.urandom(100_000).hex().encode())

    def count(data: bytes, to_board: bool) -> bytes:
        carried[0] += len(data) if to_board else 0
        return data

    with open_transport(device.serial_url) as transport:
        device.damage = count
        transport.put(Section(source, 0, 200_000), str(tmp_path / "there"))
        assert transport._link.piece_bytes > 4 * console_link.PIECE_MIN_BYTES

    assert (tmp_path / "there").read_bytes() == source.read_bytes()
    assert carried[0] < 200_000 * 0.6 * 4 / 3


@pytest.mark.parametrize("left", [b"x" * 5000, b"y" * 30_000], ids=["something else", "too much"])
def test_what_is_no_beginning_is_replaced(board, tmp_path, left):
    """Its sum says so."""
    (tmp_path / "source").write_bytes(os.urandom(20_000))
    (tmp_path / "there").write_bytes(left)
    with open_transport(board().serial_url) as transport:
        transport.put(Section(tmp_path / "source", 0, 20_000), str(tmp_path / "there"))

    assert (tmp_path / "there").read_bytes() == (tmp_path / "source").read_bytes()


def test_failed_copies_say_why(board, tmp_path):
    """The device's own words: no folder, no space, no file; and a file that shrank here."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100)
    with open_transport(board().serial_url) as transport:
        with pytest.raises(TransportError, match=r"(?s)was not sent whole.*([Nn]o such file|nonexistent)"):
            transport.put(Section(source, 0, 100), str(tmp_path / "no-folder" / "x"))
        with pytest.raises(TransportError, match="No space left"):
            transport.put(Section(source, 0, 100), "/dev/full")
        with pytest.raises(TransportError, match=r"(?s)cannot be read on serial://.*([Nn]o such file|nonexistent)"):
            transport.get(str(tmp_path / "not there"), tmp_path / "local")
        with pytest.raises(TransportError, match="ends 50 bytes early"):
            transport.put(Section(source, 0, 150), str(tmp_path / "there"))

    assert not (tmp_path / "local").exists()


def test_device_without_a_tool_is_told(board, require_tool, tmp_path):
    """By the tool's name."""
    for tool in ("sh", "stty"):
        (tmp_path / tool).symlink_to(require_tool(tool))
    device = board(shell=[str(tmp_path / "sh"), "-i"], env={"PATH": str(tmp_path)})

    with pytest.raises(TransportError, match="the device has no base64"):
        open_transport(device.serial_url)


def test_user_and_password_come_from_where_they_should(board, tmp_path, monkeypatch):
    """A file before the environment; without either, and without a terminal, the error names both."""
    device = board()
    (tmp_path / "wrong").write_text("wrong\n")
    with pytest.raises(TransportError, match="did not let pi in"):
        open_transport(device.serial_url, Options(serial_password_file=tmp_path / "wrong"))
    monkeypatch.delenv("EDGEBIT_SERIAL_PASSWORD")
    monkeypatch.setattr("sys.stdin", (tmp_path / "wrong").open())
    with pytest.raises(TransportError, match="--serial-password-file or EDGEBIT_SERIAL_PASSWORD"):
        open_transport(device.serial_url)
    with pytest.raises(TransportError, match=r"asks who logs in\. Say so in the URL: serial://.*\?user=USER"):
        open_transport(device.serial_url.removesuffix("?user=pi"))
    (tmp_path / "right").write_text(f"{PASSWORD}\n")
    with open_transport(device.serial_url, Options(serial_password_file=tmp_path / "right")) as transport:
        assert transport.run(["echo", "in"]).stdout == "in\n"


@pytest.mark.parametrize(
    "url",
    [
        "serial:", "serial://", "serial:///dev/ttyUSB0?baud=fast", "serial:///dev/ttyUSB0?baud=", "serial:///dev/ttyUSB0?speed=9600",
        "serial:///dev/ttyUSB0?user=pi;id", "serial:///dev/ttyUSB0?user=", "serial://pi@/dev/ttyUSB0", "socket://host",
        "socket://host:port", "socket://:99", "rfc2217://host:99999", "rfc2217://host:9/path", "socket://me:pw@host:99",
    ],
)  # fmt: skip
def test_url_that_is_none_is_refused(url):
    """With the form that it should have, before any port is opened."""
    with pytest.raises(TransportError, match=r"Write |is no rate"):
        open_transport(url)


def test_password_in_a_url_is_refused():
    """And not repeated."""
    with pytest.raises(TransportError, match="--serial-password-file") as refused:
        open_transport("serial:///dev/ttyUSB0?user=pi&password=s3cret")

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "port", "baud"),
    [
        ("serial:///dev/ttyUSB0", "/dev/ttyUSB0", 115_200),
        ("serial:///dev/serial/by-id/usb-a%20b?baud=9600", "/dev/serial/by-id/usb-a b", 9600),
        ("serial://COM3?user=pi", "COM3", 115_200),
        ("rfc2217://gateway:4000", "rfc2217://gateway:4000", 115_200),
        ("socket://[::1]:4000", "socket://[::1]:4000", None),
        ("socket://gateway:4000?baud=57600", "socket://gateway:4000", 57_600),
    ],
)
def test_url_names_port_and_rate(url, port, baud):
    """Of Linux, macOS and Windows, and behind a TCP port."""
    address = Address.parse(url)

    assert (address.port, address.baud) == (port, baud)


@pytest.mark.parametrize(
    ("number", "promised"),
    [(errno.EACCES, "sudo usermod -aG dialout"), (errno.EBUSY, "another program has"), (errno.EINVAL, "9600 baud")],
)
def test_ports_that_cannot_be_opened_are_explained(number, promised):
    """As the operating system says why."""
    address = Address.parse("serial:///dev/ttyUSB0?baud=9600")

    assert promised in _why_not_open(address, serial.SerialException(number, "no"))


def test_ports_that_are_not_there_or_taken(board, tmp_path):
    """Really: no file, a file that is no port, one of another program, nobody at a TCP port."""
    with pytest.raises(TransportError, match="there is no /dev/no-such-port"):
        open_transport("serial:///dev/no-such-port")
    (tmp_path / "file").touch()
    with pytest.raises(TransportError, match="cannot be opened"):
        open_transport(f"serial://{tmp_path}/file")
    device = board()
    with Line.open(Address.parse(device.serial_url)), pytest.raises(TransportError, match="another program has"):
        Line.open(Address.parse(device.serial_url))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransportError, match="nobody answers there"):
            open_transport("socket://127.0.0.1:{1}".format(*unused.getsockname()))


@contextlib.contextmanager
def rfc2217_server(url: str) -> Iterator[str]:
    """Serve a port of pyserial's by RFC 2217 to one client; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server, serial.serial_for_url(url, timeout=0.02) as behind:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                writer = type("Writer", (), {"write": staticmethod(client.sendall)})
                manager = serial.rfc2217.PortManager(behind, writer)

                def to_client() -> None:
                    with contextlib.suppress(OSError):
                        while not done.is_set():
                            if data := behind.read(behind.in_waiting or 1):
                                client.sendall(b"".join(manager.escape(data)))

                back = threading.Thread(target=to_client, daemon=True)
                back.start()
                with contextlib.suppress(OSError):
                    while data := client.recv(4096):
                        behind.write(b"".join(manager.filter(data)))
                done.set()
                back.join(timeout=10)

        done = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield "rfc2217://127.0.0.1:{1}".format(*server.getsockname())
        thread.join(timeout=10)


def test_port_behind_rfc2217(board, tmp_path):
    """The protocol of serial servers, its escapes and its baud rate."""
    device, source = board(), tmp_path / "source"
    source.write_bytes(os.urandom(20_000))
    with (
        rfc2217_server(f"socket://{device.address}") as url,
        open_transport(f"{url}?user=pi&baud=57600") as transport,
    ):
        transport.put(Section(source, 0, 20_000), str(tmp_path / "there"))
        assert transport.run(["echo", "far"]).stdout == "far\n"

    assert (tmp_path / "there").read_bytes() == source.read_bytes()


def test_a_slow_way_knows_how_slow(board):
    """8 kB/s at 115200 baud, so that 1.2 GB are 41 hours; over TCP nobody knows."""
    device = board()
    with open_transport(device.serial_url) as transport:
        assert 40 < (seconds_to_send(transport, 1_200_000_000) or 0) / 3600 < 42
    with open_transport(device.socket_url) as transport:
        assert seconds_to_send(transport, 1_200_000_000) is None


def test_nothing_of_ours_stays(board, tmp_path, monkeypatch):
    """The folder for a command's input and output is gone at the end."""
    (tmp_path / "tmp").mkdir()
    with open_transport(board(env={"TMPDIR": str(tmp_path / "tmp")}).serial_url) as transport:
        transport.run(["true"])
        assert [path.name.partition(".")[0] for path in (tmp_path / "tmp").iterdir()] == ["edgebit-console"]

    assert list((tmp_path / "tmp").iterdir()) == []
