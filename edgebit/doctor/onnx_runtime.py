"""ONNX Runtime, an option: whether it is there, computes our operators right, and runs a folder by the fast kernel."""

import importlib.util
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from edgebit.doctor.finding import Finding, State, of_error
from edgebit.elf import MACHINES, machine_name, read_elf
from edgebit.errors import BuildError, OnnxError
from edgebit.onnx_engine.binding import NO_LIBRARY, OperatorLibrary
from edgebit.onnx_engine.file_faults import no_file, unreadable
from edgebit.onnx_engine.folder import DOMAIN, DOMAIN_VERSION, LIBRARY_NAME, OnnxFolder
from edgebit.onnx_engine.ort_faults import (
    FAST_TWO_BITS,
    INSTALL,
    LEAST_VERSION,
    check_version,
    is_slow,
    version_numbers,
)
from edgebit.onnx_engine.session import OnnxSession, failures, import_onnxruntime, usable_operators
from edgebit.resources import ort_library

GROUP = "ONNX Runtime (an option)"
FOLDER_GROUP = "the ONNX folder"

_LEAST = LEAST_VERSION["contrib"]
_IR_VERSION, _OPSET = 8, 18  # that the oldest ONNX Runtime reads
_TERNARY_K, _INT8_K, _ROWS = 64, 16, 4
_EXPORT = "export again on the machine that runs it, or with --target for it"
_MEANING = {
    "compact": "close to the model, and as fast as ONNX Runtime's own two-bit products",
    "exact": "the same products as with the library, slower, in about 17 times the memory",
    "none": "there is none: without the library the folder does not run",
}


def check_onnx_runtime() -> list[Finding]:
    """What a machine has of it. That it is not there is no fault."""
    try:
        runtime = import_onnxruntime()
    except OnnxError as error:
        if importlib.util.find_spec("onnxruntime") is not None:
            return [of_error(GROUP, "onnxruntime", error)]
        return [_found("onnxruntime", "ok", "not installed; folders of `edgebit export onnx` need it", INSTALL)]
    return [_version(runtime), *_operators(runtime)]


def check_onnx_folder(path: Path) -> list[Finding]:
    """Whether a folder is whole, for which machine its library is, and whether the fast kernel runs it here."""
    try:
        folder = OnnxFolder.open(path)
    except OnnxError as error:
        return [of_error(FOLDER_GROUP, "graph", error)]
    metadata = folder.onnx.metadata
    said = f"{folder.source}, written by edgebit {metadata['edgebit.version']}, ops {folder.ops}"
    return [
        _in_folder("graph", "ok", said),
        _sums(folder),
        library := _library(folder),
        *_fallback(folder),
        _kernel(folder, is_foreign=library.state == "warn" and folder.library_path.is_file()),
    ]


def _found(name: str, state: State, detail: str, mend: str = "") -> Finding:
    return Finding(GROUP, name, state, detail, mend)


def _in_folder(name: str, state: State, detail: str, mend: str = "") -> Finding:
    return Finding(FOLDER_GROUP, name, state, detail, mend)


def _version(runtime: ModuleType) -> Finding:
    version: str = runtime.__version__
    if version_numbers(version) >= _LEAST:
        return _found("onnxruntime", "ok", version)
    need = ".".join(map(str, _LEAST))
    return _found("onnxruntime", "warn", f"{version}, folders need {need} or later", "pip install -U onnxruntime")


# ---- our operators ----


def _operators(runtime: ModuleType) -> Iterator[Finding]:
    """The library of this machine, and what it computes."""
    try:
        library = OperatorLibrary.load(ort_library())
    except OnnxError as error:
        yield of_error(GROUP, "library of operators", error, "warn")
        return
    yield _found("library of operators", "ok", f"{library.version}, {library.path}")
    name = "its kernels"
    made = library.kernels()
    try:
        wrong = _wrong_products(runtime, library.path)
    except ModuleNotFoundError as error:
        yield _found(name, "unknown", f"no graph can be written to try them: {error.name} is not installed", INSTALL)
        return
    except failures(runtime) as error:
        yield _found(name, "fail", f"ONNX Runtime does not take them: {' '.join(str(error).split())[:300]}")
        return
    made = library.kernels() - made
    if wrong:
        yield _found(name, "fail", wrong, "report it with this machine's CPU: other results than these are wrong too")
    elif made < 2:
        yield _found(name, "fail", f"{made} of 2 are bound: others computed in their place", "build the library again")
    else:
        yield _found(name, "ok", "both are bound, and compute what they must")


def _wrong_products(runtime: ModuleType, library: Path) -> str:
    """What the two operators compute that they must not, of whole numbers that no rounding touches; empty: nothing."""
    import numpy as np

    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library))
    ternary = [[(row + 2 * column) % 3 - 1 for column in range(_TERNARY_K)] for row in range(_ROWS)]
    wide = [[(5 * row + 3 * column) % 7 - 3 for column in range(_INT8_K)] for row in range(_ROWS)]
    session = runtime.InferenceSession(_graph(ternary, wide), options, providers=["CPUExecutionProvider"])
    # The largest is the number that a rounding scale makes of it: 127 of 8 bits, 127 * 128 of 15.
    x = [127, *(column % 255 - 127 for column in range(1, _TERNARY_K))]
    z = [16256, *(97 * column % 301 - 150 for column in range(1, _INT8_K))]
    found = session.run(None, {name: np.array([row], np.float32) for name, row in (("x", x), ("z", z))})
    for operator, weights, row, output in (("TernaryMatMul", ternary, x, found[0]), ("Int8MatMul", wide, z, found[1])):
        must = [0.5 * sum(w * value for w, value in zip(line, row, strict=True)) for line in weights]
        if output[0].tolist() != must:
            return f"{operator} gives {output[0].tolist()}, and must give {must}"
    return ""


