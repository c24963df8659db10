"""Service: a checkpoint becomes a bundle for a target: native files and their checks, daemon, model, probes, archive.

Nothing half-made is left: all is made in a hidden folder beside the bundle that goes away at any end (after SIGKILL, as
the same bundle is built again), and the bundle itself is written as .part and renamed.
"""

import errno
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from edgebit import __version__
from edgebit.artifacts import (
    check_library,
    check_program,
    header_abi_version,
    header_exports,
    read_header,
    require,
)
from edgebit.bundle.archive import hash_file, looks_like_bundle, write_archive
from edgebit.bundle.manifest import (
    DAEMON_MEMBER,
    LIBRARY_MEMBER,
    MODEL_MEMBER,
    ORT_LIBRARY_MEMBER,
    RUNNER_MEMBER,
    SERVICE_MEMBER,
    BuildInfo,
    Manifest,
    ModelInfo,
    TargetInfo,
)
from edgebit.bundle.model_format import MAGIC
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.part_file import check_place
from edgebit.bundle.work_folder import work_folder
from edgebit.checkpoint.hints import HINT_OPTIONS, NO_HINTS, Hints
from edgebit.checkpoint.opening import find_gguf, model_files, open_checkpoint
from edgebit.checks import Check
from edgebit.convert import convert
from edgebit.cross.native import NativeFiles, build_native, needed_toolchain
from edgebit.cross.ort_library import check_ort_file, require_ort_library
from edgebit.errors import BuildError
from edgebit.instructions import check_instructions
from edgebit.keys import Signing
from edgebit.probe_runs import check_model_probes
from edgebit.pyz import build_pyz
from edgebit.resources import ORT_SONAME, package_dir
from edgebit.roofline import choose_layout
from edgebit.targets import Target

_PROBES_FAILED = (
    "the engine for the target does not compute what this machine's engine did when it made the golden probes:",
    "No bundle was written. If kernels/ was changed, this machine's library is older than its sources: build it again"
    " (README.md). A model file from elsewhere: convert its checkpoint again. Otherwise a toolchain at fault: try"
    " another --builder",
)


class Listener(Protocol):
    """Is told what a build does; the command line shows it."""

    def stage(self, name: str) -> None:
        """A part of the work begins, and the one before has ended."""

    def progress(self, done: int, total: int) -> None:
        """How far the stage is, in units of its own."""

    def note(self, text: str) -> None:
        """A fact worth a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """What to build."""

    model: Path  # a checkpoint's folder or GGUF file, or a model file
    target: Target
    out: Path
    builder: str = "auto"
    layout: Literal["auto", "t2", "t1"] = "auto"  # of ternary weights; auto: what decode is fastest with on the target
    embedding: Literal["exact", "int8"] = "exact"
    hints: Hints = NO_HINTS  # of the checkpoint
    template: str | None = None  # a chat template in the place of the checkpoint's: a name, a file, or "none"
    onnx_library: bool = False  # also the operators for ONNX Runtime
    name: str | None = None  # of the bundle; None: of its file
    force: bool = False  # replace a bundle that is there
    signing: Signing | None = None  # None: the bundle is not signed


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What was built."""

    out: Path
    bundle_id: str
    size: int  # bytes of the bundle
    manifest: Manifest
    native_from_cache: bool
    checks: tuple[Check, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)  # stage -> time
    signed_by: tuple[str, ...] = ()  # ids of keys

    @property
    def bits_per_weight(self) -> float | None:
        """Of the whole model file, embedding, head and tokenizer included; None where the weights were not counted."""
        weights = self.manifest.model.parameters
        return 8 * self.manifest.files[MODEL_MEMBER].size / weights if weights else None


def default_out(model: Path, target: Target) -> Path:
    """NAME-TARGET.bundle in the working folder, NAME being the checkpoint's folder or the model file."""
    stem = model.resolve().name if model.is_dir() else model.stem
    return Path(f"{_plain_name(stem)}-{target.name}.bundle")


