"""Devices and bundles for the deploy's tests: a real agent in a real zip file, with a daemon and an engine that act.

How they act stands in the bundle's model.ebm, a JSON object here: `golden` "ok", "wrong" or "crash" for the self-test,
`answers` "yes", "no", "error", "crash", "once" (and then it dies) or "anew" (and then it loads its model again) for the
daemon, which decodes at 2 tok/s.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt
import pytest
from compiled_pyz import add_compiled

from edgebit import resources
from edgebit.bundle.archive import Bundle, hash_file, open_bundle, write_archive
from edgebit.bundle.manifest import BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.bundle.signature import PublicKey
from edgebit.deploy.device import Device
from edgebit.deploy.install import install
from edgebit.deploy.outcome import Outcome
from edgebit.deploy.plan import InstallOptions, KnownKeys, Step
from edgebit.device_probe import probe
from edgebit.keys import Signing
from edgebit.transport import Progress, open_transport

ACTING_DAEMON = r"""
import hashlib, json, os, signal, sys, threading
from pathlib import Path

def behaviour(folder):
    return json.loads((Path(folder) / "model.ebm").read_text())

def identity(root):
    other = behaviour(root / "active").get("poses_as")
    return other or hashlib.sha256((root / "active" / "manifest.json").read_bytes()).hexdigest()[:16]

def golden(self, options):
    act = behaviour(options.folder)["golden"]
    if act == "crash":
        os.kill(os.getpid(), signal.SIGILL)
    if act == "wrong":
        from edgebit.errors import BundleError
        raise BundleError("golden probe 0 differs in layer 1")
    return {"probes": 3, "isa": "scalar"}

def run(root):
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from edgebit.daemon.config.reader import read_config
    from edgebit.daemon.install.gate import start_gate
    act = behaviour(root / "active")["answers"]
    start_gate(root)
    print("daemon of", os.path.realpath(root / "active"), "acts", act, flush=True)
    if act == "crash":
        sys.exit(70)
    config = read_config(root / "edgebitd.toml")
    client = paho.Client(CallbackAPIVersion.VERSION2)
    if config.mqtt.user:
        from edgebit.daemon.config.reader import read_password
        client.username_pw_set(config.mqtt.user, read_password(config.mqtt))
    def answer(client, userdata, message):
        principal, op = config.topics.parse_request(message.topic)
        job = json.loads(message.payload)["id"]
        body = {"id": job, "seq": 0, "t": "done", "bundle": identity(root)}
        if op == "generate":
            body |= {"eval_count": 4, "eval_duration": 2_000_000_000}
            if act == "once":
                threading.Timer(0.3, os._exit, [70]).start()
        if act == "anew" and op == "ping":
            body["bundle"] = None
        if act == "error" and op == "generate":
            body = {"id": job, "seq": 0, "t": "error", "error": {"status": 500, "message": "no working model"}}
        if act != "no":
            client.publish(config.topics.reply(principal, job), json.dumps(body), qos=1)
    client.on_connect = lambda *_: client.subscribe(config.topics.requests, qos=1)
    client.on_message = answer
    signal.signal(signal.SIGTERM, lambda *_: client.disconnect())
    client.connect(config.mqtt.host, config.mqtt.port)
    client.loop_forever()

if sys.argv[1] == "agent":
    from edgebit.daemon.install import agent
    agent.Agent.golden = golden
    sys.exit(agent.main(sys.argv[2:]))
assert sys.argv[1:3] == ["run", "--root"], sys.argv
if "--check-config" in sys.argv:
    from edgebit.daemon.__main__ import main
    sys.exit(main(sys.argv[1:]))
run(Path(sys.argv[3]))
"""


# What a device without Python runs: edgebit-run as a script; model.ebm begins with how it acts, and a name.
ACTING_RUNNER = r"""#!/bin/sh
read -r act name <"$1"
case "$act $*" in
wrong*--check*) echo "edgebit-run: golden probe 0 differs in layer 1" >&2; exit 14 ;;
crash*--check*) kill -ILL $$ ;;
mute*-p*) echo "edgebit-run: no memory for 99 bytes" >&2; exit 9 ;;
*--check*) echo "3 golden probes hold (scalar)" ;;
*--chat*) echo "edgebit-run: has no chat template" >&2; exit 3 ;;
*) echo "$name answers" ;;
esac
"""


@pytest.fixture(scope="session")
def acting_pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edgebitd.pyz with the real agent and paho-mqtt, and the acting daemon."""
    path = tmp_path_factory.mktemp("pyz") / "edgebitd.pyz"
    package, paho_folder = resources.package_dir(), Path(paho.mqtt.__path__[0]).parent
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", ACTING_DAEMON)
        for folder in ("bundle", "daemon", "deploy", "onnx_engine", "runtime", "transport"):
            for source in sorted((package / folder).rglob("*.py")):
                add_compiled(archive, f"edgebit/{source.relative_to(package)}", source.read_bytes())
        for name in ("__init__.py", "device_probe.py", "elf.py", "errors.py", "resources.py"):
            add_compiled(archive, f"edgebit/{name}", (package / name).read_bytes())
        for source in sorted(paho_folder.rglob("*.py")):
            add_compiled(archive, f"paho/{source.relative_to(paho_folder)}", source.read_bytes())
    return path


