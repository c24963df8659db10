"""libedgebit, loaded and checked: what every object of it hangs on."""

import ctypes
import os
from pathlib import Path
from typing import Self

from edgebit.errors import BundleError, EdgebitError, EngineError
from edgebit.resources import native_library
from edgebit.runtime import abi
from edgebit.runtime.eval_errors import Cancelled

_ERROR_OF_STATUS: dict[int, type[EdgebitError]] = {
    abi.IO: BundleError,
    abi.BAD_FORMAT: BundleError,
    abi.UNSUPPORTED: BundleError,
    abi.MISMATCH: BundleError,
}


class Library:
    """libedgebit, loaded and checked, with the host table its functions are given."""

    def __init__(self, path: Path, dll: ctypes.CDLL, host: abi.Host, isa: str) -> None:
        self.path = path
        self.dll = dll
        self.host = host
        self.isa = isa

    @classmethod
    def load(cls, path: Path | None = None, *, isa: str | None = None) -> Self:
        """Load the library at `path`, or this machine's own.

        isa: the highest ISA level that may be used ("scalar", "neon", ...); None takes the environment's EDGEBIT_ISA.
        Raises EngineError where the file is missing, made for another machine or another version of edgebit.
        """
        path = path or native_library()
        try:
            dll = ctypes.CDLL(str(path))
        except OSError as error:
            raise EngineError(f"{path} cannot be loaded on this machine: {error}") from error
        try:
            version = int(dll.eb_abi_version())
        except AttributeError as error:
            raise EngineError(f"{path} is not an edgebit library: it has no eb_abi_version") from error
        if version != abi.ABI_VERSION:
            raise EngineError(
                f"{path} has ABI version {version}, this edgebit needs {abi.ABI_VERSION}. "
                "Build the bundle again, or install edgebit again."
            )
        abi.declare(dll)
        host = abi.host_table(isa or os.environ.get("EDGEBIT_ISA"))
        error_text = abi.Error()
        picked = dll.eb_isa_pick(ctypes.byref(host), ctypes.byref(error_text))
        if picked is None:
            raise EngineError(f"{error_text.text.decode(errors='replace')} (EDGEBIT_ISA)")
        return cls(path, dll, host, picked.decode())

    @property
    def isa_names(self) -> list[str]:
        """The ISA levels this build has, lowest first."""
        names: bytes = self.dll.eb_isa_names()
        return names.decode().split()

    @property
    def version(self) -> str:
        """The version of edgebit that the library was built from."""
        version: bytes = self.dll.eb_version()
        return version.decode()

    def measure_read(self, threads: int, n_bytes: int) -> float:
        """Bytes a second that so many threads read from a buffer of n_bytes: the limit of every decode step.

        Raises EngineError where there is no memory for it.
        """
        rate, error = ctypes.c_double(), abi.Error()
        host = ctypes.byref(self.host)
        self.check(self.dll.eb_measure_read(host, threads, n_bytes, ctypes.byref(rate), ctypes.byref(error)), error)
        return rate.value

    def measure_int8(self, threads: int) -> float:
        """Products of ternary codes and int8 a second, at this ISA level: the limit of every prefill."""
        rate, error = ctypes.c_double(), abi.Error()
        host = ctypes.byref(self.host)
        self.check(self.dll.eb_measure_int8(host, threads, ctypes.byref(rate), ctypes.byref(error)), error)
        return rate.value

    def check(self, status: int, error: abi.Error | None = None, text: str = "") -> None:
        """Raise what `status` stands for, with the library's own words."""
        if status == abi.OK:
            return
        if status == abi.CANCELLED:
            raise Cancelled
        said = error.text.decode(errors="replace") if error is not None else text
        name: bytes = self.dll.eb_status_name(status)
        raise _ERROR_OF_STATUS.get(status, EngineError)(said or name.decode())