def build_bundle(options: BuildOptions, listener: Listener) -> BuildResult:
    """Build the bundle and check it on the way.

    Raises CheckpointError, TargetError, BuildError or BundleError; then nothing is left behind.
    """
    out, target = options.out, options.target
    clock = _StageClock(listener)
    with _clear_errors(out), _work_folder(options) as work:
        # What can be said now is not said after minutes of converting.
        _check_model(options)
        toolchain = needed_toolchain(target, options.builder)
        clock.begin("model")
        model = _model_file(options, work, listener)
        info = _model_info(model)

        clock.begin("native files")
        native = build_native(target, options.builder, toolchain=toolchain, report=listener.note)
        clock.begin("artifact checks")
        checks = check_native(native, target)
        if options.onnx_library:
            found = check_ort_file(require_ort_library(native), target)
            checks += [Check(f"{ORT_SONAME}: {check.name}", check.status, check.detail) for check in found]
        require(
            checks,
            f"what {native.builder} built does not hold what the target promises:",
            "No bundle was written. A toolchain at fault: try another --builder",
        )

        clock.begin("daemon")
        daemon = work / DAEMON_MEMBER
        build_pyz(daemon)

        clock.begin("golden probes")
        if native.runner is not None:
            probes = check_model_probes(native.runner, model, model.stat().st_size, target)
            require(probes, *_PROBES_FAILED)
            checks += probes
        else:
            checks.append(Check("probes", "not run", "the installed edgebit has no edgebit-run"))

        clock.begin("bundle")
        sources = {
            MODEL_MEMBER: model,
            LIBRARY_MEMBER: native.library,
            DAEMON_MEMBER: daemon,
            SERVICE_MEMBER: package_dir() / "daemon" / "install" / "edgebit-daemon.service",
        }
        if native.runner is not None:
            sources[RUNNER_MEMBER] = native.runner
        if options.onnx_library:
            sources[ORT_LIBRARY_MEMBER] = require_ort_library(native)
        total = 2 * sum(path.stat().st_size for path in sources.values())
        count = _Counter(total, listener)
        manifest = Manifest(
            name=_plain_name(options.name or out.name.removesuffix(".bundle")),
            edgebit=__version__,
            abi=header_abi_version(read_header()),
            target=TargetInfo(
                name=target.name,
                triple=target.triple,
                features=target.features,
                libc_floor="",  # the native files are checked to need no glibc
            ),
            model=info,
            build=BuildInfo(
                builder=native.builder,
                compiler=native.compiler,
                toolchain_id=native.toolchain_id,
                checks={check.name: f"{check.status}: {check.detail}" for check in checks},
            ),
            files={name: hash_file(path, count) for name, path in sources.items()},
            release=options.signing.release if options.signing else None,
        )
        sign = options.signing.sign if options.signing else None
        identity = write_archive(out, manifest, sources, count, sign=sign)
    return BuildResult(
        out=out,
        bundle_id=identity,
        size=out.stat().st_size,
        manifest=manifest,
        native_from_cache=native.from_cache,
        checks=tuple(checks),
        seconds=clock.end(),
        signed_by=tuple(key.public.id for key in options.signing.keys) if options.signing else (),
    )


def check_native(native: NativeFiles, target: Target) -> list[Check]:
    """All checks of the native files that need no model."""
    checks = check_library(native.library.read_bytes(), target, header_exports(read_header()))
    checks.append(check_instructions(native.library, target))
    if native.runner is not None:
        program = check_program(native.runner.read_bytes(), target)
        checks += [Check(f"edgebit-run: {check.name}", check.status, check.detail) for check in program]
    return checks


