"""Deploying to a device without Python: edgebit-run and the model in two slots, by a shell and nothing else.

No daemon runs there, so nothing answers over MQTT: the program is run by hand, or by what the user writes. Slots, sums,
self-test and way back are those of every device. What decides is here, on the host; the device's side of each act is a
verb of runner_agent.sh.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from edgebit.bundle.archive import Bundle
from edgebit.bundle.manifest import KEYS_NAME, MANIFEST_NAME, SIGNATURE_NAME, Manifest, parse_manifest
from edgebit.bundle.signature import PublicKey, parse_public_key
from edgebit.bundle.slots import STATE_SCHEMA
from edgebit.bundle.trust import (
    POLICY_NAME,
    Offer,
    Policy,
    describe_policy,
    judge,
    lets_in_again,
    parse_policy,
    policy_after,
    policy_of,
)
from edgebit.deploy.outcome import Outcome, Reporter
from edgebit.deploy.plan import Action, Step, runner_files
from edgebit.device_probe import DeviceState
from edgebit.errors import BundleError, ConfigError, DeployError
from edgebit.resources import package_dir
from edgebit.transport import Completed, Section, Transport

LONG_TIMEOUT_S = 1800.0  # to sum, write out or compute with a large model
_NOT_A_PROGRAM = (126, 127)  # as shells say it
_PROMPT = "Why is the sky blue?"
_SETTINGS = (POLICY_NAME, "edgebitd.toml", "mqtt.password")
_NO_LOG = "no daemon runs on a device without python3, so it has no log"


class RunnerDevice:
    """A device without Python that has edgebit-run: the same questions as `Device` answers for one with a daemon."""

    def __init__(self, transport: Transport, state: DeviceState) -> None:
        self._transport = transport
        self._state = state
        self.slots = {name: dict(slot) for name, slot in state.slots.items()}
        self.active = state.active
        self._sum = ""  # of its state.json, as last seen

    def ask(self, verb: str, *args: str, input: bytes | None = None, timeout_s: float = LONG_TIMEOUT_S) -> str:
        """Have the shell there carry out a verb; gives what it printed. Raises DeployError with its words."""
        done = self._run(verb, *args, input=input, timeout_s=timeout_s)
        if done.code:
            said = done.stderr.strip() or f"{verb} ended with code {done.code} on the device and said nothing"
            raise BundleError(said) if done.code == BundleError.exit_code else DeployError(said)
        return done.stdout

    def _run(self, verb: str, *args: str, input: bytes | None = None, timeout_s: float = LONG_TIMEOUT_S) -> Completed:
        script = (package_dir() / "deploy" / "runner_agent.sh").read_text()
        argv = ["sh", "-c", script, "sh", self._transport.root, verb, *args]
        return self._transport.run(argv, input=input, timeout_s=timeout_s)

    def look(self) -> list[str]:
        """Remember the state as it is now; gives the slots that are complete."""
        known = [word for name, slot in self.slots.items() for word in (name, slot["id"])]
        self._sum, *lines = self.ask("show", *known).splitlines()
        return [line.removeprefix("complete ") for line in lines]

    def write_state(self) -> None:
        """Keep what is known of the slots on the device, unless another deploy came between."""
        state = {"schema": STATE_SCHEMA, "slots": self.slots, "refused": dict(self._state.refused)}
        text = json.dumps(state, indent=1, sort_keys=True) + "\n"
        self._sum = self.ask("write", "state.json", self._sum, input=text.encode()).strip()

    def policy(self) -> tuple[Policy | None, str]:
        """Whose bundles the device takes, and the sum of the file that says so.

        Nothing there could check a signature, so this machine does, by the rules of every device (trust.py).
        Raises ConfigError for a trust.json that is damaged.
        """
        if (said := self._read(POLICY_NAME)) is not None:
            return parse_policy(said, f"{self._transport.root}/{POLICY_NAME} on the device"), sha256(said).hexdigest()
        good = (name for name, slot in self.slots.items() if slot["status"] == "good")
        return policy_of((self.manifest(name).release, self.accepted(name)) for name in good), "none"

    def offer(self, slot: str) -> Offer:
        """The slot's bundle as it was let in: its manifest and its signature."""
        return Offer(self._read(f"slots/{slot}/{MANIFEST_NAME}") or b"", self._read(f"slots/{slot}/{SIGNATURE_NAME}"))

    def accepted(self, slot: str) -> tuple[PublicKey, ...]:
        """The keys that the slot's bundle was let in by."""
        lines = (self._read(f"slots/{slot}/{KEYS_NAME}") or b"").decode("ascii", "replace").splitlines()
        return tuple(parse_public_key(line, KEYS_NAME) for line in lines)

    def _read(self, name: str) -> bytes | None:
        """A small text file below root; None where there is none."""
        script = '[ ! -e "$1" ] || { echo there; cat "$1"; }'
        done = self._transport.run(["sh", "-c", script, "sh", f"{self._transport.root}/{name}"])
        if done.code:
            raise DeployError(f"{name} cannot be read on the device: {done.stderr.strip()}")
        return done.stdout.removeprefix("there\n").encode() if done.stdout else None

    def manifest(self, slot: str) -> Manifest:
        """What a slot holds."""
        name = f"slots/{slot}/{MANIFEST_NAME}"
        return parse_manifest(self._read(name) or b"", f"{name} on the device")

    def test(self, slot: str) -> tuple[int, str, bool]:
        """Run a slot's golden probes, and ask it for four tokens as a user would.

        Gives the number of probes, the micro-kernels that were chosen, and whether it takes chats. Raises DeployError.
        """
        done = self._run("test", slot)
        if done.code:
            why = (done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["it said nothing"])[-1]
            if done.code in (128 + 4, -4):
                why = "the CPU does not know an instruction of edgebit-run"
            elif done.code in _NOT_A_PROGRAM:
                why = f"the device cannot run edgebit-run ({why}). Is the bundle built for it?"
            raise DeployError(f"the self-test failed: {why}")
        words = done.stdout.split()
        probes = int(words[0]) if words and words[0].isdigit() else 0
        isa = done.stdout.partition("(")[2].partition(")")[0] if probes else ""
        return probes, isa, words[-1] == "chat"

    def status(self) -> dict[str, Any]:
        """What is on the device, in the words of the agent's answer; nothing runs there between two questions."""
        complete = self.look()
        slots = {}
        for name in complete:
            manifest = self.manifest(name)
            slots[name] = {
                "slot": name,
                **self.slots[name],
                "tries_left": 0,
                "name": manifest.name,
                "model": manifest.model.name,
                "edgebit": manifest.edgebit,
                "target": manifest.target.name,
                "bytes": sum(manifest.files[member].size for member in runner_files(manifest)),
            }
        active = self.active if self.active in slots else None
        return {
            "root": self._transport.root,
            "slots": slots,
            "active": active,
            "previous": next(
                (name for name, slot in slots.items() if name != active and slot["status"] == "good"), None
            ),
            "refused": dict(self._state.refused),
            "service": "none",
            "up": active is not None,
            "pid": None,
            "free_bytes": self._state.free_bytes,
            "device": None,
            "broker": None,
            "trust": self._trust(),
            "probe": self._state.as_json(),
        }

    def _trust(self) -> dict[str, Any] | None:
        try:
            return describe_policy(self.policy()[0])
        except ConfigError as error:
            return {"error": str(error)}

    def rollback(
        self, *, service: str, check_timeout_s: float = 0, say: Callable[[str], None] = lambda text: None
    ) -> dict[str, Any]:
        """Return to the bundle before, if it passes its self-test again. Raises DeployError where there is none."""
        self.ask("recover")
        complete = self.look()
        back = next((name for name in complete if name != self.active and self.slots[name]["status"] == "good"), None)
        if back is None:
            raise DeployError("there is no bundle before this one on the device. Deploy the one you want")
        began = time.monotonic()
        self.test(back)
        answer_s = time.monotonic() - began
        self.ask("point", back, self.slots[back]["id"])
        return {"slot": back, **self.slots[back], "answer_s": answer_s}

    def uninstall(self, *, keep_config: bool, say: Callable[[str], None] = lambda text: None) -> list[str]:
        """Remove everything; gives what was left in the folder.

        Also what a first deploy left that was stopped before a device with Python had its agent.
        """
        return self.ask("remove", *(_SETTINGS if keep_config else [])).splitlines()

    def logs(self, lines: int) -> tuple[str, int]:
        """There is none."""
        raise DeployError(_NO_LOG)

    def logs_after(self, position: int) -> tuple[str, int]:
        """There is none."""
        raise DeployError(_NO_LOG)


