"""The device over ssh: the system's own OpenSSH, so that the user's configuration, agent, keys and known_hosts hold."""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self
from urllib.parse import unquote, urlsplit

from edgebit.errors import TransportError
from edgebit.transport import DEFAULT_ROOT, TRANSPORTS, Completed, Options, Progress, Section, Transport, resume_at

CONNECT_TIMEOUT_S = 15
_CHUNK = 1 << 18
_LOST = 255  # what ssh itself ends with; a command on the device hardly does

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.%:-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@$-]*")

# What stands in ssh's words -> what to do about it; {host} and {login} are filled in.
_MENDS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {host} is another one than before. If the device was set up anew, forget the old one:"
        " ssh-keygen -R {known}. If not, somebody may be in between",
    ),
    (
        "Host key verification failed",
        "the host key of {host} is not known yet. Connect once by hand and compare the fingerprint: ssh {login}",
    ),
    (
        "Permission denied",
        "{host} let nobody in. Give it your key (ssh-copy-id {login}), or name the right user: ssh://USER@{host}",
    ),
    ("Too many authentication failures", "{host} was offered too many keys. Name one: --ssh-option IdentitiesOnly=yes"),
    ("Connection refused", "nothing listens for ssh at {host}. Is sshd on there (raspi-config), and the port right?"),
    ("Could not resolve hostname", "there is no host named {host} in reach. Is it on, and in the same network?"),
    ("No route to host", "{host} is out of reach. Is it on, and in the same network?"),
    ("timed out", "{host} did not answer in time. Is it on, and in the same network?"),
    ("Bad configuration option", "ssh does not know an option given with --ssh-option or in the configuration"),
    ("Bad owner or permissions", "ssh does not trust a file because others may write to it. chmod 600 it"),
)


