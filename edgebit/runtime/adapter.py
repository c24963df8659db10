"""An adapter (docs/adapter-format.md) as the native engine has it: low-rank side paths of a model's projections."""

import ctypes
import hashlib
from typing import Self

from edgebit.errors import EngineError
from edgebit.runtime import abi
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.native_object import NativeObject


class Adapter(NativeObject):
    """One adapter of one model, which must stay open as long; any number of sequences and engines may have it."""

    _close_function = "eb_adapter_close"

    def __init__(self, library: Library, handle: ctypes.c_void_p, data: bytes, keep: object) -> None:
        super().__init__(library, handle)
        self._keep = keep
        self._sequences = 0  # that have it
        self.name: str = library.dll.eb_adapter_name(handle).decode()
        self.identity = hashlib.sha256(data).digest()
        self.size = len(data)  # bytes

    @classmethod
    def open(cls, library: Library, model: Model, data: bytes) -> Self:
        """Check an adapter file and keep a copy of it.

        Raises BundleError where it is damaged, of another version, or made for other weights than the model's.
        """
        memory = ctypes.create_string_buffer(len(data) + 64)
        start = (ctypes.addressof(memory) + 63) & ~63
        ctypes.memmove(start, data, len(data))
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_adapter_open(model.handle, start, len(data), ctypes.byref(handle), ctypes.byref(error))
        library.check(status, error)
        return cls(library, handle, data, memory)

    def hold(self) -> None:
        """A sequence has it from now on."""
        self._sequences += 1

    def release(self) -> None:
        """A sequence has it no longer."""
        self._sequences -= 1

    def close(self) -> None:
        """Give it back. Raises EngineError while a sequence of an engine has it."""
        if self._handle is not None and self._sequences:
            raise EngineError(f"adapter {self.name} is in use: {self._sequences} sequences of an engine have it")
        super().close()