def _graph(ternary: list[list[int]], wide: list[list[int]]) -> bytes:
    """x and z through one operator each, with scales of 0.5."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, Any] = {
        "ternary": np.array(n2_tiles(ternary), np.uint8).reshape(1, 1, 1, 4, 16),
        "wide": np.array(wide, np.int16).astype(np.uint8) + np.uint8(128),
        "half": np.array([0.5], np.float32),
        "halves": np.full(_ROWS, 0.5, np.float32),
    }
    floats = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("x", _TERNARY_K), ("z", _INT8_K), ("y", _ROWS), ("w", _ROWS))
    }
    nodes = [
        helper.make_node("TernaryMatMul", ["x", "ternary", "half"], ["y"], domain=DOMAIN, K=_TERNARY_K, N=_ROWS),
        helper.make_node("Int8MatMul", ["z", "wide", "halves"], ["w"], domain=DOMAIN, K=_INT8_K, N=_ROWS),
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "doctor", [floats["x"], floats["z"]], [floats["y"], floats["w"]], weights)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString()
    return model


def n2_tiles(rows: Sequence[Sequence[int]]) -> list[int]:
    """One tile of layout n2 (docs/onnx.md): 16 bytes of each row, four columns a byte, the lowest bits first."""
    return [
        sum((row[column + field] + 2) << 2 * field for field in range(4))
        for row in rows
        for column in range(0, len(row), 4)
    ]


# ---- a folder ----


def _sums(folder: OnnxFolder) -> Finding:
    try:
        names = folder.verify()
    except OnnxError as error:
        return of_error(FOLDER_GROUP, "files", error)
    if not names:
        return _in_folder("files", "unknown", "model.onnx has no sums of them; their sizes are right")
    return _in_folder("files", "ok", f"as model.onnx has their sums: {', '.join(names)}")


def _library(folder: OnnxFolder) -> Finding:
    name = "its library"
    if not folder.own_operators:
        return _in_folder(name, "ok", "none is needed: the graph has no operators of ours")
    if other := no_file(folder.library_path):
        return _in_folder(name, "fail", f"{folder.library_path} {other}", f"put the library in its place: {_EXPORT}")
    if not folder.library_path.is_file():
        return _in_folder(
            name, "warn", f"there is no {LIBRARY_NAME}", "export again on, or with --target for, the device"
        )
    try:
        machine = read_elf(folder.library_path.read_bytes(), str(folder.library_path)).machine
    except OSError as error:
        return of_error(FOLDER_GROUP, name, unreadable(folder.library_path, error, _EXPORT))
    except BuildError as error:
        return of_error(FOLDER_GROUP, name, error)
    said, here = f"for {machine_name(machine)}", platform.machine()
    if here in MACHINES and MACHINES[here] != machine:
        return _in_folder(name, "warn", f"{said}, this machine is {here}", _EXPORT)
    return _in_folder(name, "ok", said)


def _fallback(folder: OnnxFolder) -> Iterator[Finding]:
    """What stands in for our operators, where the graph has any, and whether this ONNX Runtime is good for it."""
    if not folder.own_operators:
        return
    name = "without the library"
    version = _installed_version()
    said = f"{folder.fallback}: {_MEANING.get(folder.fallback, 'not known')}"
    try:
        if version is not None:
            check_version(version, folder, with_library=False)
    except OnnxError as error:
        yield of_error(FOLDER_GROUP, name, error, "warn")
        return
    if version is not None and folder.multiplies_two_bits(with_library=False) and is_slow(version):
        fast = ".".join(map(str, FAST_TWO_BITS))
        said = f"{folder.fallback}: close to the model, and slow: ONNX Runtime {version} multiplies two bits slowly"
        yield _in_folder(name, "warn", said, f"pip install -U onnxruntime, which is fast from {fast} on")
    else:
        yield _in_folder(name, "ok", said)


def _kernel(folder: OnnxFolder, *, is_foreign: bool) -> Finding:
    """Load the graph as a runner would, and see whose kernels were made.

    is_foreign: the folder's library is another machine's: that it does not run here says nothing of the fast kernel
    """
    name = "fast kernel"
    try:
        session = OnnxSession.open(folder, threads=1)
    except OnnxError as error:
        return of_error(FOLDER_GROUP, name, error, "unknown" if is_foreign and _runs_without(folder) else "fail")
    if session.binding.note is None:
        said = "none is needed" if session.binding.state == "none" else f"bound, from {session.binding.library}"
        return _in_folder(name, "ok", f"{said} (ONNX Runtime {session.version})")
    detail, _, mend = session.binding.note.partition(". ")
    return _in_folder(name, "warn", detail, mend or _EXPORT)


def _runs_without(folder: OnnxFolder) -> bool:
    """Whether this machine's ONNX Runtime takes the folder without its library."""
    version = _installed_version()
    try:
        return version is not None and usable_operators(folder, version, NO_LIBRARY) is None
    except OnnxError:
        return False


def _installed_version() -> str | None:
    """Of ONNX Runtime; None where it is not there, or cannot be loaded."""
    try:
        version: str = import_onnxruntime().__version__
    except OnnxError:
        return None
    return version
