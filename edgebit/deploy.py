"""Putting bundles on devices: look at the device, plan, send what it lacks, test, switch, and go back if it is silent.

Deciding is pure (plan_install); the device's side of every act is edgebit/daemon/agent.py, called over a transport.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol

from edgebit.bundle.archive import Bundle
from edgebit.bundle.manifest import DAEMON_MEMBER, LIBRARY_MEMBER, MODEL_MEMBER, Manifest
from edgebit.device_probe import DeviceState, probe
from edgebit.errors import BrokerError, ConfigError, DeployError, EdgebitError, TransportError
from edgebit.transport import Progress, Section, Transport

PYTHON_MIN = (3, 11)
DISK_MARGIN_BYTES = 16 << 20  # for logs, state and the file system itself
MEMORY_MARGIN_BYTES = 64 << 20  # Python, the daemon and a small KV cache
CHECK_TIMEOUT_S = 120.0
SHORT_TIMEOUT_S = 60.0
LOG_LINES = 15

Action = Literal[
    "prepare",
    "settle",
    "verify",
    "send",
    "stage",
    "selftest",
    "configure",
    "ensure",
    "stop",
    "switch",
    "start",
    "check",
    "commit",
]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a deploy does: `line` says it to the user."""

    action: Action
    line: str
    name: str = ""  # the file to send
    bytes: int = 0  # to send


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallOptions:
    """What the user chose for a deploy."""

    settings: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # for edgebitd.toml: {section: {key: value}}
    service: str = "auto"  # auto, systemd, supervisor
    force: bool = False  # deploy again what is there, or was taken back
    check_timeout_s: float = CHECK_TIMEOUT_S


@dataclass(slots=True)
class Outcome:
    """What a deploy did."""

    id: str  # of the bundle
    slot: str = ""
    device: str = ""  # its name in topics
    broker: str = ""  # where it is asked, as mqtt[s]://[USER@]HOST[:PORT]
    service: str = ""
    sent_files: int = 0
    sent_bytes: int = 0
    send_s: float = 0.0
    total_s: float = 0.0
    probes: int = 0  # golden probes that held on the device
    isa: str = ""  # the micro-kernels that the device chose
    answer_s: float = 0.0  # from its start to its first answer over MQTT
    remarks: list[str] = field(default_factory=list)


class Reporter(Protocol):
    """Is told how a deploy comes along."""

    def step(self, step: Step) -> None:
        """A step begins."""

    def remark(self, text: str) -> None:
        """Something the user should know."""

    def sending(self, name: str, size: int) -> Progress:
        """A file is being sent; gives what is told of the bytes."""


