"""A device as its agent (daemon/install/agent.py) shows it over a transport: status, logs, way back, uninstall."""

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from edgebit.deploy.plan import CHECK_TIMEOUT_S
from edgebit.deploy.runner_only import RunnerDevice
from edgebit.device_probe import DeviceState, probe
from edgebit.errors import DeployError, EdgebitError, TransportError
from edgebit.transport import Transport

SHORT_TIMEOUT_S = 60.0
_SETTINGS_TIMEOUT_S = 300.0  # their check may sum a model file, and load ONNX Runtime
_LAST_LINES = 12  # of the log, where a daemon that was started does not answer


class AgentError(DeployError):
    """The agent of a device could not do what it was asked; `code` is its exit code, the kind of fault (errors.py)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def uninterrupted() -> Iterator[None]:
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
        """A device that has edgebit's daemon. Raises DeployError where it has not."""
        found = device_at(transport)
        if isinstance(found, RunnerDevice):
            raise DeployError(f"{transport.url} has no python3, so edgebit-run alone is there, and no daemon to ask")
        return found

    @classmethod
    def of(cls, transport: Transport, state: DeviceState) -> "Device":
        """A device that was looked at. Raises DeployError where it has no edgebit."""
        if not state.pyz and is_half_made(state):
            held = f"{sum(state.stored.values()) / 1e6:.1f} MB in store/"
            raise DeployError(
                f"a first deploy was stopped half-way on {transport.url} under {transport.root} ({held}). Deploy again,"
                " which goes on where it stopped, or take it away: edgebit uninstall"
            )
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

    def security(self, lines: int) -> dict[str, Any]:
        """The last refusals, and counts of all that are kept: `lines` and `summary`."""
        return self.ask("security", "--lines", str(lines))

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
            with uninterrupted():
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

    def restart(
        self,
        *,
        service: str,
        check_timeout_s: float = CHECK_TIMEOUT_S,
        say: Callable[[str], None] = lambda text: None,
    ) -> dict[str, Any]:
        """Start the daemon again, which reads its settings then, and have it answer; gives `id`, and what check says.

        It is kept running as before, or by `service` where it never was; `say` is told how long it may take. Raises
        DeployError where the settings have a fault, and then nothing was stopped; where no bundle is active; or where
        it does not answer, with the last lines of its log.
        """
        status = self.ask("status")
        settings = f"{status['root']}/edgebitd.toml"
        if status["active"] is None:
            raise DeployError(f"no bundle is active on {self._transport.url}. Deploy one")
        self._check_settings(settings)
        kept_by = "supervisor" if status["service"] == "supervisor" else service
        self.ask("start", "--service", kept_by, timeout_s=120)
        say(f"The daemon was started again, and has {check_timeout_s:g} s to answer")
        try:
            limit_s = check_timeout_s + SHORT_TIMEOUT_S
            answer = self.ask("check", "--timeout-s", str(check_timeout_s), timeout_s=limit_s)
        except (AgentError, TransportError) as error:
            words = f"{error}. The daemon was started again with {settings}, and is left so{self._last_words()}"
            raise DeployError(words) from error
        return {"id": status["slots"][status["active"]]["id"], "settings": settings, **answer}

    def _check_settings(self, settings: str) -> None:
        """Raise DeployError where a daemon would not start with what stands in `settings`, as far as a check sees."""
        argv = [self._python, self._pyz, "run", "--root", self._transport.root, "--check-config"]
        done = self._transport.run(argv, timeout_s=_SETTINGS_TIMEOUT_S)
        if done.code:
            said = done.stderr.strip().removeprefix("edgebitd: ")
            fault = said or f"their check ended with code {done.code} and said nothing"
            raise DeployError(f"{settings}: {fault.rstrip('.')}. Mend that; nothing was restarted")

    def _last_words(self) -> str:
        """The end of the daemon's log, to put behind a message."""
        try:
            text, _ = self.logs(_LAST_LINES)
        except EdgebitError:
            text = ""
        return f". Its log ends with\n{text.rstrip()}" if text.strip() else "; its log is empty"

    def uninstall(self, *, keep_config: bool, say: Callable[[str], None] = lambda text: None) -> list[str]:
        """Stop the daemon and remove everything; gives what was left in the folder.

        `say` is told what its broker retains all the same, where that could not be taken back.
        """
        answer = self.ask("uninstall", *(["--keep-config"] if keep_config else []), timeout_s=120)
        if retained := answer.get("retained"):
            say(_how_to_clear(retained))
        left: list[str] = answer["left"]
        return left


def _how_to_clear(retained: Mapping[str, Any]) -> str:
    """The commands that have a broker forget a device."""
    parts = urlsplit(retained["broker"])
    at = f"-h {parts.hostname}" + (f" -p {parts.port}" if parts.port else "")
    commands = "".join(f"\n    mosquitto_pub {at} -r -n -t {topic}" for topic in retained["topics"])
    return f"The broker still retains what the device said of itself, for {retained['why']}. To clear it:{commands}"


def device_at(transport: Transport) -> Device | RunnerDevice:
    """A device that has edgebit, with its daemon or as edgebit-run alone. Raises DeployError where it has not."""
    return device_of(transport, probe(transport))


def device_of(transport: Transport, state: DeviceState) -> Device | RunnerDevice:
    """The same for a device that was looked at."""
    if _has_runner_alone(state):
        return RunnerDevice(transport, state)
    return Device.of(transport, state)


def is_half_made(state: DeviceState) -> bool:
    """Whether a first deploy was stopped before there was anything to run, in a folder of nobody else's."""
    return not has_edgebit(state) and state.has_root and not state.slots and not state.strange


def removable(transport: Transport, state: DeviceState) -> Device | RunnerDevice | None:
    """What has something to uninstall; None where nothing of edgebit is there."""
    if is_half_made(state):
        return RunnerDevice(transport, state)  # no agent is there, but its shell program needs none
    return device_of(transport, state) if has_edgebit(state) else None


def has_edgebit(state: DeviceState) -> bool:
    """Whether device_of() has something to give."""
    return bool(state.pyz) or _has_runner_alone(state)


def _has_runner_alone(state: DeviceState) -> bool:
    return state.python is None and state.has_root
