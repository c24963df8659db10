"""The device's side of a deploy: `python3 edgebitd.pyz agent --root FOLDER VERB`, called by edgebit/deploy/device.py.

Each verb prints one JSON object and ends with 0, or says what is wrong on standard error and ends with the error's own
exit code. Files come in through standard input or the store, never through arguments. Standard library only, but for
`check` and `gate`, which need paho-mqtt, and `golden`, which needs the native library; `install` and `retract` are a
whole deploy (edgebit/deploy/local_install.py), and nothing else here knows of that.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgebit import __version__
from edgebit.bundle.manifest import DAEMON_MEMBER, LIBRARY_MEMBER, MODEL_MEMBER, parse_manifest
from edgebit.bundle.signature import PublicKey, parse_public_key
from edgebit.bundle.slots import Slot, Slots, locked
from edgebit.bundle.trust import POLICY_NAME, Offer, describe_policy, judge, lets_in_again
from edgebit.daemon.install.device_access import port_fault
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
_LOG_PIECE = 1 << 20

Answer = dict[str, Any]


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
            return _about(staged)

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
        from edgebit.runtime.native import Engine, Library, Model

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
            return _about(self.slots.switch(options.id))

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
        return _about(slot)

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
            return _about(self.slots.rollback())

    def starting(self, options: argparse.Namespace) -> Answer:
        """Before each start by systemd: counts the tries of a bundle on trial."""
        return _about(self.service.starting())

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
        active, previous = self.slots.active(), self.slots.previous()
        return {
            "edgebit": __version__,
            "root": str(self.root),
            "slots": {slot.name: self._describe(slot) for slot in self.slots.slots().values()},
            "active": active.name if active else None,
            "previous": previous.name if previous else None,
            "refused": self.slots.refused(),
            "service": self.service.kind(),
            "up": self.service.is_up(),
            "pid": self.service.pid(),
            "store_bytes": sum(place.stat().st_size for place in (self.root / "store").glob("*")),
            "free_bytes": shutil.disk_usage(self.root).free,
            "trust": self._trust(),
            **self._settings(),
        }

    def logs(self, options: argparse.Namespace) -> Answer:
        """The log's last lines, or what came after byte `after`."""
        log = self.service.log
        try:
            size = log.stat().st_size
            with log.open("rb") as file:
                if options.after is None or options.after > size:  # shorter than before: it was begun anew
                    file.seek(max(0, size - _LOG_PIECE) if options.after is None else 0)
                    data = file.read(_LOG_PIECE)
                    if options.after is None:
                        data = b"".join(data.splitlines(keepends=True)[-options.lines :]) if options.lines else b""
                else:
                    file.seek(options.after)
                    data = file.read(_LOG_PIECE)
                return {"text": data.decode("utf-8", "replace"), "next": file.tell()}
        except FileNotFoundError:
            return {"text": "", "next": 0}

    def sensors(self, options: argparse.Namespace) -> Answer:
        """What the sensors say to whoever asks: the daemon may have other rights, and has its meter's port open."""
        from edgebit.daemon.config.reader import read_config
        from edgebit.daemon.sensors.console import files_of
        from edgebit.daemon.sensors.kinds import sampler_of
        from edgebit.daemon.sensors.listing import take_all

        config = read_config(self.root / CONFIG_NAME)
        with closing(sampler_of(files_of(config), config.sensors, config.power, self.root / "state")) as sampler:
            return take_all(sampler)

    def security(self, options: argparse.Namespace) -> Answer:
        """The last refusals, by hashed names, and how many there were in all that is kept."""
        from edgebit.daemon.privacy.security_log import FILE, read_security_log, summary

        facts = read_security_log(self.root / "state" / FILE)
        return {"summary": summary(facts), "lines": facts[-options.lines :] if options.lines else []}

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
        """Stop the daemon and remove everything."""
        self.service.disable()
        keep = (CONFIG_NAME, PASSWORD_NAME, POLICY_NAME) if options.keep_config else ()
        with self.locked():
            self.slots.recover()
        return {"left": self.slots.remove(keep=keep)}

    def _wanted_before(self) -> str:
        """What keeps the daemon running now, as detect() takes it."""
        return "supervisor" if self.service.kind() == "supervisor" else "auto"

    def _about_or_stop(self, slot: Slot | None) -> Answer:
        """The slot to go on with; without one, the daemon that must not is stopped."""
        if slot is None:
            self.service.stop()
            return {}
        return _about(slot)

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

    def _describe(self, slot: Slot) -> Answer:
        manifest = self.slots.manifest(slot)
        return {
            **_about(slot),
            "name": manifest.name,
            "model": manifest.model.name,
            "edgebit": manifest.edgebit,
            "target": manifest.target.name,
            "bytes": sum(entry.size for entry in manifest.files.values()),
        }

    def _trust(self) -> Answer | None:
        try:
            return describe_policy(self.slots.policy())
        except EdgebitError as error:
            return {"error": str(error)}

    def _settings(self) -> Answer:
        from edgebit.daemon.config.reader import read_config

        if not (self.root / CONFIG_NAME).exists():
            return {"device": None, "broker": None}
        try:
            config = read_config(self.root / CONFIG_NAME)
        except EdgebitError as error:
            return {"device": None, "broker": None, "config_error": str(error)}
        meter = {"port": config.power.port, "fault": port_fault(config.power.port)} if config.power.port else None
        return {"device": config.device_name, "broker": config.mqtt.url, "meter": meter}


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


