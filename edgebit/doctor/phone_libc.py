"""A phone's own loader and libc, copied from it, so that a bundle for it first runs emulated here.

The files are the phone owner's, and stay in the cache of this machine.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgebit import bionic, elf
from edgebit.bundle.archive import open_bundle
from edgebit.bundle.manifest import MODEL_MEMBER, RUNNER_MEMBER
from edgebit.checks import Check
from edgebit.doctor.finding import Finding, State, of_error
from edgebit.elf import read_elf
from edgebit.errors import BuildError, BundleError, EdgebitError, TransportError
from edgebit.probe_runs import check_model_probes
from edgebit.resources import cache_dir
from edgebit.targets import Target
from edgebit.transport import Options, Transport, open_transport
from edgebit.verify import member_as_file, target_of

GROUP = "the phone's libc, here"

_STATES: dict[str, State] = {"passed": "ok", "failed": "fail", "not run": "unknown"}
_RECORD = "phone.json"
_APEX = "/apex/com.android.runtime"  # where they lie since Android 10; /system has links, which not every adb follows
_PLACES = {
    name: (
        f"{_APEX}/bin/linker64" if name == bionic.ROOT_FILES[0] else f"{_APEX}/lib64/bionic/{name.rpartition('/')[2]}",
        f"/{name}",
    )
    for name in bionic.ROOT_FILES
}
_ABI = "arm64-v8a"


@dataclass(frozen=True, slots=True)
class PhoneLibc:
    """A folder with the loader and libc of a phone: what EDGEBIT_BIONIC_ROOT may name."""

    root: Path
    api_level: int
    build: str  # the phone's system, by its fingerprint


def check_phone_libc(url: str, options: Options, bundle: Path | None) -> list[Finding]:
    """Copy loader and libc of the phone at `url`, and run the probes of `bundle` on them. Nothing is raised."""
    try:
        with open_transport(url, options) as device:
            phone = pull_bionic(device, cache_dir())
        mend = "" if bundle else f"run a bundle on it: --bundle FILE; or build with {bionic.ROOT_VARIABLE}={phone.root}"
        where = f"API level {phone.api_level}, {phone.build}, in {phone.root}"
        findings = [Finding(GROUP, "loader and libc", "ok", where, mend)]
        checks = check_bundle_on_phone_libc(phone, bundle) if bundle else []
    except EdgebitError as error:
        return [of_error(GROUP, "loader and libc", error)]
    return [*findings, *(Finding(GROUP, check.name, _STATES[check.status], check.detail) for check in checks)]


def pull_bionic(device: Transport, cache: Path) -> PhoneLibc:
    """Copy loader and libc of the Android `device` into a folder of `cache`, once for each build of its system.

    Raises TransportError where the device is no 64-bit Arm Android, or a file cannot be had or came damaged.
    """
    api_level, build = _ask_build(device)
    root = cache / "bionic" / hashlib.sha256(build.encode()).hexdigest()[:16]
    if _is_whole(root):
        return PhoneLibc(root, api_level, build)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{root.name}.", dir=root.parent) as scratch:
        staging = Path(scratch) / "root"
        sums = {}
        for name, places in _PLACES.items():
            local = staging / name
            local.parent.mkdir(parents=True, exist_ok=True)
            _pull(device, places, local)
            local.chmod(0o755)  # or the emulator ends without a word
            sums[name] = hashlib.sha256(local.read_bytes()).hexdigest()
        record = {"build": build, "api_level": api_level, "files": sums}
        (staging / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if root.exists():  # what lies there is damaged
            shutil.rmtree(root)
        staging.rename(root)
    return PhoneLibc(root, api_level, build)


def check_on_phone_libc(phone: PhoneLibc, runner: Path, model: Path, model_size: int, target: Target) -> list[Check]:
    """The golden probes of `model`, a model file or bundle, with its `runner` on the phone's own loader and libc.

    Emulated: it shows that the phone's libc starts the program and has all it calls; nothing of the phone's kernel, its
    rules for apps, or its speed.
    """
    name = "the phone's libc"
    if not bionic.needs_linker(runner):
        text = "edgebit-run is static and needs none: --builder system makes one that does"
        return [Check(name, "not run", text), *check_model_probes(runner, model, model_size, target)]
    if target.api_level is not None and phone.api_level < target.api_level:
        text = f"the phone has Android API level {phone.api_level}, the bundle is for {target.api_level} and later"
        return [Check(name, "failed", text)]
    said = f"API level {phone.api_level}, {phone.build}"
    probes = check_model_probes(runner, model, model_size, target, bionic_root=phone.root)
    return [Check(name, "passed", said), *probes]


def check_bundle_on_phone_libc(phone: PhoneLibc, path: Path) -> list[Check]:
    """The same of the bundle at `path`. Raises BundleError where it is damaged, not for Android, or without program."""
    bundle = open_bundle(path)
    target = target_of(bundle.manifest)
    if target is None or not target.is_android:
        raise BundleError(f"{path} is for {bundle.manifest.target.triple}, no Android. Build one: --target android")
    if RUNNER_MEMBER not in bundle.members or MODEL_MEMBER not in bundle.members:
        raise BundleError(
            f"{path} has no {RUNNER_MEMBER} or no {MODEL_MEMBER}: nothing of it can be run. Build it again"
        )
    for name in (RUNNER_MEMBER, MODEL_MEMBER):
        bundle.verify_member(name)
    with member_as_file(bundle, RUNNER_MEMBER) as runner:
        return check_on_phone_libc(phone, runner, path, bundle.member(MODEL_MEMBER).size, target)


def _ask_build(device: Transport) -> tuple[int, str]:
    """API level and fingerprint."""
    properties = ("ro.product.cpu.abilist64", "ro.build.version.sdk", "ro.build.fingerprint")
    asked = device.run(["sh", "-c", "; ".join(f"echo $(getprop {name})" for name in properties)])
    said = asked.stdout.splitlines()
    if asked.code or len(said) != len(properties) or not said[1].isdecimal() or not said[2]:
        raise TransportError(f"{device.url} is no Android: getprop does not say which. Name a phone: adb://SERIAL")
    abis, level, build = said
    if _ABI not in abis.split(","):
        raise TransportError(f"{device.url} runs no {_ABI} programs, only {abis or '32-bit ones'}: edgebit needs them")
    return int(level), build


def _pull(device: Transport, places: tuple[str, ...], local: Path) -> None:
    """Copy the first of `places` that the device has, and look at what came."""
    script = 'for file; do if [ -r "$file" ]; then echo "$file"; wc -c <"$file"; exit; fi; done; exit 1'
    found = device.run(["sh", "-c", script, "sh", *places])
    said = found.stdout.split()
    if found.code or len(said) != 2 or not said[1].isdecimal():
        why = found.stderr.strip() or "neither is there"
        raise TransportError(f"{device.url} does not let us read {' or '.join(places)}: {why}")
    place, size = said[0], int(said[1])
    device.get(place, local)
    data = local.read_bytes()
    try:
        machine = read_elf(data, place).machine
    except BuildError as error:
        raise TransportError(f"{place} of {device.url} came damaged: {error}. Try again") from error
    if len(data) != size or machine != elf.MACHINES["aarch64"]:
        raise TransportError(f"{place} of {device.url} came damaged: {len(data)} bytes of {size}. Try again")


def _is_whole(root: Path) -> bool:
    try:
        sums = json.loads((root / _RECORD).read_text(encoding="utf-8"))["files"]
        return all(hashlib.sha256((root / name).read_bytes()).hexdigest() == sums[name] for name in _PLACES)
    except (OSError, ValueError, KeyError, TypeError):
        return False