class AgentError(DeployError):
    """The agent of a device could not do what it was asked; `code` is its exit code, the kind of fault (errors.py)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _blames_bundle(error: BaseException) -> bool:
    """Whether a fault speaks against the bundle: broker, settings, the way there and Ctrl-C do not."""
    if isinstance(error, KeyboardInterrupt | TransportError):
        return False
    return not (isinstance(error, AgentError) and error.code in (BrokerError.exit_code, ConfigError.exit_code))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C is not heard meanwhile, here and in the programs that are started: a device is being put in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Device:
    """The agent of a device, reached over a transport."""

    def __init__(self, transport: Transport, state: DeviceState, pyz: str) -> None:
        self._transport = transport
        self._state = state
        self._python = state.python.path if state.python else "python3"
        self._pyz = pyz

    @classmethod
    def installed(cls, transport: Transport) -> "Device":
        """A device that has edgebit. Raises DeployError where it has not."""
        state = probe(transport)
        if not state.pyz:
            raise DeployError(f"there is no edgebit on {transport.url} under {transport.root}. Deploy a bundle first")
        return cls(transport, state, state.pyz)

    def ask(
        self, verb: str, *args: str, input: bytes | None = None, timeout_s: float = SHORT_TIMEOUT_S
    ) -> dict[str, Any]:
        """Have the agent carry out a verb; gives its answer. Raises DeployError with its words."""
        argv = [self._python, self._pyz, "agent", "--root", self._transport.root, verb, *args]
        done = self._transport.run(argv, input=input, timeout_s=timeout_s)
        if done.code:
            if done.code in (-signal.SIGINT, 128 + signal.SIGINT):
                raise KeyboardInterrupt  # it had the same Ctrl-C as we, a moment before us
            raise AgentError(
                done.stderr.strip() or f"{verb} ended with code {done.code} on the device and said nothing", done.code
            )
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise DeployError(f"the device's answer to {verb} is no JSON: {done.stdout[:200]!r}") from None
        return answer

    def status(self) -> dict[str, Any]:
        """What is on the device and whether it runs."""
        return {**self.ask("status"), "probe": self._state.as_json()}

    def active_id(self) -> str | None:
        """The bundle that runs, or should."""
        status = self.ask("status")
        identity: str | None = status["slots"][status["active"]]["id"] if status["active"] else None
        return identity

    def logs(self, lines: int) -> tuple[str, int]:
        """The last lines of the daemon's log, and where to go on reading."""
        answer = self.ask("logs", "--lines", str(lines))
        return answer["text"], answer["next"]

    def logs_after(self, position: int) -> tuple[str, int]:
        """What the log got since, and where to go on reading."""
        answer = self.ask("logs", "--after", str(position))
        return answer["text"], answer["next"]

    def rollback(
        self,
        *,
        service: str,
        check_timeout_s: float = CHECK_TIMEOUT_S,
        say: Callable[[str], None] = lambda text: None,
    ) -> dict[str, Any]:
        """Return to the bundle before, start it, and have it answer.

        Raises DeployError, naming what runs, where it does not answer. After Ctrl-C the daemon is started all the same,
        and `say` is told what runs, before KeyboardInterrupt goes on.
        """
        try:
            slot = self.ask("rollback", timeout_s=120)
            self.ask("start", "--service", service, timeout_s=120)
            limit_s = check_timeout_s + SHORT_TIMEOUT_S
            answer = self.ask("check", "--timeout-s", str(check_timeout_s), timeout_s=limit_s)
        except KeyboardInterrupt:
            with _uninterrupted():
                self.ask("start", "--service", service, timeout_s=120)
                say(f"Stopped before an answer came. The device runs bundle {self.active_id()}")
            raise
        except AgentError as error:
            try:
                status = self.ask("status")
                runs: str | None = status["slots"][status["active"]]["id"] if status["active"] else None
            except EdgebitError:
                raise error from None
            if runs is None or not status["up"]:
                raise
            raise DeployError(f"{error}. The device runs bundle {runs} now, in slot {status['active']}") from error
        return {**slot, **answer}

    def uninstall(self, *, keep_config: bool) -> list[str]:
        """Stop the daemon and remove everything; gives what was left in the folder."""
        left: list[str] = self.ask("uninstall", *(["--keep-config"] if keep_config else []))["left"]
        return left


