"""Service: everything that can be checked of a bundle on this machine, without trusting the one who built it."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edgebit.artifacts import (
    check_library,
    check_ort_library,
    check_program,
    header_abi_version,
    header_exports,
    read_header,
    read_ort_header,
)
from edgebit.bundle.archive import Bundle, Member, Progress, hash_file, open_bundle
from edgebit.bundle.manifest import (
    DAEMON_MEMBER,
    LIBRARY_MEMBER,
    MODEL_MEMBER,
    ORT_LIBRARY_MEMBER,
    RUNNER_MEMBER,
    SERVICE_MEMBER,
    Manifest,
)
from edgebit.bundle.model_reader import ModelFile
from edgebit.checks import Check
from edgebit.cross.native import build_native
from edgebit.cross.toolchain import BUILDERS
from edgebit.errors import BuildError, BundleError, EngineError, TargetError
from edgebit.instructions import check_instructions
from edgebit.keys import check_signature, list_keys
from edgebit.model_checks.response_schema import check_response_schema
from edgebit.probe_runs import check_model_probes, check_must_crash, check_refusal
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.targets import ARCH_FEATURES, Target, find_target, host_target

_EXPECTED = (MODEL_MEMBER, LIBRARY_MEMBER, DAEMON_MEMBER, SERVICE_MEMBER)


@dataclass(frozen=True, slots=True)
class Group:
    """The checks of one thing."""

    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; `manifest` and `bundle_id` are None where not even the structure could be read."""

    bundle_id: str | None
    manifest: Manifest | None
    groups: tuple[Group, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        """All of them."""
        return tuple(check for group in self.groups for check in group.checks)

    @property
    def ok(self) -> bool:
        """Whether no check failed. Some may not have run: each says why."""
        return not any(check.status == "failed" for check in self.checks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How far to go."""

    run: bool = True  # execute the bundle's own programs, emulated or not; never where a check before failed
    rebuild: bool = False  # compile its native files again
    builder: str | None = None  # to rebuild with; None: the one that the manifest names


_DEFAULT_EXTENT = Extent()


def verify_bundle(path: Path, extent: Extent = _DEFAULT_EXTENT, *, progress: Progress = lambda done: None) -> Report:
    """Check structure, sums, model, native files, and what they do, of the bundle at `path`.

    What is wrong with the bundle is in the report; an error is raised only for what is wrong with this machine.
    """
    try:
        bundle = open_bundle(path)
    except BundleError as error:
        return Report(None, None, (Group("bundle", (Check("structure", "failed", str(error)),)),))
    whole = [Check("structure", "passed", f"{len(bundle.members)} files, all in the manifest"), _check_parts(bundle)]
    whole += [check_signature(bundle, list_keys(), datetime.now(UTC)), *_check_sums(bundle, progress)]
    target = target_of(bundle.manifest)
    if target is None:
        text = f"{bundle.manifest.target.triple} is none that edgebit builds for"
        whole.append(Check("target", "failed", text))
        return Report(bundle.id, bundle.manifest, (Group("bundle", tuple(whole)),))
    groups = [
        Group("bundle", tuple(whole)),
        *_check_native(bundle, target),
        Group("model", tuple(_check_model(bundle))),
    ]
    sound = Report(bundle.id, bundle.manifest, tuple(groups)).ok
    groups.append(Group("at work", tuple(_check_at_work(bundle, target, extent.run and sound))))
    groups.append(Group("reproducible", (_check_rebuild(bundle, target, extent),)))
    return Report(bundle.id, bundle.manifest, tuple(group for group in groups if group.checks))


def _check_parts(bundle: Bundle) -> Check:
    missing = [name for name in _EXPECTED if name not in bundle.members]
    if missing:
        return Check("parts", "failed", f"it holds no {', '.join(missing)}")
    abi = header_abi_version(read_header())
    if bundle.manifest.abi != abi:
        return Check("parts", "failed", f"made for ABI {bundle.manifest.abi}, this edgebit has {abi}. Build it again")
    return Check("parts", "passed", "model, library, daemon and service")


def _check_sums(bundle: Bundle, progress: Progress) -> list[Check]:
    checks = []
    for name in sorted(bundle.members):
        try:
            bundle.verify_member(name, progress)
        except BundleError as error:
            checks.append(Check(f"SHA-256 of {name}", "failed", str(error)))
        else:
            checks.append(Check(f"SHA-256 of {name}", "passed", bundle.manifest.files[name].sha256[:16]))
    return checks


def target_of(manifest: Manifest) -> Target | None:
    """The target the bundle was built for: the one that ships under its name, or any of the same triple."""
    said = manifest.target
    if said.name == host_target().name and said.triple == host_target().triple:
        return host_target()
    if said.arch not in ARCH_FEATURES:
        return None
    is_android = said.triple.endswith("-android")
    stand_in = "android" if is_android else f"linux-{said.arch}"
    try:
        target = find_target(said.name)
    except TargetError:
        target = find_target(stand_in)
    if target.arch != said.arch or target.is_android != is_android:
        target = find_target(stand_in)
    return dataclasses.replace(target, name=said.name, triple=said.triple, features=said.features)


def _check_native(bundle: Bundle, target: Target) -> list[Group]:
    judges: dict[str, Callable[[bytes], list[Check]]] = {
        LIBRARY_MEMBER: lambda data: check_library(data, target, header_exports(read_header())),
        ORT_LIBRARY_MEMBER: lambda data: check_ort_library(data, target, header_exports(read_ort_header())),
    }
    groups = []
    for member, judge in judges.items():
        if member not in bundle.members:
            continue
        checks = _guarded("ELF file", partial(judge, _bytes(bundle, member)))
        with member_as_file(bundle, member) as library:
            checks.append(check_instructions(library, target))
        groups.append(Group(member, tuple(checks)))
    if RUNNER_MEMBER in bundle.members:
        checks = _guarded("ELF file", lambda: check_program(_bytes(bundle, RUNNER_MEMBER), target))
        groups.append(Group(RUNNER_MEMBER, tuple(checks)))
    return groups


def _guarded(name: str, run: Callable[[], list[Check]]) -> list[Check]:
    try:
        return run()
    except BuildError as error:
        return [Check(name, "failed", str(error))]


def _check_model(bundle: Bundle) -> list[Check]:
    if MODEL_MEMBER not in bundle.members:
        return []
    place = bundle.member(MODEL_MEMBER)
    checks = []
    try:
        with ModelFile(place.path, place.offset, place.size) as file:
            n_probes, context = len(file.probes), file.probe_context
            text = f"header, sections and tensor table; {n_probes} golden probes"
            checks += [Check("model file", "passed", text), *check_response_schema(file)]
        checks.append(_check_on_host(place, n_probes, context))
    except BundleError as error:
        checks.append(Check("model file", "failed", str(error)))
    return checks


def _check_at_work(bundle: Bundle, target: Target, may_run: bool) -> list[Check]:
    """The bundle's own edgebit-run and library, emulated or on this machine."""
    name = "probes on the target"
    if missing := [name for name in (RUNNER_MEMBER, MODEL_MEMBER, LIBRARY_MEMBER) if name not in bundle.members]:
        return [Check(name, "not run", f"the bundle holds no {missing[0]}")]
    if not may_run:
        text = "not asked for, or a check before it failed: then nothing of the bundle is executed"
        return [Check(name, "not run", text)]
    size = bundle.member(MODEL_MEMBER).size
    with member_as_file(bundle, RUNNER_MEMBER) as runner:
        checks = check_model_probes(runner, bundle.path, size, target, every_level=True)
        checks.append(check_refusal(runner, target))
    return [*checks, *check_must_crash(_bytes(bundle, LIBRARY_MEMBER), target)]


def _check_rebuild(bundle: Bundle, target: Target, extent: Extent) -> Check:
    """Whether this edgebit's sources give the same native files; other sources or another compiler judge nothing."""
    name = "same bytes again"
    build = bundle.manifest.build
    builder = extent.builder or build.builder
    if not extent.rebuild:
        return Check(name, "not run", "--rebuild compiles the native files again and compares")
    if builder not in BUILDERS:
        return Check(name, "not run", f"builder {build.builder!r}: its compiler is not on record. --builder names one")
    try:
        native = build_native(target, builder, fresh=True)
    except BuildError as error:
        return Check(name, "not run", str(error))
    built = {
        LIBRARY_MEMBER: native.library, ORT_LIBRARY_MEMBER: native.ort_library, RUNNER_MEMBER: native.runner
    }  # fmt: skip
    differing = [
        member
        for member, path in built.items()
        if path is not None
        and member in bundle.members
        and hash_file(path).sha256 != bundle.manifest.files[member].sha256
    ]
    if not differing:
        files = ", ".join(Path(member).name for member in built if member in bundle.members)
        return Check(name, "passed", f"{files}: by {native.builder} ({native.compiler})")
    if native.toolchain_id == build.toolchain_id:
        return Check(name, "failed", f"{' and '.join(differing)}: other bytes from the same sources and compiler")
    if native.compiler != build.compiler:
        return Check(name, "not run", f"built by {build.compiler}; here is {native.compiler}, which gives other bytes")
    return Check(name, "not run", f"built from other sources than those of this edgebit ({bundle.manifest.edgebit})")


def _check_on_host(place: Member, n_probes: int, context: int) -> Check:
    """Weights and probes with this machine's engine."""
    name = "model on this machine's engine"
    try:
        library = Library.load()
    except EngineError as error:
        return Check(name, "not run", str(error))
    with Model.open(library, place.path, offset=place.offset, size=place.size) as model:
        model.verify()
        if n_probes == 0:
            return Check(name, "passed", "every weight is sound")
        with Engine(model, ctx_len=context) as engine:
            ran = engine.check_probes()
    return Check(name, "passed", f"every weight is sound, {ran} golden probes bit for bit ({library.isa})")


def _bytes(bundle: Bundle, name: str) -> bytes:
    """A member as it is; its sum has been judged already."""
    place = bundle.member(name)
    with place.path.open("rb") as file:
        file.seek(place.offset)
        return file.read(place.size)


@contextmanager
def member_as_file(bundle: Bundle, name: str) -> Iterator[Path]:
    """A passing copy of a member, executable: a tar has no files of their own, and a folder may forbid to execute."""
    with tempfile.TemporaryDirectory(prefix="edgebit-verify-") as folder:
        place = bundle.member(name)
        copy = Path(folder) / Path(name).name
        left = place.size
        try:
            with place.path.open("rb") as source, copy.open("wb") as sink:
                source.seek(place.offset)
                while left and (chunk := source.read(min(1 << 20, left))):
                    sink.write(chunk)
                    left -= len(chunk)
        except OSError as error:
            raise BundleError(
                f"{name} cannot be copied to {folder} for its checks: {error.strerror}. Make room there, or name"
                " another folder in the environment's TMPDIR"
            ) from error
        copy.chmod(0o700)
        yield copy