def _about(slot: Slot) -> Answer:
    return {"slot": slot.name, "id": slot.id, "status": slot.status, "tries_left": slot.tries_left}


def parser() -> argparse.ArgumentParser:
    """The verbs and their arguments."""
    top = argparse.ArgumentParser(prog="edgebitd.pyz agent", description="The device's side of edgebit deploy.")
    top.add_argument("--root", required=True, type=Path)
    verbs = top.add_subparsers(dest="verb", required=True)
    for verb in (
        "missing",
        "configure",
        "restore",
        "stop",
        "withdraw",
        "rollback",
        "starting",
        "supervise",
        "status",
        "sensors",
    ):
        verbs.add_parser(verb)
    stage = verbs.add_parser("stage")
    stage.add_argument("--force", action="store_true")
    for judging in (stage, verbs.add_parser("judge")):
        judging.add_argument("--key", action="append", default=[], help="trusted where the device trusts none yet")
    verbs.add_parser("selftest").add_argument("id")
    verbs.add_parser("golden").add_argument("folder")
    for verb in ("start", "detect"):
        verbs.add_parser(verb).add_argument("--service", choices=("auto", "systemd", "supervisor"), default="auto")
    verbs.add_parser("switch").add_argument("id")
    commit = verbs.add_parser("commit")
    commit.add_argument("id")
    commit.add_argument("--keep-store", action="store_true")
    check = verbs.add_parser("check")
    check.add_argument("--timeout-s", type=float, default=120.0)
    for limit in ("--stay-up-s", "--min-tok-s", "--rss-max-mib"):
        check.add_argument(limit, type=float, default=0.0)
    gate = verbs.add_parser("gate")
    gate.add_argument("id")
    gate.add_argument("guarded", type=int)
    gate.add_argument("--timeout-s", type=float, default=120.0, help="for the answer")
    gate.add_argument("--delay-s", type=float, default=15.0, help="a deploy that is still there asks first")
    gate.add_argument("--again-s", type=float, default=30.0, help="to the next look, where nothing was decided")
    verbs.add_parser("fail").add_argument("reason")
    logs = verbs.add_parser("logs")
    logs.add_argument("--lines", type=int, default=100)
    logs.add_argument("--after", type=int)
    verbs.add_parser("security").add_argument("--lines", type=int, default=100)
    install = verbs.add_parser("install", help="install a bundle file that is on this device")
    install.add_argument("bundle", type=Path)
    install.add_argument("--mqtt", default="", metavar="URL", help="the broker, needed once")
    install.add_argument("--device-name", default="", help="the name in topics (default: the host's)")
    install.add_argument("--service", choices=("auto", "systemd", "supervisor"), default="", help="default: as before")
    install.add_argument("--force", action="store_true", help="also one that is there, or was taken back")
    install.add_argument(
        "--on-trial", action="store_true", help="do not keep it yet: `commit ID` or `retract ID` follow"
    )
    install.add_argument("--name", default="", help="refuse a bundle that is called otherwise")
    install.add_argument("--id", default="", help="refuse a bundle with another id")
    install.add_argument("--key", action="append", default=[], help="refuse what this public key did not sign")
    retract = verbs.add_parser("retract", help="undo an installation, on trial or kept")
    retract.add_argument("id")
    for asking in (install, retract):
        asking.add_argument("--timeout-s", type=float, default=120.0)
    verbs.add_parser("uninstall").add_argument("--keep-config", action="store_true")
    return top


def main(arguments: Sequence[str]) -> int:
    """Carry out one verb; gives the exit code."""
    options = parser().parse_args(arguments)
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
