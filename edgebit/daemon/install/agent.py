"""The device's side of a deploy: `python3 edgebitd.pyz agent --root FOLDER VERB`, called by edgebit/deploy/device.py.

Each verb prints one JSON object and ends with 0, or says what is wrong on standard error and ends with the error's own
exit code. Files come in through standard input or the store, never through arguments. Standard library only, but for
`check` and `gate`, which need paho-mqtt, and `golden`, which needs the native library; `install` and `retract` are a
whole deploy (edgebit/deploy/local_install.py), and nothing else here knows of that.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from edgebit.bundle.manifest import DAEMON_MEMBER, LIBRARY_MEMBER, MODEL_MEMBER, parse_manifest
from edgebit.bundle.signature import PublicKey, parse_public_key
from edgebit.bundle.slots import Slot, Slots, locked
from edgebit.bundle.trust import POLICY_NAME, Offer, judge, lets_in_again
from edgebit.daemon.install.agent_verbs import verb_parser
from edgebit.daemon.install.broker_memory import forget_at_broker
from edgebit.daemon.install.device_report import Answer, about, device_status, read_log, read_refusals, read_sensors
from edgebit.daemon.install.service import Service, detect
from edgebit.daemon.install.settings import (
    CONFIG_NAME,
    PASSWORD_NAME,
    keep_settings,
    merge_settings,
    restore_settings,
    set_aside,
)
from edgebit.errors import DeployError, EdgebitError

SELFTEST_TIMEOUT_S = 600.0


class Agent:
    """The verbs, on one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.slots = Slots(root)
        self.service = Service(root)

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else changes the slots meanwhile."""
        return locked(self.root)

    def judge(self, options: argparse.Namespace) -> Answer:
        """Whether the bundle of the manifest and signature on standard input may come in, by the device's policy.

        Asked of the bundle that runs, before anything of the new one is sent.
        """
        offer = Offer.from_bytes(sys.stdin.buffer.read())
        with self.locked():
            return {"signed_by": [key.id for key in self._judge(offer, options.key)]}

    def missing(self, options: argparse.Namespace) -> Answer:
        """Which files of the manifest on standard input the store lacks; reads those it has."""
        manifest = parse_manifest(Offer.from_bytes(sys.stdin.buffer.read()).manifest, "the manifest sent")
        with self.locked():
            self.slots.recover()
            return {"missing": self.slots.missing(manifest)}

    def stage(self, options: argparse.Namespace) -> Answer:
        """Check the files that were sent, and lay the bundle of the manifest on standard input into the free slot.

        A signature stands behind the manifest and a NUL byte.
        """
        offer = Offer.from_bytes(sys.stdin.buffer.read())
        with self.locked():
            accepted = self._judge(offer, options.key)
            for entry in parse_manifest(offer.manifest, "the manifest sent").files.values():
                if not (self.root / "store" / entry.sha256).exists():
                    self.slots.admit(entry)
            staged = self.slots.stage(offer.manifest, force=options.force, signature=offer.signature, accepted=accepted)
            return about(staged)

    def selftest(self, options: argparse.Namespace) -> Answer:
        """Run the golden probes of a staged bundle, in a process of its own: a crash there is a refusal here."""
        slot = self._slot(options.id)
        argv = [
            sys.executable,
            str(slot.path / DAEMON_MEMBER),
            "agent",
            "--root",
            str(self.root),
            "golden",
            str(slot.path),
        ]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, errors="replace", timeout=SELFTEST_TIMEOUT_S, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise DeployError(f"the self-test did not end within {SELFTEST_TIMEOUT_S:g} s") from None
        if done.returncode < 0:
            raise DeployError(
                f"the self-test was ended by signal {-done.returncode}"
                + (": the CPU does not know an instruction of the library" if done.returncode == -4 else "")
            )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise DeployError(f"the self-test failed: {last[0]}")
        answer: Answer = json.loads(done.stdout)
        return answer

    def golden(self, options: argparse.Namespace) -> Answer:
        """Load the native library of a slot, check the model's sums, and run its golden probes bit for bit."""
        from edgebit.bundle.model_reader import ModelFile
        from edgebit.runtime.engine import Engine
        from edgebit.runtime.library import Library
        from edgebit.runtime.model import Model

        folder = Path(options.folder)
        library = Library.load(folder / LIBRARY_MEMBER)
        with ModelFile(folder / MODEL_MEMBER) as file:
            refuse_mute(file.sections)
            context = file.probe_context  # the model's own maximum may take more memory than the daemon will
        with Model.open(library, folder / MODEL_MEMBER) as model:
            model.verify()
            with Engine(model, ctx_len=context) as engine:
                return {"probes": engine.check_probes(), "isa": engine.isa}

    def configure(self, options: argparse.Namespace) -> Answer:
        """Put the settings on standard input into edgebitd.toml; others in it stay."""
        settings = json.loads(sys.stdin.buffer.read())
        with self.locked():
            before = _contents(self.root)
            set_aside(self.root)
            config = merge_settings(self.root, settings)
            changed = _contents(self.root) != before
        return {"device": config.device_name, "url": config.mqtt.url, "changed": changed}

    def restore(self, options: argparse.Namespace) -> Answer:
        """Bring back the settings from before a configure that was not committed."""
        with self.locked():
            return {"restored": restore_settings(self.root)}

    def detect(self, options: argparse.Namespace) -> Answer:
        """What would keep the daemon running here."""
        return {"service": detect(options.service)}

    def start(self, options: argparse.Namespace) -> Answer:
        """Start the daemon of the active slot; one that runs ends first."""
        kind = detect(options.service)
        return {"service": kind, "remark": self.service.start(kind)}

    def stop(self, options: argparse.Namespace) -> Answer:
        """Stop the daemon, which answers what it has with 503."""
        self.service.stop()
        return {}

    def switch(self, options: argparse.Namespace) -> Answer:
        """Make a staged bundle the active one, on trial."""
        with self.locked():
            return about(self.slots.switch(options.id))

    def check(self, options: argparse.Namespace) -> Answer:
        """Ask the daemon over its own broker: a ping, then a few tokens."""
        from edgebit.daemon.install.health import Limits, check_health

        active = self.slots.active()
        if active is None:
            raise DeployError(f"no bundle is active under {self.root}. Deploy one")
        limits = Limits(stay_up_s=options.stay_up_s, min_tok_s=options.min_tok_s, rss_max_mib=options.rss_max_mib)
        service = self.service
        return check_health(self.root, active.id, options.timeout_s, service.is_up, limits, service.pid)

    def commit(self, options: argparse.Namespace) -> Answer:
        """The active bundle and its settings stay."""
        with self.locked():
            slot = self.slots.commit(options.id, prune=not options.keep_store)
            keep_settings(self.root)
        return about(slot)

    def fail(self, options: argparse.Namespace) -> Answer:
        """Refuse the active bundle from now on and return to the one before, if there is one, which `start` starts."""
        with self.locked():
            slot = self.slots.fail(options.reason)
            restore_settings(self.root)
        return self._about_or_stop(slot)

    def withdraw(self, options: argparse.Namespace) -> Answer:
        """Return to the bundle before, if there is one; the one on trial may be deployed again."""
        with self.locked():
            slot = self.slots.withdraw()
            restore_settings(self.root)
        return self._about_or_stop(slot)

    def rollback(self, options: argparse.Namespace) -> Answer:
        """Return to the bundle before, which `start` starts."""
        with self.locked():
            return about(self.slots.rollback())

    def starting(self, options: argparse.Namespace) -> Answer:
        """Before each start by systemd: counts the tries of a bundle on trial."""
        return about(self.service.starting())

    def gate(self, options: argparse.Namespace) -> Answer:
        """Beside the daemon: decide a trial that nobody else decides."""
        from edgebit.daemon.install.gate import Gate

        gate = Gate(self.root, options.id, options.guarded, options.timeout_s)
        return {"trial": gate.decide(options.delay_s, options.again_s)}

    def supervise(self, options: argparse.Namespace) -> None:
        """Run the daemon and start it again when it dies."""
        self.service.supervise()

    def status(self, options: argparse.Namespace) -> Answer:
        """What is on the device and whether it runs."""
        return device_status(self.root, self.slots, self.service)

    def logs(self, options: argparse.Namespace) -> Answer:
        """The log's last lines, or what came after byte `after`."""
        return read_log(self.service.log, options.lines, options.after)

    def sensors(self, options: argparse.Namespace) -> Answer:
        """What the sensors say to whoever asks: the daemon may have other rights, and has its meter's port open."""
        return read_sensors(self.root)

    def security(self, options: argparse.Namespace) -> Answer:
        """The last refusals, by hashed names, and how many there were in all that is kept."""
        return read_refusals(self.root, options.lines)

    def install(self, options: argparse.Namespace) -> Answer:
        """Install from a bundle file that is on the device, as a deploy does it."""
        from edgebit.deploy.local_install import install_here

        settings = {"mqtt": {"url": options.mqtt}} if options.mqtt else {}
        if options.device_name:
            settings["device"] = {"name": options.device_name}
        return install_here(
            self.root, options.bundle, settings=settings, force=options.force,
            service=options.service or self._wanted_before(), keep=not options.on_trial, name=options.name,
            identity=options.id, check_timeout_s=options.timeout_s, first_keys=options.key,
        )  # fmt: skip

    def retract(self, options: argparse.Namespace) -> Answer:
        """Undo the installation of a bundle, on trial or kept."""
        from edgebit.deploy.local_install import take_back

        wanted = self._wanted_before()
        return take_back(self.root, options.id, service=wanted, check_timeout_s=options.timeout_s)

    def uninstall(self, options: argparse.Namespace) -> Answer:
        """Stop the daemon and remove everything, and what its broker retains, unless the settings are kept."""
        self.service.disable()
        retained = {} if options.keep_config else forget_at_broker(self.root)
        keep = (CONFIG_NAME, PASSWORD_NAME, POLICY_NAME) if options.keep_config else ()
        with self.locked():
            self.slots.recover()
        return {"left": self.slots.remove(keep=keep), **retained}

    def _wanted_before(self) -> str:
        """What keeps the daemon running now, as detect() takes it."""
        return "supervisor" if self.service.kind() == "supervisor" else "auto"

    def _about_or_stop(self, slot: Slot | None) -> Answer:
        """The slot to go on with; without one, the daemon that must not is stopped."""
        if slot is None:
            self.service.stop()
            return {}
        return about(slot)

    def _judge(self, offer: Offer, first_keys: Sequence[str]) -> tuple[PublicKey, ...]:
        """The keys that let the bundle in. Raises BundleError where none does."""
        active = self.slots.active()
        release = self.slots.manifest(active).release if active else None
        policy = self.slots.policy()
        if active and active.status == "good" and offer == self.slots.offer(active):
            accepted = self.slots.accepted(active)
            if lets_in_again(policy, release, accepted):
                return accepted
        keys = [parse_public_key(line, "--key") for line in first_keys]
        return judge(offer, policy, keys, datetime.now(UTC), release.created if release else None)

    def _slot(self, identity: str) -> Slot:
        slot = next((slot for slot in self.slots.slots().values() if slot.id == identity), None)
        if slot is None:
            raise DeployError(f"bundle {identity} is not staged here: another deploy came between. Deploy it again")
        return slot


def refuse_mute(sections: Container[str]) -> None:
    """Raise DeployError for a model that cannot read a prompt."""
    if "TOKN" not in sections:
        raise DeployError(
            "the model has no tokenizer (no section TOKN), so it cannot answer. Build it again from a checkpoint with"
            " its tokenizer"
        )


def _contents(root: Path) -> list[bytes | None]:
    """The settings' files as they are."""
    places = (root / CONFIG_NAME, root / PASSWORD_NAME)
    return [place.read_bytes() if place.exists() else None for place in places]


def main(arguments: Sequence[str]) -> int:
    """Carry out one verb; gives the exit code."""
    options = verb_parser().parse_args(arguments)
    options.root = options.root.expanduser().absolute()
    verb: Callable[[argparse.Namespace], Answer | None] = getattr(Agent(options.root), options.verb)
    try:
        answer = verb(options)
    except EdgebitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{error.filename or options.root}: {error.strerror or error}", file=sys.stderr)
        return DeployError.exit_code
    if answer is not None:
        print(json.dumps(answer))
    return 0
