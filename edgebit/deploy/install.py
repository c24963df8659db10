"""Carrying out a plan on a device, step by step, and bringing back what ran before when a step fails."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from edgebit.bundle.archive import Bundle
from edgebit.bundle.manifest import DAEMON_MEMBER, Manifest
from edgebit.deploy.device import SHORT_TIMEOUT_S, AgentError, Device, uninterrupted
from edgebit.deploy.outcome import Outcome, Reporter
from edgebit.deploy.plan import (
    Action,
    InstallOptions,
    Step,
    bundle_bytes,
    bytes_to_send,
    duration,
    plan_deploy,
    refuse_slow,
)
from edgebit.deploy.runner_only import RunnerInstallation
from edgebit.deploy.sending import Sender
from edgebit.device_probe import DeviceState, probe
from edgebit.errors import BrokerError, BundleError, ConfigError, DeployError, EdgebitError, TransportError
from edgebit.transport import Section, Transport, seconds_to_send

LOG_LINES = 15
LOG_HEADING = "The last lines of the log:"  # what follows it is more than one line


Shown = Callable[[Manifest, list[Step], DeviceState], None]


def install(
    bundle: Bundle,
    transport: Transport,
    options: InstallOptions,
    reporter: Reporter,
    show: Shown = lambda manifest, steps, state: None,
) -> Outcome:
    """Deploy: probe, plan, and carry the plan out, which `show` is told before anything is touched.

    Raises DeployError where the device cannot run the bundle or it did not answer there; the device then runs what it
    ran before.
    """
    bundle.verify()  # also where the device has its files already: a damaged bundle is not the one that it says it is
    state = probe(transport)
    steps = plan_deploy(bundle, state, options)
    if seconds := seconds_to_send(transport, bytes_to_send(steps)):
        if not options.yes_slow:
            refuse_slow(steps, seconds, bundle.manifest, state)
        reporter.remark(f"sending takes about {duration(seconds)}, less where it is deflated")
    show(bundle.manifest, steps, state)
    if state.python is None:
        known = options.known.keys.values()
        return RunnerInstallation(bundle, transport, state, known, reporter, Outcome(bundle.id)).carry_out(steps)
    return Installation(bundle, transport, state, options, reporter).carry_out(steps)


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
        self._outcome = Outcome(bundle.id, bundle_bytes=bundle_bytes(bundle.manifest))
        self._begun: set[Action] = set()
        self._settings_changed = False
        self._log_start: int | None = None  # where the log ended before this deploy started the daemon first
        self._was_active = state.slots.get(state.active, {}).get("id")
        self._python = state.python.path if state.python else "python3"
        self._device = Device(transport, state, self._stored(DAEMON_MEMBER))
        self._sender = Sender(transport, self._python)
        self._acts: Mapping[Action, Callable[[Step], None]] = {
            "judge": self._judge,
            "prepare": self._prepare,
            "settle": self._settle,
            "verify": self._verify,
            "send": self._send,
            "stage": self._stage,
            "selftest": self._selftest,
            "configure": self._configure,
            "ensure": self._ensure,
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
                with uninterrupted():
                    undone = self._taken_back(error)
                if isinstance(error, KeyboardInterrupt):
                    self._reporter.remark(str(undone))
                    raise
                raise undone from error
        self._outcome.total_s = time.monotonic() - began
        return self._outcome

    def _judge(self, step: Step) -> None:
        """Have the code that runs there judge the new bundle, before any of the new bundle's is sent."""
        if not self._state.pyz:
            return  # the first bundle: this machine judged it, and its own agent does once more
        running = Device(self._transport, self._state, self._state.pyz)
        try:
            running.ask("judge", *self._first_keys, input=self._bundle.offer.to_bytes())
        except AgentError as refused:
            try:
                running.ask("detect")  # nothing of the bundle has a say in this
            except AgentError as broken:
                if broken.code == DeployError.exit_code:
                    raise refused from None
                self._reporter.remark(
                    f"the agent that is on the device is damaged ({broken}), so the new bundle's own judges it there"
                )
                return
            if refused.code == BundleError.exit_code:
                raise BundleError(str(refused)) from None
            raise

    @property
    def _first_keys(self) -> list[str]:
        """The keys that signed the bundle and this machine knows, as the agent takes them."""
        signed_by = {signature.key_id for signature in self._bundle.signatures}
        return [f"--key={key}" for key in self._options.known.keys.values() if key.key_id in signed_by]

    def _prepare(self, step: Step) -> None:
        self._run(["mkdir", "-p", "-m", "700", self._state.root])
        self._run(["mkdir", "-p", f"{self._state.root}/store", f"{self._state.root}/slots", f"{self._state.root}/run"])

    def _send(self, step: Step) -> None:
        entry, member = self._bundle.manifest.files[step.name], self._bundle.member(step.name)
        began = time.monotonic()
        part = f"{self._place(entry.sha256)}.part"
        progress = self._reporter.sending(step.name, entry.size)
        section = Section(member.path, member.offset, member.size)
        self._outcome.wire_bytes += self._sender.send(section, part, step.bytes, progress)
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
        flags = [*self._first_keys, *(["--force"] if self._options.force else [])]
        self._outcome.slot = self._ask("stage", *flags, input=self._bundle.offer.to_bytes(), timeout_s=600)["slot"]

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

    def _switch(self, step: Step) -> None:
        self._ask("switch", self._bundle.id)

    def _start(self, step: Step) -> None:
        if self._log_start is None:
            _, self._log_start = self._device.logs(0)
        answer = self._ask("start", "--service", self._options.service, timeout_s=120)
        self._outcome.service = answer["service"]
        if answer["remark"]:
            self._outcome.remarks.append(answer["remark"])
            self._reporter.remark(answer["remark"])

    def _check(self, step: Step) -> None:
        options = self._options
        flags = [
            *("--timeout-s", str(options.check_timeout_s), "--stay-up-s", str(options.stay_up_s)),
            *("--min-tok-s", str(options.min_tok_s), "--rss-max-mib", str(options.rss_max_mib)),
        ]
        answer = self._ask("check", *flags, timeout_s=self._check_limit_s + options.stay_up_s)
        self._outcome.device, self._outcome.answer_s = answer["device"], answer["answer_s"]
        self._outcome.tok_s, self._outcome.rss_mib = answer["tok_s"], answer["rss_mib"]
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
        lines = self._last_lines()
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
        said = "".join(f"\n  {line}" for line in lines) or " nothing"
        return DeployError(f"{what}: {why}. {now}. {LOG_HEADING}{said}")

    def _last_lines(self) -> list[str]:
        """The log's last lines, of those since this deploy started the daemon: what came before is not about it."""
        if self._log_start is None:
            return []
        text, position = self._device.logs_after(self._log_start)
        lines = text.splitlines()
        while len(lines) >= LOG_LINES and text:  # the agent gives a long log in pieces
            text, position = self._device.logs_after(position)
            lines = [*lines, *text.splitlines()][-LOG_LINES:]
        return lines

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


_STOPPING: frozenset[Action] = frozenset({"ensure", "switch", "start", "check", "commit"})
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


def _blames_bundle(error: BaseException) -> bool:
    """Whether a fault speaks against the bundle: broker, settings, the way there and Ctrl-C do not."""
    if isinstance(error, KeyboardInterrupt | TransportError):
        return False
    return not (isinstance(error, AgentError) and error.code in (BrokerError.exit_code, ConfigError.exit_code))
