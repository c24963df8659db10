"""Carrying a roll-out out: a thread for each device under way, and one loop that asks rollout.decide() what is next."""

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from edgebit.bundle.archive import Bundle
from edgebit.deploy.device import AgentError, device_at, device_of, has_edgebit
from edgebit.deploy.install import install
from edgebit.deploy.outcome import Outcome
from edgebit.deploy.plan import InstallOptions, Step, default_service, plan_deploy
from edgebit.deploy.runner_only import RunnerDevice
from edgebit.device_probe import probe
from edgebit.errors import DeployError, EdgebitError, NoAnswerError, TransportError
from edgebit.fleet.inventory import FleetDevice
from edgebit.fleet.journal import DeviceReport, Journal, now
from edgebit.fleet.rollout import GOOD, Limits, Progress, Result, Wave, decide
from edgebit.transport import Progress as Told
from edgebit.transport import Transport, open_transport

RETRY_PAUSE_S = 3.0  # before a device that was out of reach is tried again
_ASK_AGAIN_S = 30.0  # that a device which has the bundle has to answer once more
_HEAR_S = 0.5  # within which Ctrl-C is heard
_QUIET = frozenset({"judge", "prepare", "settle", "verify", "send", "stage", "selftest"})  # change nothing that runs


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutOptions:
    """What the user chose for a roll-out."""

    limits: Limits = field(default_factory=Limits)
    install: InstallOptions = field(default_factory=InstallOptions)  # what holds for every device
    password: str | None = None  # of the broker, for devices whose inventory entry names no file

    def install_options(self, device: FleetDevice) -> InstallOptions:
        """The same for one device, with what the inventory says of it."""
        settings, service = device.daemon_settings(self.password), device.service or default_service(device.url)
        return replace(self.install, settings=settings, service=service)


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutReport:
    """How a roll-out ended."""

    bundle: str
    inventory: str
    waves: tuple[Wave, ...]
    devices: tuple[DeviceReport, ...]  # every one that was chosen
    stopped: str = ""  # why it ended before everything was tried
    interrupted: bool = False  # by Ctrl-C

    @property
    def is_whole(self) -> bool:
        """Whether the bundle answers on every device."""
        return all(device.result in GOOD for device in self.devices)


class Listener(Protocol):
    """Is told how a roll-out comes along, by several threads at once."""

    def began(self, name: str, wave: str) -> None:
        """A device is under way."""

    def asking(self, name: str, when: str) -> None:
        """A device that has the bundle is asked again; `when` says it in a sentence, such as "after the soak"."""

    def step(self, name: str, step: Step) -> None:
        """It does a step."""

    def sending(self, name: str, size: int) -> Told:
        """A file goes to it; gives what is told of the bytes."""

    def ended(self, report: DeviceReport) -> None:
        """It is done, or failed."""

    def say(self, text: str) -> None:
        """Something about the whole roll-out."""

    def soaking(self, left_s: float) -> None:
        """The canaries run, and others wait so long."""


