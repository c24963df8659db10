"""Service: an MQTT broker of our own for a while, on a free port of the loopback address, for `edgebit demo`.

mosquitto where the machine has it, else amqtt from PyPI, which speaks MQTT 3.1.1 only.
"""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgebit.errors import BrokerError

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0

_MOSQUITTO_CONF = "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n"
_AMQTT_CONF = """\
listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{port}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
"""


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """A broker that runs."""

    program: str  # "mosquitto" or "amqtt"
    url: str  # mqtt://127.0.0.1:PORT
    protocol: Literal["5", "3.1.1"]  # the newest version of MQTT that it speaks: "5" or "3.1.1"


@contextlib.contextmanager
def local_broker() -> Iterator[LocalBroker]:
    """Run a broker within the block.

    Raises BrokerError where there is none on this machine, or it does not start.
    """
    program, command, settings = _choose()
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="edgebit-broker-") as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        config, log = Path(folder, "broker.conf"), Path(folder, "broker.log")
        config.write_text(settings.format(port=port))
        with log.open("wb") as output:
            process = subprocess.Popen([*command, str(config)], stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_it_listens(process, port, program, log)
            yield LocalBroker(program, f"mqtt://127.0.0.1:{port}", "5" if program == "mosquitto" else "3.1.1")
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _choose() -> tuple[str, list[str], str]:
    """Name, command up to the configuration's file, and configuration of the broker to take."""
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if mosquitto:
        return "mosquitto", [mosquitto, "-c"], _MOSQUITTO_CONF
    if importlib.util.find_spec("amqtt"):
        start = "from amqtt.scripts.broker_script import main; main()"
        return "amqtt", [sys.executable, "-c", start, "-c"], _AMQTT_CONF
    raise BrokerError(
        "there is no MQTT broker on this machine. Install one: sudo apt-get install mosquitto, or"
        " pip install 'edgebit[demo]'"
    )


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, program: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip().splitlines()
    raise BrokerError(f"{program} does not start: {said[-1] if said else 'it says nothing'}")
