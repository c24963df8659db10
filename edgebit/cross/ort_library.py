"""libedgebit_ort.so for a target: with it, ONNX Runtime runs an exported folder on the engine's micro-kernels."""

from pathlib import Path

from edgebit.artifacts import check_ort_library, header_exports, read_ort_header, require
from edgebit.checks import Check
from edgebit.cross.native import NativeFiles, Report, build_native
from edgebit.errors import BuildError, OnnxError
from edgebit.instructions import check_instructions
from edgebit.resources import ORT_SONAME, ort_library
from edgebit.targets import Target


def build_ort_library(target: Target, builder: str = "auto", *, report: Report = lambda _: None) -> Path:
    """The library for `target`, checked: of the installed edgebit for the host, cross-built and cached for others.

    Raises BuildError where it cannot be built here, saying what to install, or does not hold what the target promises.
    """
    native = build_native(target, builder, report=report)
    library = require_ort_library(native)
    require(
        check_ort_file(library, target),
        f"{ORT_SONAME} built by {native.builder} does not hold what the target promises:",
        "A toolchain at fault: try another --builder",
    )
    return library


def require_ort_library(native: NativeFiles) -> Path:
    """That of `native`. Raises BuildError where the installed edgebit has none, saying why."""
    if native.ort_library is not None:
        return native.ort_library
    try:
        return ort_library()
    except OnnxError as missing:
        raise BuildError(f"{missing}; or compile it anew: --builder system, or --builder zig") from missing


def check_ort_file(path: Path, target: Target) -> list[Check]:
    """All checks of the file, and of its instructions."""
    exports = header_exports(read_ort_header())
    return [*check_ort_library(path.read_bytes(), target, exports), check_instructions(path, target)]