@pytest.fixture
def make_bundle(acting_pyz: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """Makes a bundle whose engine and daemon act as told."""

    def make(
        name: str = "one",
        *,
        golden: str = "ok",
        answers: str = "yes",
        poses_as: str = "",
        arch: str | None = None,
        pyz: Path = acting_pyz,
        signing: Signing | None = None,
        ballast: int = 0,
    ) -> Bundle:
        folder = tmp_path / f"{name}-files"
        folder.mkdir()
        hexes = random.Random(name).randbytes(ballast // 2).hex()  # deflates to about a half
        (folder / "model.ebm").write_text(
            json.dumps({"name": name, "golden": golden, "answers": answers, "poses_as": poses_as, "ballast": hexes})
        )
        (folder / "libedgebit.so").write_bytes(b"\x7fELF no library, and the same in each bundle" * 100)
        service = resources.package_dir() / "daemon" / "install" / "edgebit-daemon.service"
        sources = {
            "model.ebm": folder / "model.ebm",
            "lib/libedgebit.so": folder / "libedgebit.so",
            "edgebitd.pyz": pyz,
            "service/edgebit-daemon.service": service,
        }
        manifest = Manifest(
            name=name,
            edgebit="0.1.0",
            abi=1,
            target=TargetInfo(name="here", triple=f"{arch or host_arch()}-linux-gnu"),
            model=ModelInfo(name=name),
            build=BuildInfo(),
            files={member: hash_file(path) for member, path in sources.items()},
            release=signing.release if signing else None,
        )
        path = tmp_path / f"{name}.bundle"
        write_archive(path, manifest, sources, sign=signing.sign if signing else None)
        return open_bundle(path)

    return make


@pytest.fixture
def runner_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Makes a bundle whose edgebit-run acts as told."""

    def make(
        name: str = "one",
        act: str = "ok",
        arch: str | None = None,
        without: tuple[str, ...] = (),
        size: int = 0,
        signing: Signing | None = None,
    ) -> Bundle:
        folder = tmp_path / f"{name}-files"
        folder.mkdir()
        sources = {}
        for member, text in {
            "model.ebm": f"{act} {name}\n" + "." * size,
            "lib/libedgebit.so": "no library, and the same in each bundle\n",
            "bin/edgebit-run": ACTING_RUNNER,
            "edgebitd.pyz": "a daemon that no Python runs\n",
        }.items():
            if member not in without:
                sources[member] = folder / member.replace("/", "-")
                sources[member].write_text(text)
        manifest = Manifest(
            name=name,
            edgebit="0.1.0",
            abi=1,
            target=TargetInfo(name="here", triple=f"{arch or host_arch()}-linux-gnu"),
            model=ModelInfo(name=name),
            build=BuildInfo(),
            release=signing.release if signing else None,
            files={member: hash_file(path) for member, path in sources.items()},
        )
        write_archive(tmp_path / f"{name}.bundle", manifest, sources, sign=signing.sign if signing else None)
        return open_bundle(tmp_path / f"{name}.bundle")

    return make


def host_arch() -> str:
    """The architecture of this machine's programs."""
    return subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()


def free_port() -> int:
    """A TCP port on the loopback interface that nobody uses now."""
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def broker(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a mosquitto of the test's own."""
    port = free_port()
    config = tmp_path_factory.mktemp("broker") / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([require_tool("mosquitto"), "-c", str(config)], stderr=subprocess.DEVNULL)
    wait_for_port(port)
    yield f"mqtt://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)


def wait_for_port(port: int, timeout_s: float = 10) -> None:
    """Return once somebody listens there."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens on port {port}"
            time.sleep(0.05)


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.remarks: list[str] = []
        self.sent: dict[str, int] = {}

    def step(self, step: Step) -> None:
        self.steps.append(step)

    def remark(self, text: str) -> None:
        self.remarks.append(text)

    def sending(self, name: str, size: int) -> Progress:
        self.sent[name] = 0

        def told(count: int) -> None:
            self.sent[name] += count

        return told


@pytest.fixture
def recorder() -> Recorder:
    """A reporter of its own."""
    return Recorder()


@dataclass
class LocalDevice:
    """A device that is a folder of this machine."""

    root: Path
    broker: str
    reporter: Recorder

    @property
    def url(self) -> str:
        return f"local:{self.root}"

    def deploy(
        self,
        bundle: Bundle,
        *,
        force: bool = False,
        timeout_s: float = 20,
        keys: Mapping[str, PublicKey] | None = None,
        **limits: float,
    ) -> Outcome:
        """Deploy with a reporter of its own each time."""
        self.reporter = Recorder()
        options = InstallOptions(
            settings={"mqtt": {"url": self.broker}, "device": {"name": "test"}},
            service="supervisor",
            force=force,
            known=KnownKeys(keys or {}),
            check_timeout_s=timeout_s,
            **limits,
        )
        with open_transport(self.url) as transport:
            return install(bundle, transport, options, self.reporter)

    def installed(self) -> Device:
        """Its agent."""
        return Device.installed(open_transport(self.url))

    def running(self) -> str | None:
        """The name of the bundle that runs."""
        status = self.installed().status()
        return status["slots"][status["active"]]["name"] if status["active"] and status["pid"] else None


@pytest.fixture
def local_device(tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDevice]:
    """A folder to deploy to, with the tests' own Python; its daemon is stopped afterwards."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    device = LocalDevice(tmp_path / "device", broker, Recorder())
    yield device
    with open_transport(device.url) as transport:
        if probe(transport).pyz:
            device.installed().uninstall(keep_config=False)