class RunnerInstallation:
    """A plan for a device without Python being carried out. Nothing runs there, so nothing needs to be brought back."""

    def __init__(
        self,
        bundle: Bundle,
        transport: Transport,
        state: DeviceState,
        known: Iterable[PublicKey],
        reporter: Reporter,
        outcome: Outcome,
    ) -> None:
        self._bundle = bundle
        self._transport = transport
        self._state = state
        self._known = tuple(known)
        self._reporter = reporter
        self._outcome = outcome
        self._outcome.bundle_bytes = sum(entry.size for entry in runner_files(bundle.manifest).values())
        self._accepted: tuple[PublicKey, ...] = ()
        self._policy: Policy | None = None
        self._policy_sum = "none"
        self._device = RunnerDevice(transport, state)
        self._slot = "b" if state.active == "a" else "a"
        self._acts: Mapping[Action, Callable[[Step], None]] = {
            "judge": self._judge,
            "prepare": self._prepare,
            "verify": self._verify,
            "send": self._send,
            "stage": self._stage,
            "selftest": self._selftest,
            "switch": self._switch,
            "commit": self._commit,
        }

    def carry_out(self, steps: Sequence[Step]) -> Outcome:
        """Do each step in turn; the bundle from before is the active one until `switch`, and works at every moment."""
        began = time.monotonic()
        if not any(step.action == "stage" for step in steps):
            self._slot = self._state.active  # it is there already
        for step in steps:
            self._reporter.step(step)
            self._acts[step.action](step)
        self._outcome.total_s = time.monotonic() - began
        return self._outcome

    def _judge(self, step: Step) -> None:
        """Before anything is sent; a policy that another deploy changes meanwhile is found changed at the switch."""
        self._policy, self._policy_sum = self._device.policy()
        name = self._state.active
        active = self._state.slots.get(name)
        release = self._device.manifest(name).release if active else None
        if active and active["status"] == "good" and self._bundle.offer == self._device.offer(name):
            self._accepted = self._device.accepted(name)
            if lets_in_again(self._policy, release, self._accepted):
                return
        now, since = datetime.fromtimestamp(self._state.clock_s, UTC), release.created if release else None
        self._accepted = judge(self._bundle.offer, self._policy, self._known, now, since)

    def _prepare(self, step: Step) -> None:
        for argv in (["mkdir", "-p", "-m", "700", self._state.root],
                     ["mkdir", "-p", f"{self._state.root}/store", f"{self._state.root}/slots"]):  # fmt: skip
            done = self._transport.run(argv)
            if done.code:
                raise DeployError(f"{self._state.root} cannot be made on the device: {done.stderr.strip()}")

    def _verify(self, step: Step) -> None:
        files = runner_files(self._bundle.manifest)
        held = {entry.sha256: name for name, entry in files.items() if self._state.holds(entry)}
        for damaged in self._device.ask("sums", *held).split():
            name = held[damaged]
            if self._slot == self._state.active:
                raise DeployError(f"{name} is damaged on the device. Send it again: deploy with --force")
            self._reporter.remark(f"{name} is damaged on the device and is sent again")
            self._send(Step("send", f"send {name} again", name, files[name].size))

    def _send(self, step: Step) -> None:
        entry, member = self._bundle.manifest.files[step.name], self._bundle.member(step.name)
        part = str(PurePosixPath(self._state.root) / "store" / f"{entry.sha256}.part")
        began = time.monotonic()
        progress = self._reporter.sending(step.name, entry.size)
        self._transport.put(Section(member.path, member.offset, member.size), part, progress)
        self._outcome.send_s += time.monotonic() - began
        self._device.ask("admit", entry.sha256)
        self._outcome.sent_files += 1
        self._outcome.sent_bytes += step.bytes
        self._outcome.wire_bytes += step.bytes

    def _stage(self, step: Step) -> None:
        self._device.ask("recover")
        self._device.look()
        if self._device.slots.pop(self._slot, None):
            self._device.write_state()
        files = [
            word
            for name, entry in sorted(runner_files(self._bundle.manifest).items())
            for word in (name, str(entry.size), entry.sha256)
        ]
        self._device.ask("stage", self._slot, *files, input=self._bundle.manifest_bytes)
        if self._bundle.signature_bytes is not None:
            keys = "".join(f"{key}\n" for key in self._accepted).encode()
            for name, content in ((SIGNATURE_NAME, self._bundle.signature_bytes), (KEYS_NAME, keys)):
                self._device.ask("write", f"slots/{self._slot}/{name}", "none", input=content)
        self._outcome.slot = self._slot

    def _selftest(self, step: Step) -> None:
        self._outcome.probes, self._outcome.isa, chat = self._device.test(self._slot)
        if not self._outcome.probes:
            self._reporter.remark("the model has no golden probes: nothing proves it computes the same on this device")
        program, model = f"{self._state.root}/active/bin/edgebit-run", f"{self._state.root}/active/model.ebm"
        self._outcome.run_with = shlex.join([program, model, *(["--chat"] if chat else []), "-p", _PROMPT])

    def _switch(self, step: Step) -> None:
        after = policy_after(self._policy, self._bundle.manifest.release, self._accepted)
        if after != self._policy or self._policy_sum == "none":  # first: a bundle is good only once its word holds
            self._device.ask("write", POLICY_NAME, self._policy_sum, input=after.to_bytes())
        self._device.slots[self._slot] = {"id": self._bundle.id, "status": "good"}
        self._device.write_state()
        self._device.ask("point", self._slot, self._bundle.id)

    def _commit(self, step: Step) -> None:
        kept = {entry.sha256 for entry in runner_files(self._bundle.manifest).values()}
        for name in self._device.slots:
            if name != self._slot:
                kept |= {entry.sha256 for entry in runner_files(self._device.manifest(name)).values()}
        self._device.ask("prune", *sorted(kept))
