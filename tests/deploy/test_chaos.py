"""Deploys that are killed at random: whatever is killed, whenever, the device answers, with the old bundle or the new.

The daemon, its engine, the agent and the supervisor are the real ones, on a real mosquitto. EDGEBIT_CHAOS_SEED repeats
a run (its kills by step exactly, its kills by time nearly), EDGEBIT_CHAOS_KILLS sets their number.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from compiled_pyz import add_compiled

import edgebit
from edgebit import resources
from edgebit.bundle.archive import hash_file, open_bundle, write_archive
from edgebit.bundle.manifest import BuildInfo, Manifest, ModelInfo, TargetInfo, bundle_id
from edgebit.convert import convert
from edgebit.deploy.device import Device
from edgebit.device_probe import probe
from edgebit.errors import EdgebitError
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.pyz import build_pyz
from edgebit.transport import open_transport

KILLS = int(os.environ.get("EDGEBIT_CHAOS_KILLS", "200"))
LANES = 2
CLEAN_EVERY = 8  # kills, then a deploy that nobody kills
ANSWER_S = 60.0
HERE = Path(__file__).resolve().parent
IMPORTED = {"PYTHONPATH": str(Path(edgebit.__file__).resolve().parents[1])}

# In front of edgebitd.pyz's own start: with CHAOS_KILL_AT=VERB:N that verb of the agent kills itself before its Nth
# change to the file system. What it starts does not inherit that.
DYING_AGENT = """
import os, signal, sys
verb, _, left = os.environ.pop("CHAOS_KILL_AT", "").partition(":")
if verb and verb in sys.argv:
    from edgebit.bundle import slots
    left = int(left)
    def before(kind, path):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    slots.Slots.__init__.__defaults__ = (before,)
