"""A mosquitto on the loopback and edgebitd.pyz with a model, as on a device, while something is measured."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgebit.pyz import build_pyz
from edgebit.resources import native_library

DEVICE = "bench"
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Running:
    """Where they are."""

    port: int  # of the broker, on 127.0.0.1
    daemon: "subprocess.Popen[bytes]"


@contextmanager
def running_daemon(
    model: Path, folder: Path, *, toml: str = "", broker_conf: str = "", python: str = sys.executable
) -> Iterator[Running]:
    """Start both, files and state in `folder`; toml: sections of edgebitd.toml other than [device] and [mqtt]."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n{broker_conf}"
    )
    (folder / "edgebitd.toml").write_text(
        f'[device]\nname = "{DEVICE}"\n[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\nqueued_messages_max = 65535\n{toml}\n'
    )
    build_pyz(folder / "edgebitd.pyz")
    mosquitto = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") or "mosquitto"
    options = ["--config", str(folder / "edgebitd.toml"), "--log-level", "error"]
    with ExitStack() as ends:
        broker = subprocess.Popen([mosquitto, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
        ends.callback(_end, broker)
        _wait_for_broker(port, broker)
        daemon = subprocess.Popen(
            [python, "-I", str(folder / "edgebitd.pyz"), "run", "--bundle", str(model.resolve()), *options],
            env={**os.environ, "EDGEBIT_LIBRARY": str(native_library())},
        )
        ends.callback(_end, daemon)
        yield Running(port, daemon)


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_broker(port: int, broker: "subprocess.Popen[bytes]") -> None:
    while broker.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SystemExit(f"mosquitto ended with {broker.returncode}")
