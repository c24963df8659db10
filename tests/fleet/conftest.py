"""Fleets for tests: an inventory of devices, and a bundle that is only a name to them."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgebit.bundle.archive import hash_file, open_bundle, write_archive
from edgebit.bundle.manifest import BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.deploy.device import AgentError
from edgebit.deploy.outcome import Outcome
from edgebit.deploy.plan import Step
from edgebit.errors import DeployError, NoAnswerError, TransportError
from edgebit.fleet import runner
from edgebit.fleet.inventory import read_inventory
from edgebit.fleet.journal import open_journal
from edgebit.fleet.rollout import Limits, plan_waves
from edgebit.fleet.runner import Rollout, RolloutOptions

BUNDLE = "0123456789abcdef"


class Recorder:
    """A listener that keeps what it is told, and calls `on_say` when something is said of the whole roll-out."""

    def __init__(self, on_say=lambda: None):
        self.begun, self.asked, self.ends, self.said, self.soaks = [], [], [], [], []
        self._on_say = on_say

    def began(self, name, wave):
        self.begun.append(name)

    def asking(self, name, when):
        self.asked.append((name, when))

    def step(self, name, step):
        pass

    def sending(self, name, size):
        return lambda count: None

    def ended(self, report):
        self.ends.append((report.name, report.result))

    def say(self, text):
        self.said.append(text)
        self._on_say()

    def soaking(self, left_s):
        self.soaks.append(left_s)


@dataclass
class ActingAgent:
    """What a device's agent answers once the bundle is there. Silent: its daemon is up, or down."""

    runs: str | None = BUNDLE
    silent: bool = False
    up: bool = True
    reached: bool = True

    def status(self):
        if not self.reached:
            raise TransportError("it is out of reach")
        slots = {"a": {"id": self.runs}} if self.runs else {}
        return {"slots": slots, "active": "a" if self.runs else None, "up": self.up}

    def ask(self, verb, *args, **named):
        if self.silent:
            raise AgentError("the daemon did not answer a ping within 30 s", NoAnswerError.exit_code)

    def rollback(self, *, service, check_timeout_s):
        self.runs = "fedcba9876543210"
        return {"id": self.runs}


@dataclass
class ActingFleet:
    """Devices that act: install() of the runner asks this instead. `acts`: name -> what becomes of a deploy there."""

    folder: Path
    count: int = 6
    acts: dict = field(default_factory=dict)
    agents: dict = field(default_factory=dict)  # name -> ActingAgent, where it is not as it should be
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0
    most_under_way: int = 0

    def write(self, extra=""):
        lines = [f'[devices.d{n}]\nurl = "local:d{n}"' for n in range(self.count)]
        (self.folder / "fleet.toml").write_text("\n".join(lines) + "\n" + extra)

    def agent(self, transport, *_):
        return self.agents.get(Path(transport.root).name) or ActingAgent()

    def install(self, bundle, transport, options, reporter):
        name = Path(transport.root).name
        with self.lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            act = self.acts.get(name, "ok")
            reporter.step(Step("stage", "lay it there"))
            if callable(act):
                act = act(reporter)
            if act == "silent":
                raise DeployError("the daemon did not answer. The device runs what it ran before")
            if act == "gone":
                raise TransportError(f"{name} is out of reach")
            return Outcome(BUNDLE, slot="" if act == "present" else "a", device=name, answer_s=0.1)
        finally:
            with self.lock:
                self.under_way -= 1

    def roll_out(self, *, canary=0, batch=100, fresh=False, on_say=lambda: None, **limits):
        """Roll out to all of them; gives the report and what the listener heard."""
        inventory = read_inventory(self.folder / "fleet.toml")
        recorder = Recorder(on_say)
        waves = plan_waves([device.name for device in inventory.devices], canary, batch)
        with open_journal(inventory.path, BUNDLE) as journal:
            if not fresh:
                journal.take_up()
            bundle = SimpleNamespace(id=BUNDLE)
            options = RolloutOptions(limits=Limits(**limits))
            report = Rollout(bundle, inventory.devices, waves, options, journal, recorder).run()
        return report, recorder


@pytest.fixture
def write_bundle(tmp_path):
    """Writes a bundle of files that are only bytes: name -> content, a number for so many zeros."""

    def write(name, triple, files):
        sources = {}
        for member, content in files.items():
            sources[member] = tmp_path / f"{name}-{member.replace('/', '-')}"
            with sources[member].open("wb") as file:
                file.truncate(content) if isinstance(content, int) else file.write(content.encode())
        manifest = Manifest(
            name=name, edgebit="0.1.0", abi=1, target=TargetInfo(name="one", triple=triple),
            model=ModelInfo(name=name), build=BuildInfo(),
            files={key: hash_file(path) for key, path in sources.items()},
        )  # fmt: skip
        write_archive(tmp_path / f"{name}.bundle", manifest, sources)
        return open_bundle(tmp_path / f"{name}.bundle")

    return write


@pytest.fixture
def acting_fleet(tmp_path, monkeypatch):
    """Six devices that act, with a state folder of their own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(runner, "RETRY_PAUSE_S", 0.0)
    fleet = ActingFleet(tmp_path)
    fleet.write()
    monkeypatch.setattr(runner, "install", fleet.install)
    monkeypatch.setattr(runner, "device_at", fleet.agent)
    monkeypatch.setattr(runner, "device_of", fleet.agent)
    monkeypatch.setattr(runner, "has_edgebit", lambda state: True)
    return fleet