"""


@pytest.fixture(scope="module")
def bundles(native, require_tool, tmp_path_factory) -> list[Path]:
    """Three bundles of the shipped model that differ in one file of 150 kB."""
    folder = tmp_path_factory.mktemp("bundles")
    convert(resources.assistant_model_dir(), folder / "model.ebm")
    build_pyz(folder / "whole.pyz")
    dying_pyz(folder / "whole.pyz", folder / "edgebitd.pyz")
    made = []
    for name in ("one", "two", "three"):
        (folder / name).write_bytes(random.Random(name).randbytes(150_000))
        sources = {
            "model.ebm": folder / "model.ebm",
            "lib/libedgebit.so": Path(native.path),
            "edgebitd.pyz": folder / "edgebitd.pyz",
            "bin/edgebit-run": folder / name,
            "service/edgebit-daemon.service": resources.package_dir() / "daemon" / "install" / "edgebit-daemon.service",
        }
        manifest = Manifest(
            name=name,
            edgebit="0.1.0",
            abi=1,
            target=TargetInfo(name="here", triple=f"{os.uname().machine}-linux-gnu"),
            model=ModelInfo(name=name),
            build=BuildInfo(),
            files={member: hash_file(path) for member, path in sources.items()},
        )
        made.append(folder / f"{name}.bundle")
        write_archive(made[-1], manifest, sources)
    return made


def dying_pyz(whole: Path, out: Path) -> None:
    """edgebitd.pyz that can die when told."""
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(out, "w") as dying:
        for name in source.namelist():
            content = source.read(name)
            if name == "__main__.py":
                dying.writestr(name, DYING_AGENT.encode() + content)
            elif name.endswith(".py"):
                add_compiled(dying, name, content)


@dataclass
class Chaos:
    """One device under fire."""

    root: Path
    broker: str
    bundles: list[Path]
    random: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    deploy_s: float = 3.0  # how long a whole one takes, about

    def __post_init__(self) -> None:
        self.name = self.root.name
        self.ids = {open_bundle(path).id: path for path in self.bundles}

    def deploy(self) -> None:
        """The next bundle, and nobody is killed."""
        began = time.monotonic()
        bundle = self._next_bundle()
        process = self._start_host(bundle)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"a deploy after {self.last} failed: {err}\n{out}\n{self.log()}"
        self.deploy_s = time.monotonic() - began
        assert self.answering() == open_bundle(bundle).id

    def kill_one(self) -> None:
        """Begin a deploy, kill something, and see who answers."""
        bundle, before = self._next_bundle(), self.answering()
        # Old is also what an earlier deploy that was killed had switched to, and what the device goes back to from it.
        there = {bundle_id(path.read_bytes()) for path in self.root.glob("slots/?/manifest.json")}
        kind = self.random.choice(list(KINDS))
        self.last = f"{kind} (old {before}, new {open_bundle(bundle).id})"
        needs_boot = KINDS[kind](self, bundle)
        if needs_boot and not self.processes("supervise"):
            self.boot()
        answering = self.answering()
        allowed = dict.fromkeys({before, *there}, "old") | {open_bundle(bundle).id: "new"}
        assert answering in allowed, f"{self.last}: {answering} answers\n{self.log()}"
        self.outcomes[allowed[answering]] += 1
        self.outcomes[f"{kind}: {allowed[answering]}"] += 1

    def host_at_a_step(self, bundle: Path) -> bool:
        self._end(self._start_host(bundle, die_at=self.random.randrange(9)))
        return False

    def host_while_it_sends(self, bundle: Path) -> bool:
        self._end(self._start_host(bundle, die_sending=True))
        return False

    def host_at_a_moment(self, bundle: Path) -> bool:
        process = self._start_host(bundle)
        self._later()
        process.kill()
        self._end(process)
        return False

    def host_and_agent_at_a_moment(self, bundle: Path) -> bool:
        process = self._start_host(bundle)
        self._later()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self._end(process)
        return False

    def agent_at_a_change(self, bundle: Path) -> bool:
        """The agent of one verb dies before one of its changes; the deploy goes on and has to cope."""
        verb = self.random.choice(("stage", "stage", "switch", "commit"))
        at = self.random.randrange({"stage": 16, "switch": 10, "commit": 10}[verb])
        self._end(self._start_host(bundle, CHAOS_KILL_AT=f"{verb}:{at}"))
        return False

    def agent_at_a_moment(self, bundle: Path) -> bool:
        return self._kill_at_a_moment(bundle, "agent")

    def daemon_at_a_moment(self, bundle: Path) -> bool:
        return self._kill_at_a_moment(bundle, "run")

    def supervisor_at_a_moment(self, bundle: Path) -> bool:
        self._kill_at_a_moment(bundle, "supervise")
        return True

    def power_at_a_moment(self, bundle: Path) -> bool:
        """All there is dies at once; then the device boots."""
        process = self._start_host(bundle)
        self._later()
        process.kill()
        while there := self.processes():
            self._kill(there)
        self._end(process)
        return True

    def boot(self) -> None:
        """Start the service as a boot would."""
        (self.root / "run" / "edgebitd.pid").unlink(missing_ok=True)
        with (self.root / "run" / "edgebitd.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, str(self.root / "active" / "edgebitd.pyz"), "agent", "--root", str(self.root),
                 "supervise"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def answering(self) -> str:
        """The bundle that answers a ping and a prompt; one that still loads answers a ping, but without its name."""
        deadline = time.monotonic() + ANSWER_S
        with DeviceClient(parse_broker_url(self.broker), timeout_s=20) as client:
            while True:
                try:
                    pong = client.ask(self.name, "ping", {}, timeout_s=2)
                    fields = {"prompt": "Hello", "options": {"num_predict": 2, "temperature": 0}}
                    client.ask(self.name, "generate", fields, timeout_s=10)
                    if pong["bundle"] is not None:
                        return str(pong["bundle"])
                    fault = "the model was loading"
                except (EdgebitError, KeyError) as error:
                    fault = str(error)
                assert time.monotonic() < deadline, f"mute after {self.last}: {fault}\n{self.log()}"
                time.sleep(0.1)

    last = "its first deploy"

    def log(self) -> str:
        log = self.root / "run" / "edgebitd.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.exists() else "no log"

    def processes(self, role: str | None = None) -> list[int]:
        """Processes of this device: the daemon ("run"), "supervise", "gate", or an "agent" at another verb."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                argv = entry.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if str(self.root) not in argv:
                continue
            known = next((word for word in ("supervise", "gate", "run", "agent") if word in argv), None)
            if known and role in (None, known):
                found.append(int(entry.parent.name))
        return found

    def _kill_at_a_moment(self, bundle: Path, role: str) -> bool:
        process = self._start_host(bundle)
        self._later()
        self._kill(self.processes(role))
        self._end(process)
        return False

    def _kill(self, doomed: list[int]) -> None:
        """Kill processes, and wait until they are gone."""
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while set(doomed) & set(self.processes()):
            time.sleep(0.005)

    def _next_bundle(self) -> Path:
        active = json.loads((self.root / "active" / "manifest.json").read_text())["name"] if self.root.exists() else ""
        return self.random.choice([path for path in self.bundles if path.stem != active])

    def _start_host(
        self, bundle: Path, die_at: int | None = None, die_sending: bool = False, **environment: str
    ) -> subprocess.Popen[str]:
        told = {
            "root": str(self.root), "bundle": str(bundle), "broker": self.broker, "name": self.name,
            "die_at": die_at, "die_sending": die_sending,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, str(HERE / "killed_host.py"), json.dumps(told)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env={**os.environ, **IMPORTED, **environment},
        )  # fmt: skip

    def _later(self) -> None:
        time.sleep(self.random.uniform(0, self.deploy_s))

    def _end(self, process: subprocess.Popen[str]) -> None:
        """Wait until the deploy, and whatever of the agent outlives it, have ended."""
        out, err = process.communicate(timeout=120)
        self.last += f" ended {process.returncode} after {' '.join(out.split())} {err.strip()[-300:]}"