def plan_install(manifest: Manifest, identity: str, state: DeviceState, options: InstallOptions) -> list[Step]:
    """What it takes to bring the bundle `identity` to the device, in order.

    Pure. Raises DeployError, naming the reason, where the device cannot run it.
    """
    _refuse_unfit(manifest, state)
    if state.strange:
        raise DeployError(
            f"{state.root} on the device is not edgebit's: it holds {', '.join(state.strange[:3])}. Choose another"
            " folder with --root"
        )
    if not state.configured and "mqtt" not in options.settings:
        raise DeployError("the device does not know its broker yet. Name it: --mqtt mqtt://HOST[:PORT]")
    if options.service == "systemd" and state.init != "systemd":
        raise DeployError("--service systemd: systemd does not run on this device. Leave --service out")
    configure = [Step("configure", "write edgebitd.toml")] if options.settings else []
    check = Step("check", f"wait for an answer over MQTT, at most {options.check_timeout_s:g} s")
    steps = [Step("prepare", f"make {state.root}")] if not state.has_root else []
    active = state.slots.get(state.active)
    if active and active["id"] == identity and active["status"] == "good" and not options.force:
        here = f"bundle {identity} is there already: start its daemon "
        if not configure:
            return [Step("ensure", f"{here}if it does not run"), check]
        keep = Step("commit", "keep the settings")
        return [*configure, Step("ensure", f"{here}again if the settings differ"), check, keep]
    if (reason := state.refused.get(identity)) and not options.force:
        raise DeployError(
            f"bundle {identity} was taken back on this device: {reason}. Build a better one, or use --force"
        )

    lacking = [name for name in _sending_order(manifest) if not state.holds(manifest.files[name])]
    to_send = sum(
        entry.size - state.partial(entry)
        for entry in {manifest.files[name].sha256: manifest.files[name] for name in lacking}.values()
    )
    if to_send + DISK_MARGIN_BYTES > state.free_bytes:
        raise DeployError(
            f"the device has {state.free_bytes / 1e6:.1f} MB free under {state.root}; {to_send / 1e6:.1f} MB are to be"
            f" sent, and {DISK_MARGIN_BYTES / 1e6:.1f} MB should stay free. Make room there"
        )
    sends: dict[str, Step] = {}
    for name in lacking:
        entry = manifest.files[name]
        size = entry.size - state.partial(entry)
        rest = f", the rest of {_size(entry.size)}" if size < entry.size else ""
        sends.setdefault(
            entry.sha256,
            Step(
                "send",
                f"send {name}: {_size(size)}{rest}" if size else f"take in {name}, which was sent before",
                name,
                size,
            ),
        )
    in_order = list(sends.values())
    if there := len({entry.sha256 for entry in manifest.files.values()} - set(sends)):
        # Whatever is damaged there is sent after all; the agent does it, so the agent goes first.
        agent_first = 1 if in_order and in_order[0].name == DAEMON_MEMBER else 0
        in_order.insert(agent_first, Step("verify", f"check the sums of {there} files that are there"))
    steps += in_order
    if active and active["status"] == "trying":
        steps.append(Step("settle", f"settle bundle {active['id']}, whose deploy was cut off"))
    steps += [
        Step("stage", f"check what was sent, and lay bundle {identity} into the free slot"),
        Step("selftest", "run the golden probes there, bit for bit"),
        *configure,
    ]
    if active:
        steps.append(Step("stop", f"stop the daemon of bundle {active['id']}"))
    return [
        *steps,
        Step("switch", f"switch to bundle {identity}, on trial"),
        Step("start", "start the daemon"),
        check,
        Step("commit", "keep it, and throw away what no slot needs"),
    ]


def bytes_to_send(steps: Sequence[Step]) -> int:
    """What a plan sends over the way to the device, in bytes."""
    return sum(step.bytes for step in steps)


def install(bundle: Bundle, transport: Transport, options: InstallOptions, reporter: Reporter) -> Outcome:
    """Deploy: probe, plan, and carry the plan out.

    Raises DeployError where the device cannot run the bundle or it did not answer there; the device then runs what it
    ran before.
    """
    bundle.verify()  # also where the device has its files already: a damaged bundle is not the one that it says it is
    state = probe(transport)
    return Installation(bundle, transport, state, options, reporter).carry_out(
        plan_install(bundle.manifest, bundle.id, state, options)
    )


