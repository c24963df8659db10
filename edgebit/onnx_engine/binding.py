"""The library of our operators for ONNX Runtime: which file, whether it fits this machine, and whether it is used.

A session says nothing of whose kernel runs. The library counts the kernels that it has made in this process
(edgebit_ort_kernels): a session that was given it and made none runs the bodies in the file instead.
"""

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from edgebit.elf import MACHINES, machine_name, read_elf
from edgebit.errors import BuildError, OnnxError
from edgebit.onnx_engine.file_faults import no_file, unreadable
from edgebit.onnx_engine.folder import LIBRARY_NAME, LIBRARY_VARIABLE, OnnxFolder
from edgebit.onnx_engine.ort_faults import FAST_TWO_BITS, in_short

NO_LIBRARY = "none"  # in the place of a path: run without one
_REGISTER = "RegisterCustomOps"

State = Literal["bound", "fallback", "none"]


@dataclass(frozen=True, slots=True)
class Binding:
    """Whose kernels run a folder's ternary products."""

    state: State  # ours, the bodies in the file, or the graph has none of our operators
    library: Path | None  # that was registered
    fallback: str  # which body the file has: "compact", "exact" or "none"
    is_slow: bool  # whether products of 2 bits run on an ONNX Runtime that has no fast kernel for them

    @property
    def note(self) -> str | None:
        """What to tell a user where no fast kernel runs; None where nothing is amiss."""
        slow = (
            f" This ONNX Runtime multiplies 2 bits slowly; from {FAST_TWO_BITS[0]}.{FAST_TWO_BITS[1]} on it is fast."
            if self.is_slow
            else ""
        )
        if self.state != "fallback":
            return slow.strip() or None
        why = "made no kernel" if self.library else "is not there, or not wanted"
        return (
            f"the fallback {self.fallback!r} runs, not the fast kernel: {self.library or LIBRARY_NAME} {why}. "
            f"{_MEANING.get(self.fallback, '')}{slow}"
        )


_MEANING = {
    "compact": "Its answers may differ from edgebit's engine: activations are rounded otherwise.",
    "exact": "Its products are those of edgebit's engine, slower, and take about 17 times the memory.",
}


class OperatorLibrary:
    """libedgebit_ort, loaded and looked at, for a session to register."""

    def __init__(self, path: Path, dll: ctypes.CDLL) -> None:
        self.path = path
        self._kernels = dll.edgebit_ort_kernels
        self._kernels.restype = ctypes.c_uint64
        self._version = dll.edgebit_ort_version
        self._version.restype = ctypes.c_char_p

    @classmethod
    def load(cls, path: Path, *, by_option: bool = False) -> Self:
        """Load the library at `path`; by_option: --library names it, which the environment does not overrule.

        Raises OnnxError where it is missing, for another architecture, damaged, or no library of our operators.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error, _way_without(by_option)) from error
        if platform.system() == "Linux":
            _check_elf(data, path, _way_to_build(by_option))
        try:
            return cls(path, ctypes.CDLL(str(path.resolve())))
        except OSError as error:
            raise OnnxError(f"{path} cannot be loaded: {in_short(str(error))}. {_way_to_build(by_option)}") from error
        except AttributeError as error:
            raise OnnxError(
                f"{path} is not edgebit's library of operators ({error}). {_way_to_build(by_option)}"
            ) from error

    @property
    def version(self) -> str:
        """The version of edgebit that it was built from."""
        version: bytes = self._version()
        return version.decode()

    def kernels(self) -> int:
        """How many kernels it has made in this process."""
        return int(self._kernels())


def find_library(folder: OnnxFolder, named: str | None) -> Path | None:
    """The library for a folder: the one named, EDGEBIT_ORT_LIBRARY's, or the folder's own; None: there is none.

    named: a path, or NO_LIBRARY. Raises OnnxError where one is named and is not there or of no use, or the folder's own
    is not the one that was exported with it.
    """
    if named == "":
        raise OnnxError(f"--library names no file. Name one, or {NO_LIBRARY}, or leave it out")
    if not folder.own_operators:
        if named not in (None, NO_LIBRARY):
            raise OnnxError(f"--library names {named}, and {folder.model_path} has no operators of ours. Leave it out")
        return None
    for source, text in (("--library", named), (LIBRARY_VARIABLE, os.environ.get(LIBRARY_VARIABLE))):
        if text == NO_LIBRARY:
            return None
        if text:
            path = Path(text)
            if not path.is_file():
                fault = f"that {other}" if (other := no_file(path)) else "there is no such file"
                raise OnnxError(f"{source} names {path}, and {fault}. Correct it, or leave it out")
            return path
    if not folder.library_path.exists():
        return None
    try:
        folder.read_small(LIBRARY_NAME)
    except OnnxError as error:
        raise OnnxError(f"{error}. To take another library on purpose, name it in {LIBRARY_VARIABLE}") from error
    return folder.library_path


def _check_elf(data: bytes, path: Path, way: str) -> None:
    here = platform.machine()
    try:
        elf = read_elf(data, str(path))
    except BuildError as error:
        raise OnnxError(f"{error}. {way}") from error
    if here in MACHINES and elf.machine != MACHINES[here]:
        raise OnnxError(f"{path} is for {machine_name(elf.machine)}, this machine is {here}. {way}")
    if not any(symbol.is_defined and symbol.name == _REGISTER for symbol in elf.symbols):
        raise OnnxError(f"{path} exports no {_REGISTER}: it is no library of operators. {way}")


def _way_to_build(by_option: bool) -> str:
    return f"Export the model again on, or with --target for, this machine. {_way_without(by_option)}"


def _way_without(by_option: bool) -> str:
    way = f"give --library {NO_LIBRARY}" if by_option else f"have {LIBRARY_VARIABLE}={NO_LIBRARY} in its environment"
    return f"To run the fallback in its place, {way}"
