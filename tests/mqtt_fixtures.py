"""A real mosquitto on a free port of the loopback, daemons as processes of their own, and ears on the broker."""

import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

import edgebit

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
# For processes that tests start: the edgebit that the tests themselves have imported, installed or of the checkout.
IMPORTED = {"PYTHONPATH": str(Path(edgebit.__file__).resolve().parents[1])}
WAIT_S = 60.0  # for what should come at once, where the machine has time for it


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _validators() -> dict[str, Draft202012Validator]:
    folder = ROOT / "docs" / "schemas"
    return {path.stem: Draft202012Validator(json.loads(path.read_text())) for path in folder.glob("*.json")}


VALIDATORS = _validators()


def request_fault(op: str, fields: dict[str, Any]) -> str | None:
    """What docs/schemas/request.json has against these fields; None where they are a request."""
    whole = VALIDATORS["request"]
    fault = next(
        whole.evolve(schema={"$ref": f"#/$defs/{op}", "$defs": whole.schema["$defs"]}).iter_errors(fields), None
    )
    return None if fault is None else fault.message


def check_schema(topic: str, payload: bytes) -> None:
    """Every JSON message of a device must be what docs/schemas says; the kind stands in its topic."""
    parts = topic.split("/")
    kind = {"in": "request", "out": "reply"}.get(parts[3], parts[3]) if len(parts) > 3 else ""
    if kind in VALIDATORS and kind != "request" and payload[:1] == b"{":
        VALIDATORS[kind].validate(json.loads(payload))


class Broker:
    """A mosquitto process; start() and stop() as often as wanted, on the same port."""

    def __init__(self, program: str, folder: Path, settings: str = "") -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._argv = [program, "-c", str(folder / "mosquitto.conf")]
        self.log = folder / "mosquitto.log"
        general = f"user root\nlistener {self.port} 127.0.0.1\nlog_type all\nset_tcp_nodelay true\n"
        text = f"{general}{settings or 'allow_anonymous true'}\n"
        (folder / "mosquitto.conf").write_text(text)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._argv, stdout=log, stderr=log)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, "mosquitto does not listen"
                time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(WAIT_S)
            self.process = None