class Installation:
    """A plan being carried out."""

    def __init__(
        self, bundle: Bundle, transport: Transport, state: DeviceState, options: InstallOptions, reporter: Reporter
    ) -> None:
        self._bundle = bundle
        self._transport = transport
        self._state = state
        self._options = options
        self._reporter = reporter
        self._outcome = Outcome(bundle.id)
        self._begun: set[Action] = set()
        self._settings_changed = False
        self._was_active = state.slots.get(state.active, {}).get("id")
        self._python = state.python.path if state.python else "python3"
        self._device = Device(transport, state, self._stored(DAEMON_MEMBER))
        self._acts: Mapping[Action, Callable[[Step], None]] = {
            "prepare": self._prepare,
            "settle": self._settle,
            "verify": self._verify,
            "send": self._send,
            "stage": self._stage,
            "selftest": self._selftest,
            "configure": self._configure,
            "ensure": self._ensure,
            "stop": self._stop,
            "switch": self._switch,
            "start": self._start,
            "check": self._check,
            "commit": self._commit,
        }

    def carry_out(self, steps: Sequence[Step]) -> Outcome:
        """Do each step in turn. A step that fails brings back the bundle and the settings from before.

        Raises KeyboardInterrupt after Ctrl-C, once that is done.
        """
        began = time.monotonic()
        for step in steps:
            self._reporter.step(step)
            self._begun.add(step.action)
            try:
                self._acts[step.action](step)
            except (EdgebitError, KeyboardInterrupt) as error:
                if not self._begun & _CHANGING:
                    raise
                with _uninterrupted():
                    undone = self._taken_back(error)
                if isinstance(error, KeyboardInterrupt):
                    self._reporter.remark(str(undone))
                    raise
                raise undone from error
        self._outcome.total_s = time.monotonic() - began
        return self._outcome

    def _prepare(self, step: Step) -> None:
        self._run(["mkdir", "-p", "-m", "700", self._state.root])
        self._run(["mkdir", "-p", f"{self._state.root}/store", f"{self._state.root}/slots", f"{self._state.root}/run"])

    def _send(self, step: Step) -> None:
        entry, member = self._bundle.manifest.files[step.name], self._bundle.member(step.name)
        began = time.monotonic()
        part = f"{self._place(entry.sha256)}.part"
        progress = self._reporter.sending(step.name, entry.size)
        self._transport.put(Section(member.path, member.offset, member.size), part, progress)
        self._outcome.send_s += time.monotonic() - began
        if step.name == DAEMON_MEMBER:
            self._run([self._python, "-c", _ADMIT, part, self._place(entry.sha256), entry.sha256])
        self._outcome.sent_files += 1
        self._outcome.sent_bytes += step.bytes

    def _verify(self, step: Step) -> None:
        agent = self._bundle.manifest.files[DAEMON_MEMBER]
        summed = self._transport.run([self._python, "-c", _CHECK, self._place(agent.sha256), agent.sha256])
        if summed.code:
            self._reporter.remark(f"{DAEMON_MEMBER} is damaged on the device and is sent again")
            self._send(Step("send", f"send {DAEMON_MEMBER} again", DAEMON_MEMBER, agent.size))
        lacking = self._ask("missing", input=self._bundle.manifest_bytes, timeout_s=1800)["missing"]
        for name, entry in sorted(self._bundle.manifest.files.items()):
            if entry.sha256 in lacking and self._state.holds(entry):
                self._reporter.remark(f"{name} is damaged on the device and is sent again")
                self._send(Step("send", f"send {name} again", name, entry.size))
                lacking.remove(entry.sha256)

    def _settle(self, step: Step) -> None:
        """A deploy was cut off between switch and commit: its bundle stays if it answers, and goes if not."""
        active = self._state.slots[self._state.active]["id"]
        self._ask("start", "--service", self._options.service)
        try:
            self._ask("check", "--timeout-s", str(self._options.check_timeout_s), timeout_s=self._check_limit_s)
            self._ask("commit", active, "--keep-store")  # what was sent for the new bundle is no slot's yet
        except DeployError as error:
            if self._device.active_id() == active:  # and not back at the one before already
                if _blames_bundle(error):
                    self._ask("fail", f"its deploy was cut off, and: {error}", timeout_s=120)
                else:
                    self._ask("withdraw", timeout_s=120)
            self._reporter.remark(f"bundle {active} was taken back: {error}")

    def _stage(self, step: Step) -> None:
        flags = ["--force"] if self._options.force else []
        self._outcome.slot = self._ask("stage", *flags, input=self._bundle.manifest_bytes, timeout_s=600)["slot"]

    def _selftest(self, step: Step) -> None:
        self._ask("detect", "--service", self._options.service)  # what would refuse the start refuses it now
        answer = self._ask("selftest", self._bundle.id, timeout_s=660)
        self._outcome.probes, self._outcome.isa = answer["probes"], answer["isa"]
        if not answer["probes"]:
            self._reporter.remark("the model has no golden probes: nothing proves it computes the same on this device")

    def _configure(self, step: Step) -> None:
        answer = self._ask("configure", input=json.dumps(self._options.settings).encode())
        self._settings_changed = answer["changed"]

    def _ensure(self, step: Step) -> None:
        """Start the daemon, unless it runs as it should."""
        status, wanted = self._ask("status"), self._options.service
        kept_so = wanted == "auto" or str(status["service"]).startswith(wanted)
        if self._settings_changed or not status["up"] or not kept_so:
            self._ask("detect", "--service", wanted)
            self._start(step)
        else:
            self._outcome.service = status["service"]

    def _stop(self, step: Step) -> None:
        self._ask("stop", timeout_s=120)

    def _switch(self, step: Step) -> None:
        self._ask("switch", self._bundle.id)

    def _start(self, step: Step) -> None:
        answer = self._ask("start", "--service", self._options.service, timeout_s=120)
        self._outcome.service = answer["service"]
        if answer["remark"]:
            self._outcome.remarks.append(answer["remark"])
            self._reporter.remark(answer["remark"])

    def _check(self, step: Step) -> None:
        limit = str(self._options.check_timeout_s)
        answer = self._ask("check", "--timeout-s", limit, timeout_s=self._check_limit_s)
        self._outcome.device, self._outcome.answer_s = answer["device"], answer["answer_s"]
        self._outcome.broker = answer["broker"]

    def _commit(self, step: Step) -> None:
        self._ask("commit", self._bundle.id)

    def _taken_back(self, error: BaseException) -> EdgebitError:
        """The error to raise after a fault, once the bundle and the settings from before are back."""
        why = str(error) or "stopped by Ctrl-C"
        try:
            return self._return(why, blamed=_blames_bundle(error))
        except TransportError as lost:
            return TransportError(
                f"{why}; and now the device is out of reach: {lost}. Bundle {self._bundle.id} is on trial there, and"
                " the device returns to the one before by itself if it does not stay up. Deploy again to settle it"
            )

    def _return(self, why: str, *, blamed: bool) -> DeployError:
        text, _ = self._device.logs(LOG_LINES)
        back, was_there = self._device.active_id(), self._was_active == self._bundle.id
        if back == self._bundle.id and not was_there:
            verb = ("fail", why) if blamed else ("withdraw",)
            back = self._ask(*verb, timeout_s=120).get("id")
            restored = self._settings_changed
        else:
            restored = self._ask("restore")["restored"] and self._settings_changed
        settings = " with the settings from before" if restored and back else ""
        what = f"bundle {self._bundle.id} was taken back"
        if not self._begun & _STOPPING or (was_there and not self._settings_changed):
            return DeployError(f"{why}. The device runs what it ran before{settings}")
        if was_there:
            what = f"bundle {self._bundle.id} does not answer" + (" with the new settings" if settings else "")
        elif not blamed:
            what += " (not refused: it can be deployed again)"
        if back:
            self._ask("start", "--service", self._options.service, timeout_s=120)
            now = f"The device runs bundle {back} again{settings}"
            try:
                self._ask("check", "--timeout-s", str(self._options.check_timeout_s), timeout_s=self._check_limit_s)
            except DeployError as again:
                now += f", but that does not answer either: {again}"
        else:
            now = "There was no bundle before it, so none runs now"
        said = "".join(f"\n  {line}" for line in text.splitlines()) or " nothing"
        return DeployError(f"{what}: {why}. {now}. The last lines of the log:{said}")

    @property
    def _check_limit_s(self) -> float:
        return self._options.check_timeout_s + SHORT_TIMEOUT_S

    def _ask(
        self, verb: str, *args: str, input: bytes | None = None, timeout_s: float = SHORT_TIMEOUT_S
    ) -> dict[str, Any]:
        return self._device.ask(verb, *args, input=input, timeout_s=timeout_s)

    def _run(self, argv: Sequence[str]) -> None:
        done = self._transport.run(argv)
        if done.code:
            raise DeployError(f"{argv[0]} failed on the device: {done.stderr.strip() or f'exit code {done.code}'}")

    def _place(self, sha256: str) -> str:
        return str(PurePosixPath(self._state.root) / "store" / sha256)

    def _stored(self, name: str) -> str:
        try:
            return self._place(self._bundle.manifest.files[name].sha256)
        except KeyError:
            raise DeployError(
                f"{self._bundle.path} holds no {name}, so it cannot be deployed. Build it again"
            ) from None


