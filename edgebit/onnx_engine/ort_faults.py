"""What ONNX Runtime says when it fails, in our words: what is wrong, where, and how to mend it."""

import os
import re
import shlex

from edgebit.errors import OnnxError
from edgebit.onnx_engine.folder import DOMAIN, LIBRARY_NAME, LIBRARY_VARIABLE, OnnxFolder

INSTALL = "pip install 'edgebit[onnx]'"
LEAST_VERSION = {"contrib": (1, 19), "standard": (1, 24)}  # of ONNX Runtime, by whose operators the float parts are
TWO_BITS, FAST_TWO_BITS = (1, 24), (1, 28)  # that has MatMulNBits for 2 bits, and one that is fast
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|Fatal error: |\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z])"
)
_WORDS_MOST = 300  # of what ONNX Runtime says

_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|bad allocation", re.IGNORECASE)
_TOO_OLD = re.compile(
    r"Unsupported model IR version|under development and support for this is limited|No Op registered for"
    r"|is not a registered function/op|Could not find an implementation for|Unrecognized attribute"
    r"|No opset import for domain|type (?:parameter|inference)|Type Error",
    re.IGNORECASE,
)
_WEIGHTS = re.compile(r"external (?:data|initializer)|out of bounds|file size|mmap", re.IGNORECASE)
_OUTSIDE = re.compile(r"escapes .*model directory", re.IGNORECASE)
_PROTOBUF = re.compile(r"protobuf|failed to parse|ModelProto", re.IGNORECASE)


def check_version(version: str, folder: OnnxFolder, *, with_library: bool) -> None:
    """Raise OnnxError where ONNX Runtime of that version is older than what the folder runs by."""
    numbers = version_numbers(version)
    least = LEAST_VERSION.get(folder.ops, (1, 19))
    if numbers < least:
        raise _too_old(version, folder, f"its operators ({folder.ops}) need {least[0]}.{least[1]}")
    if folder.multiplies_two_bits(with_library=with_library) and numbers < TWO_BITS:
        way = f" Or give it {LIBRARY_NAME}, or export with --fallback exact" if folder.own_operators else ""
        raise _too_old(version, folder, f"its products of 2 bits need {TWO_BITS[0]}.{TWO_BITS[1]}", way)


def is_slow(version: str) -> bool:
    """Whether ONNX Runtime of that version has no fast kernel for products of 2 bits."""
    return version_numbers(version) < FAST_TWO_BITS


def version_numbers(version: str) -> tuple[int, ...]:
    """Of "1.19.2" or "1.24.0.dev20260101": the numbers at its front, (1, 19, 2)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def explain(error: Exception, folder: OnnxFolder, version: str) -> OnnxError:
    """The error for a graph that ONNX Runtime of that version does not load or run."""
    said = str(error)
    if isinstance(error, MemoryError) or _MEMORY.search(said):
        return OnnxError(
            f"{folder.path}: there is not enough memory to run it ({in_short(said)}). "
            "Give it a shorter context (--ctx; ctx_len of [engine]), "
            "or use the native engine, whose weights stay in the file"
        )
    if DOMAIN in said and ("registered" in said or "implementation" in said):
        return lacks_library(folder)
    if _TOO_OLD.search(said):
        return _too_old(version, folder, in_short(said))
    if _OUTSIDE.search(said) and (links := folder.outside_weights()):
        return OnnxError(
            f"{links[0]} is a link to {os.path.realpath(links[0])}, and ONNX Runtime {version} takes no weights from"
            f" outside the folder. Put the file itself in its place: cp --remove-destination"
            f" {shlex.quote(os.path.realpath(links[0]))} {shlex.quote(str(links[0]))}"
        )
    if _WEIGHTS.search(said):
        return OnnxError(
            f"{folder.path}: the weights beside model.onnx are damaged or of another model ({in_short(said)}). "
            "Copy the whole folder again, or export the model again"
        )
    if _PROTOBUF.search(said):
        return OnnxError(f"{folder.model_path} is damaged ({in_short(said)}). Copy it again, or export the model again")
    return OnnxError(
        f"{folder.model_path}: ONNX Runtime {version} cannot run it: {in_short(said)}. Export the model again"
    )


def lacks_library(folder: OnnxFolder) -> OnnxError:
    """The error for a folder whose operators nothing computes: no library, and no bodies in the file."""
    return OnnxError(
        f"{folder.model_path} needs {LIBRARY_NAME} for its operators of {DOMAIN}, and has no fallback for all. Export"
        " the model again on, or with --target for, this machine, or with --fallback compact; or name a library in"
        f" {LIBRARY_VARIABLE}"
    )


def explain_library(error: Exception, library: str, version: str) -> OnnxError:
    """The error for a library that ONNX Runtime of that version does not take."""
    return OnnxError(
        f"{library}: ONNX Runtime {version} does not register it: {in_short(str(error))}. "
        "Update ONNX Runtime: pip install -U onnxruntime, or export the model again"
    )


def _too_old(version: str, folder: OnnxFolder, why: str, way: str = "") -> OnnxError:
    opsets = ", ".join(f"{domain or 'ai.onnx'} {number}" for domain, number in sorted(folder.onnx.opsets.items()))
    way = way or (" Or export with --ops contrib" if folder.ops == "standard" else "")
    return OnnxError(
        f"ONNX Runtime {version} is too old for {folder.model_path} (IR {folder.onnx.ir_version}; {opsets}): {why}. "
        f"Update it: pip install -U onnxruntime.{way}"
    )


def in_short(said: str) -> str:
    """In one sentence on one line, without where in ONNX Runtime's sources it comes from, and not without end."""
    line = _NOISE.sub("", " ".join(said.split())).strip(" .").replace(". ", "; ")
    return line if len(line) <= _WORDS_MOST else line[:_WORDS_MOST] + "..."
