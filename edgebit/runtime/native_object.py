"""What every object of libedgebit has: one owner, who closes it once."""

import ctypes
from types import TracebackType
from typing import Self

from edgebit.errors import EngineError
from edgebit.runtime.library import Library


class NativeObject:
    """An object of the library: closed once, by close() or at the end of a with block."""

    _close_function = ""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self.library = library
        self._handle: ctypes.c_void_p | None = handle

    @property
    def handle(self) -> ctypes.c_void_p:
        """The C object; EngineError once it is closed."""
        if self._handle is None:
            raise EngineError(f"this {type(self).__name__.lower()} is closed")
        return self._handle

    def close(self) -> None:
        """Give the object back; closing twice is allowed."""
        if self._handle is not None:
            getattr(self.library.dll, self._close_function)(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