_STOPPING: frozenset[Action] = frozenset({"ensure", "stop", "switch", "start", "check", "commit"})
_CHANGING = _STOPPING | {"configure"}  # from here on, a fault has something to undo

# Whether the agent that is there is the one we mean; without it, nothing else can be asked.
_CHECK = """
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    sys.exit(hashlib.sha256(file.read()).hexdigest() != sys.argv[2])
"""

# The first file has no agent yet to take it in: sum it, then give it its name.
_ADMIT = """
import hashlib, os, sys
part, place, sha256 = sys.argv[1:]
with open(part, "rb") as file:
    if hashlib.sha256(file.read()).hexdigest() != sha256:
        os.unlink(part)
        sys.exit("edgebitd.pyz arrived damaged. Deploy again")
    os.fsync(file.fileno())
os.chmod(part, 0o444)
os.replace(part, place)
"""


def _sending_order(manifest: Manifest) -> list[str]:
    """The agent first, since it checks the others; then small before large, so that a fault shows early."""
    return sorted(manifest.files, key=lambda name: (name != DAEMON_MEMBER, manifest.files[name].size, name))


def _refuse_unfit(manifest: Manifest, state: DeviceState) -> None:
    """Raise DeployError where the bundle cannot run on the device."""
    for needed in (DAEMON_MEMBER, LIBRARY_MEMBER, MODEL_MEMBER):
        if needed not in manifest.files:
            raise DeployError(f"the bundle holds no {needed}, so it cannot be deployed. Build it again")
    if manifest.target.arch != state.arch:
        raise DeployError(
            f"the bundle was built for {manifest.target.arch} ({manifest.target.name}), the device's programs are"
            f" {state.arch}"
            + (
                f" (its kernel is {state.machine}: a 32-bit system on a 64-bit CPU)"
                if state.machine != state.arch
                else ""
            )
            + ". Build it with another --target"
        )
    if state.python is None:
        raise DeployError("the device has no python3. Install it there: sudo apt install python3")
    if state.python.version < PYTHON_MIN:
        have, need = ".".join(map(str, state.python.version)), ".".join(map(str, PYTHON_MIN))
        raise DeployError(f"the device has Python {have}, the daemon needs {need} or later. Update the device's system")
    if state.python.lacks:
        lacks = ", ".join(state.python.lacks)
        raise DeployError(f"the device's Python lacks {lacks}. Install the whole of it: sudo apt install python3-full")
    if state.noexec:
        raise DeployError(f"{state.root} lies on a file system mounted noexec. Choose another folder with --root")
    model = manifest.files[MODEL_MEMBER].size
    if state.memory_bytes and model + MEMORY_MARGIN_BYTES > state.memory_bytes:
        raise DeployError(
            f"the model has {model / 1e6:.0f} MB, the device {state.memory_bytes / 1e6:.0f} MB of memory in all, of"
            f" which {MEMORY_MARGIN_BYTES / 1e6:.0f} MB go to the daemon. Take a smaller model"
        )


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
