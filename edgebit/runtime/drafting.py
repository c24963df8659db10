"""Drafts for speculation, and how far they have come true."""

import ctypes
from array import array

from edgebit.runtime import abi
from edgebit.runtime.library import Library


class Drafting:
    """Drafts of what comes next: from the text itself (prompt lookup), or forced; and how far they have come true."""

    def __init__(self, library: Library, longest: int) -> None:
        """Drafts of up to `longest` tokens, at most 64; 0 makes none."""
        self._dll = library.dll
        self._struct = abi.DraftingStruct(size=ctypes.sizeof(abi.DraftingStruct))
        library.check(self._dll.eb_drafting_init(ctypes.byref(self._struct), longest))
        self._room = (ctypes.c_int32 * max(longest, 1))()

    @property
    def drafted(self) -> int:
        """Tokens drafted so far."""
        return int(self._struct.drafted)

    @property
    def accepted(self) -> int:
        """Of them, those that came true."""
        return int(self._struct.accepted)

    def draft(self, tokens: "array[int]", most: int) -> list[int]:
        """What may follow `tokens` (of type "i"), at most `most` of them; empty where no draft is likely to pay."""
        address = ctypes.cast(tokens.buffer_info()[0], ctypes.POINTER(ctypes.c_int32))
        length = self._dll.eb_draft(ctypes.byref(self._struct), address, len(tokens), self._room, max(most, 0))
        return self._room[:length]

    def draft_forced(self, tokens: list[int], most: int) -> list[int]:
        """In place of draft(), for `tokens` that forced text would be: as many as are likely to pay, at most `most`."""
        return tokens[: self._dll.eb_draft_forced(ctypes.byref(self._struct), max(min(len(tokens), most), 0))]

    def record(self, accepted: int, ns: int) -> None:
        """Once after each of these two, an empty draft too: how many of it came true, and how long the pass took."""
        self._dll.eb_draft_record(ctypes.byref(self._struct), accepted, ns)