@dataclass(frozen=True, slots=True)
class _Interrupt:
    """Ctrl-C."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """A thread met what is no EdgebitError."""

    name: str
    error: BaseException


class _DeviceReporter:
    """What install() tells of one device, passed on; after a second Ctrl-C it ends what has changed nothing yet."""

    def __init__(self, name: str, listener: Listener, aborted: threading.Event) -> None:
        self._name, self._listener, self._aborted = name, listener, aborted
        self.remarks: list[str] = []

    def step(self, step: Step) -> None:
        if step.action in _QUIET:
            self._end_if_aborted()
        self._listener.step(self._name, step)

    def remark(self, text: str) -> None:
        self.remarks.append(text)

    def sending(self, name: str, size: int) -> Told:
        told = self._listener.sending(self._name, size)

        def pass_on(count: int) -> None:
            self._end_if_aborted()
            told(count)

        return pass_on

    def _end_if_aborted(self) -> None:
        if self._aborted.is_set():
            raise KeyboardInterrupt


class Rollout:
    """One roll-out, being carried out. All but the threads' work on a device happens in the thread that calls run()."""

    def __init__(
        self,
        bundle: Bundle,
        devices: Sequence[FleetDevice],
        waves: Sequence[Wave],
        options: RolloutOptions,
        journal: Journal,
        listener: Listener,
    ) -> None:
        self._bundle = bundle
        self._devices = {device.name: device for device in devices}
        self._waves = tuple(waves)
        self._options = options
        self._journal = journal
        self._done = journal.done(self._devices)  # by the roll-out that this one goes on with
        self._listener = listener
        self._wave_of = {name: wave.name for wave in waves for name in wave.devices}
        self._reports: dict[str, DeviceReport] = {}
        self._tries: dict[str, int] = {}
        self._running: set[str] = set()
        self._soaked = journal.soaked
        self._soak_until: float | None = None
        self._asked: set[str] = set()  # canaries that are asked again
        self._events: queue.SimpleQueue[DeviceReport | _Fault | _Interrupt] = queue.SimpleQueue()
        self._aborted = threading.Event()
        self._interrupts = 0
        self._fault: BaseException | None = None

    def run(self) -> RolloutReport:
        """Carry it out. Ctrl-C begins nothing new and lets what is under way end; a second one ends that early too,
        where nothing that runs has changed yet. A device is never left between two bundles.

        Raises DeployError where the journal cannot be written.
        """
        with self._hearing_ctrl_c():
            self._ask_done()
            stopped = self._go_on()
        if self._fault is not None:
            raise self._fault
        ending = self._report(stopped)
        if ending.is_whole:
            self._journal.finish()
        return ending

    def _ask_done(self) -> None:
        """Ask each device that was done before: it may be down by now, and the report says what is so."""
        waiting = list(self._done)
        while waiting or self._running:
            if self._interrupts or self._fault:
                waiting.clear()
            elif waiting and len(self._running) < self._options.limits.parallel:
                name = waiting.pop(0)
                self._tries[name] = 1
                self._listener.asking(name, "")
                self._begin(name, self._ask_done_again)
                continue
            if self._running:
                self._take_next()

    def _go_on(self) -> str:
        """Until nothing is left to do, which gives "", or it ends before, which gives why."""
        while True:
            decision = decide(self._waves, self._progress(), self._options.limits)
            if self._interrupts or self._fault:
                if not self._running:
                    return "stopped by Ctrl-C"
                self._take_next()
            elif decision.act == "start":
                for name in decision.devices:
                    self._tries[name] = self._tries.get(name, 0) + 1
                    self._listener.began(name, self._wave_of[name])
                    self._begin(name, self._try_device)
            elif decision.act == "wait":
                self._take_next()
            elif decision.act == "soak":
                self._soak()
            else:
                return decision.why

    @contextmanager
    def _hearing_ctrl_c(self) -> Iterator[None]:
        """Ctrl-C is one more event, so that it cannot come between two others."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, lambda number, frame: self._events.put(_Interrupt()))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _progress(self) -> Progress:
        results = {name: report.result for name, report in self._reports.items()}
        return Progress(results=results, tries=self._tries, running=self._running, soaked=self._soaked)

    def _begin(self, name: str, work: Callable[[FleetDevice], DeviceReport]) -> None:
        self._running.add(name)
        threading.Thread(target=self._work, args=(work, self._devices[name]), name=f"device {name}").start()

    def _work(self, work: Callable[[FleetDevice], DeviceReport], device: FleetDevice) -> None:
        """A thread: a terminal's Ctrl-C is for the main one, and not for the programs that this one starts either."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._events.put(work(device))
        except BaseException as error:  # noqa: BLE001 - a fault of ours, which the main thread raises
            self._events.put(_Fault(device.name, error))

    def _take_next(self) -> None:
        """Wait for an event, a while at a time: Ctrl-C that comes as a wait begins is heard when it ends."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._take(self._events.get(timeout=_HEAR_S))

    def _take(self, event: "DeviceReport | _Fault | _Interrupt") -> None:
        if isinstance(event, _Interrupt):
            self._interrupts += 1
            if self._interrupts > 1:
                self._aborted.set()
            elif self._running:
                under_way = f"{len(self._running)} device{'s' if len(self._running) > 1 else ''} under way"
                self._listener.say(f"stopping: {under_way}. Ctrl-C again ends what has changed nothing yet")
            return
        self._running.discard(event.name)
        if isinstance(event, _Fault):
            self._fault = self._fault or event.error
            return
        if event.result != "stopped":
            self._reports[event.name] = event
            self._journal.record(self._devices[event.name], event)
        self._listener.ended(event)
        if event.name in self._asked:
            self._asked.discard(event.name)
            if not self._asked and all(self._reports[name].result in GOOD for name in self._waves[0].devices):
                self._soaked = True
                self._journal.set_soaked()

    def _soak(self) -> None:
        """Let the canaries run for a while, then ask each again."""
        if self._soak_until is None:
            self._soak_until = time.monotonic() + self._options.limits.soak_s
        left_s = self._soak_until - time.monotonic()
        if left_s > 0:
            self._listener.soaking(left_s)
            with contextlib.suppress(queue.Empty):
                self._take(self._events.get(timeout=min(left_s, 1.0)))
            return
        self._asked = set(self._waves[0].devices)
        for name in self._waves[0].devices:
            self._listener.asking(name, "after the soak")
            self._begin(name, self._ask_canary_again)

    def _try_device(self, device: FleetDevice) -> DeviceReport:
        """Deploy to one device; gives how it went."""
        tries = self._tries[device.name]
        began = time.monotonic()
        reporter = _DeviceReporter(device.name, self._listener, self._aborted)
        outcome, why, runs = Outcome(""), "", None
        result: Result
        try:
            if tries > 1 and self._aborted.wait(RETRY_PAUSE_S):
                raise KeyboardInterrupt
            with open_transport(device.url, device.way) as transport:
                try:
                    outcome = install(self._bundle, transport, self._options.install_options(device), reporter)
                    result, runs = "updated" if outcome.slot else "present", outcome.id
                except EdgebitError as error:
                    result, why = _kind(error), str(error)
                    runs = _what_runs(transport)
        except EdgebitError as error:
            result, why = _kind(error), str(error)
        except KeyboardInterrupt:
            result, why = "stopped", "stopped by Ctrl-C before anything that runs was changed"
        return DeviceReport(
            name=device.name,
            result=result,
            wave=self._wave_of[device.name],
            why=why,
            runs=runs,
            device=outcome.device or device.device_name,
            seconds=round(time.monotonic() - began, 1),
            sent_bytes=outcome.sent_bytes,
            answer_s=outcome.answer_s,
            tries=tries,
            at=now(),
            remarks=tuple(reporter.remarks),
        )

    def _ask_canary_again(self, device: FleetDevice) -> DeviceReport:
        """After the soak: a canary that is silent goes back to the bundle before."""
        service, soak_s = self._options.install_options(device).service, self._options.limits.soak_s
        before, when = self._reports[device.name], f"after the soak of {soak_s:g} s"
        return self._ask_again(device, before, when, lambda transport: _rolled_back(transport, service))

    def _ask_done_again(self, device: FleetDevice) -> DeviceReport:
        """Before a roll-out goes on: one that is silent is tried again the next time, so nothing is done to it now."""
        when = "it was done before, and asked again"
        return self._ask_again(device, self._done[device.name], when, lambda transport: "")

    def _ask_again(
        self, device: FleetDevice, before: DeviceReport, when: str, mend: Callable[[Transport], str]
    ) -> DeviceReport:
        """Have a device answer once more with the bundle. `mend` sees to one that is silent, and says what it did."""
        try:
            with open_transport(device.url, device.way) as transport:
                try:
                    _check_again(transport, self._bundle.id)
                    return before
                except EdgebitError as error:
                    why = f"{when}: {error}"
                    if isinstance(error, AgentError) and error.code == NoAnswerError.exit_code:  # the bundle's fault
                        why += mend(transport)
                    return replace(before, result=_kind(error), why=why, runs=_what_runs(transport), at=now())
        except EdgebitError as error:
            return replace(before, result=_kind(error), why=f"{when}: {error}", runs=None, at=now())

    def _report(self, stopped: str) -> RolloutReport:
        untried = {
            name: DeviceReport(
                name=name,
                result="untried",
                wave=self._wave_of[name],
                why="it was done before, but not asked again" if name in self._done else "",
                device=device.device_name,
            )
            for name, device in self._devices.items()
        }
        devices = tuple({**untried, **self._reports}[name] for name in self._devices)
        return RolloutReport(
            bundle=self._bundle.id,
            inventory=self._journal.inventory,
            waves=self._waves,
            devices=devices,
            stopped=stopped if any(device.result == "untried" for device in devices) else "",
            interrupted=bool(self._interrupts),
        )


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What a roll-out would do to a device: its steps, or why it cannot."""

    name: str
    steps: tuple[Step, ...] = ()
    why: str = ""


