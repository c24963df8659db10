"""The ssh transport against a real sshd of the test's own, and its refusals."""

import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgebit.deploy import sending
from edgebit.errors import TransportError
from edgebit.transport import Options, Section, open_transport, resume_at


@dataclass
class Server:
    """A sshd, and how to reach it."""

    folder: Path
    port: int

    def options(self, **changes: str) -> Options:
        """ssh's configuration for it, with some lines changed."""
        lines = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": getpass.getuser(),
            "IdentityFile": str(self.folder / "user_key"),
            "IdentitiesOnly": "yes",
            "HostKeyAlias": "device",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "StrictHostKeyChecking": "yes",
            **changes,
        }
        config = self.folder / f"config-{len(list(self.folder.iterdir()))}"
        config.write_text("Host device\n" + "".join(f" {key} {value}\n" for key, value in lines.items()))
        return Options(ssh_config=config)


@pytest.fixture(scope="module")
def server(require_tool, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host_key", "other_key", "user_key", "stranger_key"):
        subprocess.run(
            [require_tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True
        )
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    (folder / "known_hosts").write_text("device " + (folder / "host_key.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    sshd = subprocess.Popen(
        [require_tool("sshd"), "-D", "-e", "-f", "/dev/null", "-h", str(folder / "host_key"),
         "-o", f"ListenAddress=127.0.0.1:{port}", "-o", f"AuthorizedKeysFile={folder}/authorized_keys",
         "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none", "-o", "PasswordAuthentication=no"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline and sshd.poll() is None
            time.sleep(0.1)
    yield Server(folder, port)
    sshd.send_signal(signal.SIGTERM)
    sshd.wait(timeout=60)


@pytest.mark.parametrize(
    "argument", ["plain", "two words", "it's", '"', "$HOME `id` ; #", "-n", "*", "a\nb", "ü🎈", ""]
)
def test_arguments_arrive_as_they_are(server, argument):
    """The device's shell changes nothing in them."""
    with open_transport("ssh://device", server.options()) as device:
        assert device.run(["printf", "%s|", argument, "end"]).stdout == f"{argument}|end|"


def test_input_output_and_code(server):
    """All three streams and the exit code come through."""
    with open_transport("ssh://device", server.options()) as device:
        done = device.run(["sh", "-c", "cat; echo wrong >&2; exit 7"], input=b"in\n")

    assert (done.stdout, done.stderr, done.code) == ("in\n", "wrong\n", 7)


def test_command_that_hangs_is_given_up(server):
    """After its time-out, with its name."""
    with (
        open_transport("ssh://device", server.options()) as device,
        pytest.raises(TransportError, match=r"sleep on device did not end within 0\.5 s"),
    ):
        device.run(["sleep", "30"], timeout_s=0.5)


def test_commands_share_one_connection(server):
    """sshd's process for the connection is the same for all of them, and gone afterwards."""
    with open_transport("ssh://device", server.options()) as device:
        parents = {device.run(["sh", "-c", "ps -o ppid= -p $$"]).stdout.strip() for _ in range(3)}
    assert len(parents) == 1


def test_section_is_copied_there_and_back(server, tmp_path):
    """Any bytes, from the middle of a file; a name with spaces; progress adds up."""
    source, told = tmp_path / "source", []
    source.write_bytes(os.urandom(700_000))
    remote = str(tmp_path / "there it's.part")
    with open_transport("ssh://device", server.options()) as device:
        device.put(Section(source, 1000, 600_000), remote, told.append)
        device.get(remote, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == source.read_bytes()[1000:601_000]
    assert sum(told) == 600_000


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
def test_interrupted_copy_goes_on(server, tmp_path, monkeypatch, left, sent):
    """What an earlier try left is kept if its sum says it is the beginning, and replaced if not."""
    source, remote = tmp_path / "source", tmp_path / "remote.part"
    source.write_bytes(b"0123456789" * 60_000)
    remote.write_bytes(left)
    with open_transport("ssh://device", server.options()) as device:
        assert 600_000 - resume_at(device, Section(source, 0, 600_000), str(remote)) == sent
        device.put(Section(source, 0, 600_000), str(remote))

    assert remote.read_bytes() == source.read_bytes()


def test_failed_copy_says_why(server, tmp_path):
    """The device's own words."""
    (tmp_path / "source").write_bytes(b"x" * 100)
    with (
        open_transport("ssh://device", server.options()) as device,
        pytest.raises(TransportError, match=r"(?s)was not sent whole.*[Nn]o such file|cannot create|nonexistent"),
    ):
        device.put(Section(tmp_path / "source", 0, 100), str(tmp_path / "no-folder" / "x"))


def test_missing_file_leaves_nothing_behind(server, tmp_path):
    """A failed get makes no local file."""
    with (
        open_transport("ssh://device", server.options()) as device,
        pytest.raises(TransportError, match="cannot be read"),
    ):
        device.get(str(tmp_path / "not there"), tmp_path / "local")

    assert not (tmp_path / "local").exists()


@pytest.mark.parametrize(
    ("known", "changes", "promised"),
    [
        ("other_key.pub", {}, "ssh-keygen -R device"),
        (None, {}, "Connect once by hand and compare the fingerprint: ssh device"),
        ("host_key.pub", {"IdentityFile": "{folder}/stranger_key"}, "ssh-copy-id device"),
        ("host_key.pub", {"Port": "1"}, "nothing listens for ssh"),
        ("host_key.pub", {"HostName": "no-such-host.invalid"}, "there is no host named device"),
    ],
    ids=["changed key", "unknown key", "not let in", "refused", "no such host"],
)
def test_faults_are_explained(server, known, changes, promised):
    """What is wrong, and the command that mends it; an unknown or changed host key is never accepted."""
    hosts = server.folder / f"known-{known}"
    hosts.write_text("device " + (server.folder / known).read_text() if known else "")
    changes = {key: value.format(folder=server.folder) for key, value in changes.items()}

    with pytest.raises(TransportError) as refused:
        open_transport("ssh://device", server.options(UserKnownHostsFile=str(hosts), **changes))

    assert promised in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "ssh://", "ssh://-oProxyCommand=id", "ssh://a b", "ssh://-l@host", "ssh://host:port", "ssh://host:99999", "ssh://[host",
        "ssh://me:secret@host", "ssh://$(id)", "ssh://me;id@host",
    ],
)  # fmt: skip
def test_url_that_is_none_is_refused(url):
    """Above all what ssh could take for an option."""
    with pytest.raises(TransportError):
        open_transport(url)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("ssh://device", ".local/share/edgebit"),
        ("ssh://device/srv/edge%20bit/", "/srv/edge bit"),
        ("ssh://device/~/models", "models"),
    ],
)
def test_folder_stands_in_the_url(server, url, root):
    """Absolute, or from the login folder with /~/."""
    with open_transport(url, server.options()) as device:
        assert device.root == root


def test_a_folder_below_the_login_folder(server):
    """~/ is where a login begins; quoted on its way to the device, a shell would not read it so."""
    with open_transport("ssh://device", replace(server.options(), root="~/models")) as device:
        assert device.root == "models"


def test_large_file_goes_deflated_over_a_slow_connection(server, tmp_path, monkeypatch):
    """It is measured with a plain piece, and goes on deflated behind that; a cut-off copy goes on too."""
    monkeypatch.setattr(sending, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(sending, "SLOW_BYTES_S", 1e12)  # the loopback is
    content = os.urandom(200_000).hex().encode()
    (tmp_path / "file").write_bytes(content)
    source, part, told = Section(tmp_path / "file", 0, len(content)), tmp_path / "it's.part", []
    with open_transport("ssh://device", server.options()) as device:
        on_the_way = sending.Sender(device, "python3").send(source, str(part), len(content), told.append)
        assert part.read_bytes() == content
        assert 100_000 < on_the_way < 0.7 * len(content)
        assert sum(told) == len(content)

        part.write_bytes(content[:350_000])
        sending.Sender(device, "python3").send(source, str(part), 50_000, told.append)
        assert part.read_bytes() == content