class Ear:
    """A client that hears `topics` and can speak; messages come as (topic, payload, retained, properties)."""

    def __init__(
        self,
        port: int,
        *topics: str,
        mqtt5: bool = True,
        tls: ssl.SSLContext | None = None,
        user: str | None = None,
    ) -> None:
        """`user` logs in with his own name as the password."""
        self.mqtt5 = mqtt5
        self.heard: queue.SimpleQueue[paho.MQTTMessage] = queue.SimpleQueue()
        version = MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self.client.on_message = lambda client, userdata, message: self.heard.put(message)
        self.client.on_socket_open = lambda client, userdata, sock: sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.client.on_subscribe = lambda *args: ready.put(None)
        if tls is not None:
            self.client.tls_set_context(tls)
        if user is not None:
            self.client.username_pw_set(user, user)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        for topic in topics:
            if mqtt5:
                self.client.subscribe(topic, options=SubscribeOptions(qos=1, retainAsPublished=True))
            else:
                self.client.subscribe(topic, qos=1)
            ready.get(timeout=WAIT_S)

    def say(
        self,
        topic: str,
        payload: str | bytes | dict[str, Any],
        *,
        qos: int = 1,
        retain: bool = False,
        **named: Any,
    ) -> None:
        """Publish; `named` are MQTT 5 properties."""
        body = json.dumps(payload) if isinstance(payload, dict) else payload
        properties = None
        if named:
            properties = Properties(PacketTypes.PUBLISH)
            for name, value in named.items():
                setattr(properties, name, value)
        self.client.publish(topic, body, qos, retain, properties).wait_for_publish(WAIT_S)

    def next(self, timeout_s: float = WAIT_S) -> paho.MQTTMessage:
        """The next message, checked against the schema of its topic."""
        message = self.heard.get(timeout=timeout_s)
        check_schema(message.topic, message.payload)
        return message

    def next_json(self, timeout_s: float = WAIT_S) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.next(timeout_s).payload)
        return body

    def silent(self, seconds: float = 0.6) -> bool:
        """Whether nothing is heard for so long."""
        try:
            self.next(seconds)
        except queue.Empty:
            return True
        return False

    def frames(self) -> list[dict[str, Any]]:
        """The frames of one answer, up to its last."""
        frames = [self.next_json()]
        while not frames[-1].get("done"):
            frames.append(self.next_json())
        return frames

    def until(self, wanted: Callable[[paho.MQTTMessage], bool]) -> paho.MQTTMessage:
        deadline = time.monotonic() + WAIT_S
        while True:
            message = self.next(max(0.01, deadline - time.monotonic()))
            if wanted(message):
                return message

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class DaemonProcess:
    """A daemon with the fake model, or the real engine on `bundle`. `mqtt` goes into its section, `toml` to the end."""

    def __init__(
        self,
        folder: Path,
        broker_url: str,
        *,
        name: str = "pi",
        mqtt: str = "",
        toml: str = "",
        model: str = "fast",
        bundle: Path | None = None,
        program: Path = TESTS / "daemon" / "fake_daemon.py",
        report_s: float = 0.3,
        sensors_root: Path = TESTS / "daemon" / "roots" / "pi4",
    ) -> None:
        self.folder = folder
        self.program = program
        self.bundle = bundle
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "edgebitd.toml"
        self.config.write_text(
            f'[device]\nname = "{name}"\n[mqtt]\nurl = "{broker_url}"\n{mqtt}\n'
            f'[report]\ninterval_s = {report_s}\nsensors_root = "{sensors_root}"\n{toml}\n'
        )
        self.model = model
        self.log = folder / "log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, str(self.program), str(self.config), str(self.folder / "state"), self.model]
        if self.bundle is not None:
            argv = [sys.executable, "-m", "edgebit.daemon", "run", "--bundle", str(self.bundle)]
            argv += ["--config", str(self.config)]
        with self.log.open("ab") as log:
            return subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **IMPORTED})

    def restart(self) -> None:
        self.process = self._start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


@pytest.fixture
def mosquitto(require_tool: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Starts brokers: mosquitto(settings="...")."""
    program = require_tool("mosquitto")
    with ExitStack() as stack:

        def start(settings: str = "") -> Broker:
            folder = tmp_path / f"broker{len(list(tmp_path.glob('broker*')))}"
            folder.mkdir()
            broker = Broker(program, folder, settings)
            stack.callback(broker.stop)
            return broker

        yield start


@pytest.fixture
def broker(mosquitto: Callable[..., Broker]) -> Broker:
    return mosquitto()


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts daemons with the fake model: daemons(broker_url, toml="...")."""
    with ExitStack() as stack:

        def start(url: str, **named: Any) -> DaemonProcess:
            daemon = DaemonProcess(tmp_path / f"daemon{len(list(tmp_path.glob('daemon*')))}", url, **named)
            stack.callback(daemon.stop)
            return daemon

        yield start


@pytest.fixture
def ears() -> Iterator[Callable[..., Ear]]:
    """Connects clients: ears(port, "topic/#", mqtt5=True)."""
    with ExitStack() as stack:

        def connect(port: int, *topics: str, **named: Any) -> Ear:
            ear = Ear(port, *topics, **named)
            stack.callback(ear.close)
            return ear

        yield connect


@pytest.fixture
def ready(
    broker: Broker, daemons: Callable[..., DaemonProcess], ears: Callable[..., Ear]
) -> Callable[..., DaemonProcess]:
    """Starts a daemon at `broker` and waits until its status says ready."""

    def start(**named: Any) -> DaemonProcess:
        daemon = daemons(broker.url, **named)
        wait_ready(broker.port, ears)
        return daemon

    return start


def wait_ready(port: int, ears: Callable[..., Ear], state: str = "ready") -> None:
    ear = ears(port, "edgebit/v1/pi/status")
    ear.until(lambda message: json.loads(message.payload)["state"] == state)