KINDS: dict[str, Callable[[Chaos, Path], bool]] = {
    "host at a step": Chaos.host_at_a_step,
    "host while it sends": Chaos.host_while_it_sends,
    "host at a moment": Chaos.host_at_a_moment,
    "host and agent at a moment": Chaos.host_and_agent_at_a_moment,
    "agent at a change": Chaos.agent_at_a_change,
    "agent at a moment": Chaos.agent_at_a_moment,
    "daemon at a moment": Chaos.daemon_at_a_moment,
    "supervisor at a moment": Chaos.supervisor_at_a_moment,
    "power at a moment": Chaos.power_at_a_moment,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_deploys_leave_a_device_that_answers(bundles, broker, tmp_path, monkeypatch, capsys):
    """After every kill the old bundle or the new one answers, and the next deploy that nobody kills succeeds."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    seed = int(os.environ.get("EDGEBIT_CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))
    began, done = time.monotonic(), Counter()
    stop = threading.Event()

    def lane(number: int) -> None:
        device = Chaos(tmp_path / f"device-{number}", broker, bundles, random.Random(seed + number))
        try:
            device.deploy()
            for kill in range(KILLS // LANES):
                if stop.is_set():
                    return
                device.kill_one()
                if kill % CLEAN_EVERY == CLEAN_EVERY - 1:
                    device.deploy()
            device.deploy()
        except BaseException as error:
            stop.set()
            error.add_note(f"EDGEBIT_CHAOS_SEED={seed}, device {number}")
            raise
        finally:
            done.update(device.outcomes)
            with open_transport(f"local:{device.root}") as transport:
                if probe(transport).pyz:
                    Device.installed(transport).uninstall(keep_config=False)

    with ThreadPoolExecutor(LANES) as lanes:
        for ended in [lanes.submit(lane, number) for number in range(LANES)]:
            ended.result()

    with capsys.disabled():
        kinds = "".join(f"\n  {kind} {count}" for kind, count in sorted(done.items()) if ":" in kind)
        killed, seconds = done["old"] + done["new"], time.monotonic() - began
        print(f"\nseed {seed}: {killed} deploys killed in {seconds:.0f} s; after each the device answered:")
        print(f"  {done['old']} with the old bundle, {done['new']} with the new, 0 were mute{kinds}")
    assert done["old"] + done["new"] == KILLS // LANES * LANES
    assert done["old"] and done["new"]
