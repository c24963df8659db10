"""Tokens to text as they come."""

import ctypes
from collections.abc import Sequence

from edgebit.runtime import abi
from edgebit.runtime.native_object import NativeObject
from edgebit.runtime.tokenizer import Tokenizer


class TextStream(NativeObject):
    """Tokens in, text out: whole characters only, and nothing of a stop string."""

    _close_function = "eb_text_close"

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        encoded = [stop.encode("utf-8", "surrogateescape") for stop in stops]
        handle, error = ctypes.c_void_p(), abi.Error()
        library = tokenizer.library
        status = library.dll.eb_text_open(
            tokenizer.handle,
            (ctypes.c_char_p * max(len(encoded), 1))(*encoded),
            (ctypes.c_size_t * max(len(encoded), 1))(*map(len, encoded)),
            len(encoded),
            ctypes.byref(handle),
            ctypes.byref(error),
        )
        library.check(status, error)
        super().__init__(library, handle)
        self._tokenizer = tokenizer

    def push(self, token: int) -> tuple[str, bool]:
        """The text that can be shown after this token, and whether a stop string is now complete."""
        piece, size, stopped = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int()
        status = self.library.dll.eb_text_push(
            self.handle, token, ctypes.byref(piece), ctypes.byref(size), ctypes.byref(stopped)
        )
        self.library.check(status)
        return self._text(piece, size), bool(stopped.value)

    def finish(self) -> str:
        """What was held back."""
        piece, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.library.check(self.library.dll.eb_text_finish(self.handle, ctypes.byref(piece), ctypes.byref(size)))
        return self._text(piece, size)

    @staticmethod
    def _text(piece: ctypes.c_void_p, size: ctypes.c_size_t) -> str:
        return ctypes.string_at(piece, size.value).decode("utf-8") if size.value and piece.value else ""