class SshTransport(Transport):
    """ssh://[USER@]HOST[:PORT][/FOLDER]. One connection, which all commands share.

    No option of ours weakens the check of host keys: StrictHostKeyChecking stays what the user's configuration says.
    """

    def __init__(self, host: str, user: str | None, port: int | None, options: Options, folder: str) -> None:
        self.url = f"ssh://{user + '@' if user else ''}{host}{f':{port}' if port else ''}"
        self.root = (options.root or folder or DEFAULT_ROOT).removeprefix("~/")  # the login folder, which is implied
        self._host = host
        self._login = f"{user}@{host}" if user else host
        self._known = f"'[{host}]:{port}'" if port and port != 22 else host
        self._sockets = tempfile.TemporaryDirectory(prefix="eb-")  # mode 0700; short, for a socket's path has 104 bytes
        self._ssh = ["ssh"]
        if options.ssh_config:
            self._ssh += ["-F", str(options.ssh_config)]
        for option in options.ssh_options:
            self._ssh += ["-o", option]
        if not sys.stdin.isatty():
            self._ssh += ["-o", "BatchMode=yes"]
        self._ssh += ["-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}", "-o", "ServerAliveInterval=15"]
        self._ssh += ["-o", f"ControlPath={self._sockets.name}/c", "-T"]
        if user:
            self._ssh += ["-l", user]
        if port:
            self._ssh += ["-p", str(port)]
        try:
            self._connect()
        except BaseException:
            self._sockets.cleanup()
            raise

    @classmethod
    def from_url(cls, url: str, options: Options) -> Self:
        """Connect. Raises TransportError for a URL that is none, and with the mend where ssh fails."""
        form = TRANSPORTS["ssh"][1]
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise TransportError(f"{url!r}: {error}. Write {form}") from None
        host, user = parts.hostname or "", unquote(parts.username) if parts.username else None
        host_as_written = parts.netloc.rpartition("@")[2]
        if host_as_written.lower().startswith(host):
            host = host_as_written[: len(host)]  # urlsplit makes it lower-case; names in ssh's configuration may not be
        if not _HOST.fullmatch(host) or (user is not None and not _USER.fullmatch(user)):
            raise TransportError(f"{url!r} names no host. Write {form}")
        if parts.password is not None:
            raise TransportError("a password has no place in a URL: use a key (ssh-copy-id), or let ssh ask for it")
        folder = unquote(parts.path).removeprefix("/~/").rstrip("/")
        return cls(host, user, port, options, folder)

    def run(self, argv: Sequence[str], *, input: bytes | None = None, timeout_s: float = 60) -> Completed:
        process = self._start(shlex.join(argv), with_input=input is not None)
        try:
            out, err = process.communicate(input, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise TransportError(f"{argv[0]} on {self._host} did not end within {timeout_s:g} s") from None
        stderr = err.decode("utf-8", "replace")
        if process.returncode == _LOST:
            raise self._explained(stderr)
        return Completed(out.decode("utf-8", "replace"), stderr, process.returncode)

    def put(self, source: Section, remote: str, progress: Progress | None = None) -> None:
        done = resume_at(self, source, remote)
        if progress is not None and done:
            progress(done)
        operator = ">>" if done else ">"
        process = self._start(f"cat {operator} {shlex.quote(remote)}", with_input=True)
        assert process.stdin is not None
        sent = done
        try:
            with source.path.open("rb") as file:
                file.seek(source.offset + done)
                while sent < source.size:
                    chunk = file.read(min(_CHUNK, source.size - sent))
                    if not chunk:
                        raise TransportError(f"{source.path} ends {source.size - sent} bytes early: it changed")
                    process.stdin.write(chunk)
                    sent += len(chunk)
                    if progress is not None:
                        progress(len(chunk))
        except BrokenPipeError:
            pass  # ssh ended early: its exit code and words, read below, say why
        except BaseException:
            process.kill()
            process.communicate()
            raise
        _, err = process.communicate()
        if process.returncode:
            stderr = err.decode("utf-8", "replace").strip()
            why = str(self._explained(stderr)) if process.returncode == _LOST else stderr or "no reason given"
            raise TransportError(
                f"{remote} was not sent whole ({sent} of {source.size} bytes went out): {why}. Deploy again: it goes on"
                " where it stopped"
            )

    def get(self, remote: str, local: Path) -> None:
        with local.open("xb") as file:
            process = self._start(f"cat {shlex.quote(remote)}", with_input=False, output=file)
            _, err = process.communicate()
        if process.returncode:
            local.unlink()
            stderr = err.decode("utf-8", "replace").strip()
            raise (
                self._explained(stderr)
                if process.returncode == _LOST
                else TransportError(f"{remote} cannot be read on {self._host}: {stderr}")
            )

    def close(self) -> None:
        subprocess.run([*self._ssh, "-O", "exit", "--", self._host], capture_output=True, check=False)
        self._sockets.cleanup()

    def _connect(self) -> None:
        """Open the connection that later commands share; here ssh may ask for a password or about a host key."""
        with tempfile.TemporaryFile() as words:  # a pipe would stay open in the background process
            try:
                done = subprocess.run(
                    [*self._ssh, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-f", "-N", "--", self._host],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    check=False,
                )
            except FileNotFoundError:
                raise TransportError(
                    "there is no ssh on this machine. Install it: sudo apt install openssh-client"
                ) from None
            if done.returncode:
                words.seek(0)
                raise self._explained(words.read().decode("utf-8", "replace"))

    def _start(self, command: str, *, with_input: bool, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._ssh, "-o", "ControlMaster=no", "--", self._host, command],
            stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _explained(self, words: str) -> TransportError:
        """The error that says what ssh's words mean and how to mend it."""
        said = " ".join(line.strip() for line in words.strip().splitlines() if not line.startswith("@@"))
        for sign, mend in _MENDS:
            if sign in words:
                text = mend.format(host=self._host, login=self._login, known=self._known)
                return TransportError(f"{self.url}: {text} (ssh says: {said[-300:]})")
        return TransportError(f"{self.url}: the connection failed: {said[-300:] or 'ssh said nothing'}")