def _check_model(options: BuildOptions) -> None:
    model = options.model
    if not model.is_file() or find_gguf(model) is not None:
        open_checkpoint(model, options.hints).close()
        return
    if looks_like_bundle(model):
        raise BuildError(f"{model} is a bundle. Give a checkpoint's folder or GGUF file, or a model file")
    with model.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise BuildError(f"{model} is neither a checkpoint's folder or GGUF file nor a model file")
    if options.embedding != "exact":
        raise BuildError(f"{model} is a model file, whose embedding stays as it is. Leave --embedding out")
    if options.layout != "auto":
        raise BuildError(f"{model} is a model file, whose layout stays as it is. Leave --layout out")
    if options.hints != NO_HINTS:
        raise BuildError(f"{model} is a model file. Leave {HINT_OPTIONS} out")
    if options.template is not None:
        raise BuildError(f"{model} is a model file, whose chat template stays as it is. Leave --template out")


def _model_file(options: BuildOptions, work: Path, listener: Listener) -> Path:
    model = options.model
    if model.is_file() and find_gguf(model) is None:
        listener.note(f"{model} is a model file and taken as it is")
        with ModelFile(model) as file:
            file.verify()  # golden probes read few rows of the embedding: a spoilt one would pass them
            if file.content("TOKN") is None:
                listener.note(f"{model} has no tokenizer: it takes token ids only, and a daemon cannot answer with it")
        return model
    converted = work / MODEL_MEMBER
    if options.layout == "auto":
        choice = choose_layout(options.target)
        layout = choice.layout
        more = " (edgebit plan says why)" if choice.is_estimated else ""
        listener.note(f"layout {layout}: {choice.summary}{more}")
    else:
        layout = options.layout
    report = convert(
        model,
        converted,
        layout=layout,
        embedding=options.embedding,
        hints=options.hints,
        template=options.template,
        progress=lambda _, done, total: listener.progress(done, total),
    )
    listener.note(f"converted {report.name} ({report.family}), {report.n_probes} golden probes")
    for note in report.notes:
        listener.note(note)
    return converted


def _model_info(model: Path) -> ModelInfo:
    with ModelFile(model) as file:
        meta = file.meta
        return ModelInfo(
            name=str(meta.get("name") or "model"),
            family=str(meta.get("family") or ""),
            parameters=file.conf.parameters,
            context_max=file.conf.context_max,
            vocab_size=file.conf.vocab_size,
            licence=str(meta.get("licence") or ""),
        )


def _plain_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64]
    return name or "model"


@contextmanager
def _work_folder(options: BuildOptions) -> Iterator[Path]:
    """A folder on the bundle's own disk, gone at the end whatever happens. Raises BuildError for a wrong `out`."""
    out = options.out
    template = [Path(options.template)] if options.template is not None else []
    inputs = [*model_files(options.model, options.hints), *template]
    check_place(out, BuildError, force=options.force, example="NAME.bundle", inputs=inputs)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(work_folder(out))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise BuildError(f"--out {out}: nothing can be made there: {error.strerror}. Give another place") from error
        yield folder


@contextmanager
def _clear_errors(out: Path) -> Iterator[None]:
    """A full or read-only disk, and names that it does not take, in words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(out.parent).free >> 20
            raise BuildError(
                f"the disk of {out.parent} is full ({free} MiB free). A build needs twice the model's size there: make"
                " room, or give --out on another disk"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG):
            raise BuildError(f"{error.filename or out}: {error.strerror}. Give another --out") from error
        raise


class _StageClock:
    """Times the stages and tells the listener of each."""

    def __init__(self, listener: Listener, now: Callable[[], float] = time.monotonic) -> None:
        self._listener, self._now = listener, now
        self._seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._began = 0.0

    def begin(self, stage: str) -> None:
        self.end()
        self._stage, self._began = stage, self._now()
        self._listener.stage(stage)

    def end(self) -> dict[str, float]:
        if self._stage is not None:
            self._seconds[self._stage] = self._now() - self._began
            self._stage = None
        return self._seconds


class _Counter:
    """Adds bytes up and tells the listener."""

    def __init__(self, total: int, listener: Listener) -> None:
        self._total, self._done, self._listener = total, 0, listener

    def __call__(self, done: int) -> None:
        self._done += done
        self._listener.progress(self._done, self._total)