def plan_device(bundle: Bundle, device: FleetDevice, options: RolloutOptions) -> DevicePlan:
    """Look at a device and plan, and change nothing."""
    try:
        with open_transport(device.url, device.way) as transport:
            state = probe(transport)
            steps = plan_deploy(bundle, state, options.install_options(device))
    except EdgebitError as error:
        return DevicePlan(device.name, why=str(error))
    return DevicePlan(device.name, tuple(steps))


def _kind(error: EdgebitError) -> Result:
    return "unreachable" if isinstance(error, TransportError) else "failed"


def _check_again(transport: Transport, bundle: str) -> None:
    """Raise an EdgebitError, saying why, where a device does not answer with the bundle."""
    device = device_at(transport)
    status = device.status()
    active: Mapping[str, str] = status["slots"].get(status["active"] or "", {})
    if active.get("id") != bundle:
        here = f"bundle {active['id']} is" if active else "no bundle is"
        raise DeployError(f"{here} active there now")
    if isinstance(device, RunnerDevice):
        device.test(status["active"])  # what answering is, where no daemon runs
    else:
        device.ask("check", "--timeout-s", str(_ASK_AGAIN_S), timeout_s=_ASK_AGAIN_S + 60)


def _what_runs(transport: Transport) -> str | None:
    """The bundle that runs on a device after a fault; "" where none does, None where that is not to be known."""
    try:
        state = probe(transport)
        if not has_edgebit(state):
            return ""
        status = device_of(transport, state).status()
    except EdgebitError:
        return None
    active: Mapping[str, str] = status["slots"].get(status["active"] or "", {})
    return active.get("id", "") if status["up"] else ""


def _rolled_back(transport: Transport, service: str) -> str:
    try:
        back = device_at(transport).rollback(service=service, check_timeout_s=_ASK_AGAIN_S)
    except EdgebitError as error:
        return f". Rolling it back failed: {error}"
    return f". It was rolled back to bundle {back['id']}, which answers"
