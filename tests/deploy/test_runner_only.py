"""Devices without Python: the real shell verbs, in three shells, on a folder of this machine.

The bundle's edgebit-run is a script that acts as its model.ebm says (conftest.py).
"""

import dataclasses
import json
import os
import shlex
import subprocess
from pathlib import Path
from types import MappingProxyType

import pytest
from adb_fixtures import APPLETS
from console_fixtures import PASSWORD
from signing_keys import make_key, signing

from edgebit.bundle.archive import Bundle
from edgebit.deploy.device import Device, device_at
from edgebit.deploy.install import install
from edgebit.deploy.outcome import Outcome
from edgebit.deploy.plan import InstallOptions, KnownKeys, plan_install
from edgebit.deploy.runner_only import RunnerDevice
from edgebit.device_probe import probe
from edgebit.errors import BundleError, ConfigError, DeployError
from edgebit.fleet.inventory import FleetDevice
from edgebit.fleet.survey import ask_device
from edgebit.transport import Options, open_transport
from edgebit.transport.local import LocalTransport


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.actions: list[str] = []
        self.remarks: list[str] = []

    def step(self, step):
        self.actions.append(step.action)

    def remark(self, text):
        self.remarks.append(text)

    def sending(self, name, size):
        return lambda count: None


@dataclasses.dataclass
class BareDevice:
    """A folder of this machine that is seen with a shell and no Python."""

    root: Path
    reporter: Recorder = dataclasses.field(default_factory=Recorder)

    def transport(self) -> LocalTransport:
        device = open_transport(f"local:{self.root}")
        assert isinstance(device, LocalTransport)
        return device

    def deploy(
        self, bundle: Bundle, *, force: bool = False, transport: LocalTransport | None = None, keys=MappingProxyType({})
    ) -> Outcome:
        self.reporter = Recorder()
        options = InstallOptions(force=force, known=KnownKeys(keys=keys))
        return install(bundle, transport or self.transport(), options, self.reporter)

    def installed(self) -> RunnerDevice:
        device = device_at(self.transport())
        assert isinstance(device, RunnerDevice)
        return device

    def answer(self) -> str:
        """What a user gets who runs the active program by hand."""
        active = self.root / "active"
        return subprocess.run(
            [active / "bin" / "edgebit-run", active / "model.ebm", "-p", "?"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip


every_shell = pytest.mark.parametrize(
    "programs", ["mksh and toybox", "busybox", "dash and coreutils"], indirect=True
)  # fmt: skip


@pytest.fixture
def programs(request, require_tool, tmp_path) -> Path:
    """A folder for PATH: by default what Android has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shell, _, rest = getattr(request, "param", "mksh and toybox").partition(" and ")
    (folder / "sh").symlink_to(require_tool(shell))
    for name in (*APPLETS, "sh"):
        place = folder / name
        if not place.is_symlink():
            place.symlink_to(require_tool(rest if rest == "toybox" else shell if not rest else name))
    return folder


@pytest.fixture
def bare(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BareDevice:
    """The device; its root has a space."""
    monkeypatch.setenv("PATH", str(programs))
    return BareDevice(tmp_path / "a device")


@every_shell
def test_look_at_a_device(bare):
    """Each shell and its programs tell the same facts, which are this machine's."""
    state = probe(bare.transport())

    assert (state.arch, state.machine) == (os.uname().machine,) * 2
    assert (state.uid, state.host) == (os.geteuid(), os.uname().nodename)
    assert state.page_bytes in (os.sysconf("SC_PAGESIZE"), 0), "busybox has no getconf"
    assert state.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    assert state.free_bytes > 0 and state.clock_s > 1_700_000_000 and state.python is None


@every_shell
@pytest.mark.parametrize("end", ["", "\n"], ids=["no line's end", "a line's end"])
def test_look_at_files_that_somebody_edited(bare, end):
    """With or without an end of the last line, on one line or several."""
    bare.root.mkdir()
    slots = {"a": {"id": "0" * 16, "status": "trying"}}
    (bare.root / "state.json").write_text(json.dumps({"slots": slots, "refused": {}}) + end)
    (bare.root / "trust.json").write_text('{\n "schema": 1\n}' + end)

    state = probe(bare.transport())

    assert state.slots == slots
    assert json.loads(state.trust) == {"schema": 1}


@every_shell
def test_first_deploy(bare, runner_bundle):
    """edgebit-run, library and model arrive, are tested and run; nothing of the daemon does."""
    bundle = runner_bundle()

    outcome = bare.deploy(bundle)

    assert (outcome.probes, outcome.isa, outcome.slot, outcome.sent_files) == (3, "scalar", "a", 3)
    assert shlex.split(outcome.run_with)[:3] == [
        f"{bare.root}/active/bin/edgebit-run", f"{bare.root}/active/model.ebm", "-p"
    ]  # fmt: skip
    assert bare.answer() == "one answers"
    assert (bare.root / "active").readlink() == Path("slots/a")
    assert not list(bare.root.rglob("edgebitd.pyz"))
    assert len(list((bare.root / "store").iterdir())) == 3
    assert bare.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("programs", ["dash and coreutils"], indirect=True)
def test_deploy_over_a_serial_console(programs, runner_bundle, board, require_tool, tmp_path, monkeypatch):
    """Nothing in it hangs on one way to a device: the verbs, which are long command lines, go over a console too."""
    for name in ("base64", "dd", "stty"):
        (programs / name).symlink_to(require_tool(name))
    shell, device = require_tool("dash"), BareDevice(tmp_path / "a device")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("EDGEBIT_SERIAL_PASSWORD", PASSWORD)
    with open_transport(board(shell=[shell, "-i"]).serial_url, Options(root=str(device.root))) as console:
        outcome = install(runner_bundle(), console, InstallOptions(), device.reporter)

    assert outcome.probes == 3 and device.answer() == "one answers"


@every_shell
def test_second_deploy_and_back(bare, runner_bundle):
    """Only what differs is sent; the bundle before is kept and can be returned to, and forward again."""
    first, second = runner_bundle("one"), runner_bundle("two")
    bare.deploy(first)

    outcome = bare.deploy(second)

    assert outcome.sent_files == 1 and outcome.slot == "b" and bare.answer() == "two answers"
    status = bare.installed().status()
    assert {name: slot["id"] for name, slot in status["slots"].items()} == {"a": first.id, "b": second.id}
    assert status["active"] == "b" and status["previous"] == "a" and status["up"]
    assert bare.installed().rollback(service="auto")["id"] == first.id and bare.answer() == "one answers"
    assert bare.installed().rollback(service="auto")["id"] == second.id and bare.answer() == "two answers"


def test_a_fleets_status_knows_it(bare, runner_bundle):
    """Its bundle, and that no daemon is there."""
    bundle = runner_bundle()
    bare.deploy(bundle)

    told = ask_device(FleetDevice(name="bare", url=f"local:{bare.root}", device_name="bare"))

    assert (told.bundle, told.slot, told.service, told.up, told.why) == (bundle.id, "a", "none", True, "")


def test_third_deploy_throws_away_what_no_slot_needs(bare, runner_bundle):
    """The store holds the files of two slots."""
    for name in ("one", "two", "three"):
        bare.deploy(runner_bundle(name))

    models = {place.read_text() for place in (bare.root / "store").iterdir() if place.stat().st_size < 20}
    assert models == {"ok two\n", "ok three\n"}
    assert bare.answer() == "three answers"


@pytest.mark.parametrize(
    ("act", "promised"),
    [
        ("wrong", "golden probe 0 differs in layer 1"),
        ("crash", "does not know an instruction"),
        ("mute", "no memory for 99 bytes"),
    ],
)
def test_bundle_that_fails_its_self_test(bare, runner_bundle, act, promised):
    """It never becomes the active one, at first as later."""
    bad = runner_bundle("bad", act)
    with pytest.raises(DeployError, match=promised):
        bare.deploy(bad)
    assert not (bare.root / "active").is_symlink()
    bare.deploy(runner_bundle("one"))
    with pytest.raises(DeployError, match=promised):
        bare.deploy(bad)

    assert bare.answer() == "one answers"
    assert bare.deploy(runner_bundle("two")).slot == "b" and bare.answer() == "two answers"


@every_shell
def test_bundle_that_is_there_is_only_tested(bare, runner_bundle):
    """Sums and probes are checked, nothing is sent; a damaged file is found, and sent again when forced."""
    bundle = runner_bundle()
    bare.deploy(bundle)
    assert bare.deploy(bundle).sent_files == 0
    assert bare.reporter.actions == ["verify", "selftest"]
    model = next(place for place in (bare.root / "store").iterdir() if place.read_text() == "ok one\n")
    model.chmod(0o600)
    model.write_text("ok ONE\n")

    with pytest.raises(DeployError, match=r"model\.ebm is damaged on the device.*--force"):
        bare.deploy(bundle)
    assert bare.deploy(bundle, force=True).sent_files == 1

    assert bare.answer() == "one answers"


def test_damaged_transfer_never_gets_a_name(bare, runner_bundle):
    """A turned bit is found there, what was sent is thrown away, and the next deploy is whole."""

    class Noisy(LocalTransport):
        def put(self, source, remote, progress=None):
            super().put(source, remote, progress)
            data = bytearray(Path(remote).read_bytes())
            data[len(data) // 2] ^= 1
            Path(remote).write_bytes(data)

    bare.deploy(runner_bundle("one"))
    second = runner_bundle("two")

    with pytest.raises(BundleError, match=r"sent a file with SHA-256 [0-9a-f]{64}, the device has"):
        bare.deploy(second, transport=Noisy(bare.root))

    assert bare.answer() == "one answers" and not list((bare.root / "store").glob("*.part"))
    bare.deploy(second)
    assert bare.answer() == "two answers"


def test_two_deploys_at_once(bare, runner_bundle):
    """The later one notices, and changes nothing."""
    bare.deploy(runner_bundle("one"))
    late = runner_bundle("late")

    class Interrupted(LocalTransport):
        def run(self, argv, **how):
            if argv[5:7] == ["write", "state.json"] and not (bare.root / "between").exists():
                (bare.root / "between").touch()
                bare.deploy(runner_bundle("two"))
            return super().run(argv, **how)

    with pytest.raises(DeployError, match="another deploy came between"):
        bare.deploy(late, transport=Interrupted(bare.root))
    assert bare.answer() == "two answers"


def test_file_system_without_hard_links(bare, runner_bundle, programs):
    """As on Android: links into the store instead, at both depths."""
    real = (programs / "ln").readlink()
    (programs / "ln").unlink()
    (programs / "ln").write_text(
        f'#!{programs}/sh\ncase $1 in -s*) ;; *) echo "ln: Permission denied" >&2; exit 1 ;; esac\n'
        + (f'exec {real} ln "$@"\n' if real.name in ("busybox", "toybox") else f'exec {real} "$@"\n')
    )
    (programs / "ln").chmod(0o755)

    bare.deploy(runner_bundle("one"))
    bare.deploy(runner_bundle("two"))

    assert (bare.root / "active" / "model.ebm").is_symlink() and bare.answer() == "two answers"
    assert len(list((bare.root / "store").iterdir())) == 4
    bare.installed().rollback(service="auto")
    assert bare.answer() == "one answers"


def test_slot_that_was_spoilt_is_no_way_back(bare, runner_bundle):
    """A file missing from the slot before: roll-back refuses, and what runs stays."""
    bare.deploy(runner_bundle("one"))
    bare.deploy(runner_bundle("two"))
    (bare.root / "slots" / "a" / "model.ebm").unlink()

    with pytest.raises(DeployError, match="no bundle before this one"):
        bare.installed().rollback(service="auto")

    assert list(bare.installed().status()["slots"]) == ["b"] and bare.answer() == "two answers"


@every_shell
def test_uninstall_takes_its_own_alone(bare, runner_bundle):
    """What somebody else put there stays, and is named."""
    bare.deploy(runner_bundle())
    (bare.root / "notes").touch()
    (bare.root / "store" / "photo.jpg").touch()

    assert bare.installed().uninstall(keep_config=False) == ["notes", "store"]
    assert sorted(place.name for place in bare.root.rglob("*")) == ["notes", "photo.jpg", "store"]


def test_uninstall_leaves_nothing(bare, runner_bundle):
    """Not even the folder."""
    bare.deploy(runner_bundle())

    assert bare.installed().uninstall(keep_config=False) == []
    assert not bare.root.exists()


def test_no_daemon_no_log_no_broker(bare, runner_bundle):
    """Said in words, not by a failure of python3."""
    bare.deploy(runner_bundle())
    with pytest.raises(DeployError, match="without python3, so it has no log"):
        bare.installed().logs(5)
    with pytest.raises(DeployError, match="no daemon to ask"):
        Device.installed(bare.transport())
    with pytest.raises(DeployError, match=r"no python3, so no daemon.*pkg install python"):
        install(
            runner_bundle("two"), bare.transport(),
            InstallOptions(settings={"mqtt": {"url": "mqtt://x"}}), Recorder(),
        )  # fmt: skip


OLD, NEW, STRANGER = make_key(1), make_key(2), make_key(3)


def test_keys_follow_one_another(bare, runner_bundle):
    """The policy of every device, judged on this machine: first key, refusals, a new key by the old one's word."""
    first = runner_bundle("first", signing=signing(OLD, sequence=5))
    bare.deploy(first, keys={"old": OLD.public})

    assert bare.installed().status()["trust"] == {"keys": [OLD.public.id], "unsigned": "refuse", "floor": 5}
    assert (bare.root / "trust.json").stat().st_mode & 0o777 == 0o600
    for name, says, promised in (
        ("unsigned", None, "is not signed"),
        ("stranger", signing(STRANGER, sequence=9), "takes only bundles signed by key"),
        ("older", signing(OLD, sequence=4), "none below 5"),
        ("expired", signing(OLD, sequence=9, expires="1d"), "expired at 2026-03-02"),
    ):
        with pytest.raises(BundleError, match=promised):
            bare.deploy(runner_bundle(name, signing=says), force=True, keys={"stranger": STRANGER.public})
        assert bare.reporter.actions == [] and bare.answer() == "first answers"

    bare.deploy(runner_bundle("hand-over", signing=signing(OLD, NEW, sequence=6, trust=(NEW,))))

    assert bare.reporter.actions[0] == "judge"
    assert bare.installed().status()["trust"] == {"keys": [NEW.public.id], "unsigned": "refuse", "floor": 6}
    with pytest.raises(BundleError, match=f"only bundles signed by key {NEW.public.id}"):
        bare.deploy(runner_bundle("late", signing=signing(OLD, sequence=7)), keys={"old": OLD.public})
    assert bare.installed().rollback(service="auto")["id"] == first.id, "the floor is for what comes"
    for force in (False, True):
        bare.deploy(first, force=force)
        assert bare.answer() == "first answers", "what runs is no new one"
    assert bare.installed().status()["trust"] == {"keys": [NEW.public.id], "unsigned": "refuse", "floor": 6}
    assert bare.installed().uninstall(keep_config=True) == ["trust.json"]


def test_policy_that_is_missing_is_what_the_slots_make_of_it(bare, runner_bundle):
    """Taking trust.json away opens the device to nobody; nor does a damaged one."""
    bare.deploy(runner_bundle("first", signing=signing(OLD, sequence=5)), keys={"old": OLD.public})
    (bare.root / "trust.json").unlink()
    for name, says in (("unsigned", None), ("stranger", signing(STRANGER, sequence=9))):
        with pytest.raises(BundleError, match="takes only bundles signed by key"):
            bare.deploy(runner_bundle(name, signing=says), keys={"stranger": STRANGER.public})
    (bare.root / "trust.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        bare.deploy(runner_bundle("second", signing=signing(OLD, sequence=6)), keys={"old": OLD.public})
    (bare.root / "trust.json").unlink()
    assert bare.answer() == "first answers"

    bare.deploy(runner_bundle("third", signing=signing(OLD, sequence=6)), keys={"old": OLD.public})

    assert bare.answer() == "third answers"
    assert bare.installed().status()["trust"] == {"keys": [OLD.public.id], "unsigned": "refuse", "floor": 6}


@pytest.mark.parametrize(
    ("change", "without", "promised"),
    [
        ({"arch": "armv7l"}, (), "the device's programs are armv7l"),
        ({"free_bytes": 1_000_000}, (), "1.0 MB free under"),
        ({"noexec": True}, (), "mounted noexec"),
        ({"memory_bytes": 1_000_000}, (), "Take a smaller model"),
        ({"strange": ("photos",)}, (), "is not edgebit's: it holds photos"),
        ({}, ("bin/edgebit-run",), "holds no bin/edgebit-run"),
    ],
)
def test_unfit_device_is_refused(bare, runner_bundle, change, without, promised):
    """Before a byte is sent, with the reason."""
    bundle = runner_bundle(without=without)
    state = dataclasses.replace(probe(bare.transport()), **change)
    assert state.python is None

    with pytest.raises(DeployError) as refused:
        plan_install(bundle.manifest, bundle.id, state, InstallOptions())

    assert promised in str(refused.value)


class Killed(Exception):
    """The device's power is gone."""


class KillingTransport(LocalTransport):
    """Every program that a verb starts is counted; the shell that starts number `limit` is killed before it runs."""

    def __init__(self, root: Path, count: Path) -> None:
        super().__init__(root)
        self._count = count

    def run(self, argv, **how):
        done = super().run(["sh", "-c", '"$@"; exit $?', "sh", *argv], **how)  # as over adb, where a shell starts all
        if done.code in (-9, 128 + 9) or self._count.read_text() == "dead\n":
            raise Killed
        return done


@pytest.mark.slow
@pytest.mark.parametrize("programs", ["mksh and toybox", "dash and coreutils"], indirect=True)  # busybox asks no PATH
def test_power_cut_at_every_step(bare, runner_bundle, programs, tmp_path):
    """Whatever command of a verb is the last one, the active bundle answers, and the next deploy goes through."""
    first, second = runner_bundle("one"), runner_bundle("two")
    count, kept = tmp_path / "count", tmp_path / "kept"
    counting = tmp_path / "counting"
    counting.mkdir()
    for name in ("cat", "chmod", "ln", "mkdir", "mv", "rm", "sync"):
        (counting / name).write_text(
            f"#!{programs}/sh\nread -r left <'{count}'\n"
            f"if [ $left = dead ] || [ $left = 0 ]; then echo dead >'{count}'; kill -9 $PPID; exit 1; fi\n"
            f"echo $((left - 1)) >'{count}'\nPATH='{programs}'\nexec {name} \"$@\"\n"
        )
        (counting / name).chmod(0o755)
    bare.deploy(first)
    bare.root.rename(kept)
    steps = 0
    while True:
        subprocess.run(["/bin/rm", "-rf", str(bare.root)], check=True)
        subprocess.run(["/bin/cp", "-a", str(kept), str(bare.root)], check=True)
        count.write_text(f"{steps}\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{counting}{os.pathsep}{programs}")
            try:
                bare.deploy(second, transport=KillingTransport(bare.root, count))
                break
            except (Killed, DeployError):
                assert bare.answer() in ("one answers", "two answers"), steps
        bare.deploy(second)
        assert bare.answer() == "two answers", steps
        assert list(bare.installed().status()["slots"]) == ["a", "b"], steps
        steps += 1
    assert steps > 15
