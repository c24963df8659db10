"""An emulated Raspberry Pi with a real sshd, a real broker, and a bundle built for it: .ci/emulated_pi.sh."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgebit import resources

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / ".ci" / "emulated_pi.sh"
HOME = "home/pi/.local/share/edgebit"


@dataclass
class Pi:
    """The emulated device: its ssh configuration, its files, and its broker."""

    folder: Path  # what it writes lies in upper/
    config: Path
    broker_port: int
    url: str = "ssh://emulated-pi"

    @property
    def broker(self) -> str:
        return f"mqtt://127.0.0.1:{self.broker_port}"

    @property
    def files(self) -> Path:
        """Edgebit's folder on the device."""
        return self.folder / "upper" / HOME

    def edgebit(self, *args: str, code: int | None = 0, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run an edgebit command, and expect its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "edgebit", *args],
            capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def on_device(self, command: str, *args: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run an edgebit command that goes to the device over ssh."""
        return self.edgebit(command, *args, "--ssh-config", str(self.config), code=code)

    def deploy(self, bundle: Path, *args: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Deploy a bundle."""
        return self.on_device(
            "deploy", str(bundle), "--to", self.url, "--mqtt", self.broker, "--device-name", "pi", *args, code=code
        )

    def status(self) -> dict:
        """What runs on it."""
        return json.loads(self.on_device("status", self.url, "--json", code=None).stdout)

    def shell(self, command: str) -> str:
        """Run a command there, as the user."""
        done = subprocess.run(
            ["ssh", "-F", str(self.config), "emulated-pi", command],
            capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout

    def start_shell(self, command: str) -> subprocess.Popen[str]:
        """Begin a command there that waits for a line of input."""
        return subprocess.Popen(
            ["ssh", "-F", str(self.config), "emulated-pi", command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def request(self, prompt: str, *, version: str = "5", **fields: object) -> dict:
        """Ask with mosquitto_rr; gives the reply's JSON."""
        reply_to = f"edgebit/v1/pi/out/tester/{time.monotonic_ns()}"
        body = {"prompt": prompt, "options": {"num_predict": 8, "temperature": 0}, **fields}
        if version != "5":
            body["reply_to"] = reply_to
        done = subprocess.run(
            ["mosquitto_rr", "-p", str(self.broker_port), "-V", version, "-q", "1", "-W", "60",
             "-t", "edgebit/v1/pi/in/tester/generate", "-e", reply_to, "-m", json.dumps(body)],
            capture_output=True, text=True, check=False, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def free_port() -> int:
    """A TCP port on the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once somebody listens there."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


@pytest.fixture(scope="session")
def broker_port(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A mosquitto of the test's own, which the device reaches too: it shares the loopback interface."""
    folder, port = tmp_path_factory.mktemp("broker"), free_port()
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([require_tool("mosquitto"), "-c", str(folder / "mosquitto.conf")], stderr=log)
    wait_for_port(port, process, folder / "log")
    yield port
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)


@pytest.fixture(scope="session")
def pi(require_tool: Callable[[str], str], broker_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pi]:
    """The device, just set up: nothing of edgebit on it."""
    for tool in ("mmdebstrap", "qemu-aarch64-static", "unshare", "ssh-keygen", "ssh"):
        require_tool(tool)
    subprocess.run([str(SCRIPT), "rootfs"], check=True, timeout=1800)
    folder, port = tmp_path_factory.mktemp("pi"), free_port()
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    (folder / "known_hosts").write_text("emulated-pi " + (folder / "host_key.pub").read_text())
    config = folder / "ssh_config"
    config.write_text(
        f"Host emulated-pi\n HostName 127.0.0.1\n Port {port}\n User pi\n IdentityFile {folder}/user_key\n"
        f" IdentitiesOnly yes\n HostKeyAlias emulated-pi\n UserKnownHostsFile {folder}/known_hosts\n"
        " StrictHostKeyChecking yes\n"
    )
    with (folder / "sshd.log").open("wb") as log:
        sshd = subprocess.Popen([str(SCRIPT), "sshd", str(folder), str(port)], stdout=log, stderr=log)
    try:
        wait_for_port(port, sshd, folder / "sshd.log")
        yield Pi(folder, config, broker_port)
    finally:
        sshd.kill()  # `unshare` passes no other signal on; with it goes every process of the device
        sshd.wait(timeout=10)


@pytest.fixture(scope="session")
def bundle(pi: Pi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, built for a Pi. EDGEBIT_PI_BUNDLE names one that is built already."""
    built = os.environ.get("EDGEBIT_PI_BUNDLE")
    if built:
        return Path(built)
    path = tmp_path_factory.mktemp("bundle") / "chat.bundle"
    pi.edgebit("build", str(resources.assistant_model_dir()), "--target", "rpi", "--out", str(path), timeout_s=1800)
    return path
