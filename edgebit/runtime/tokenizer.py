"""Text to token ids and back, with the tokenizer of a model file."""

import ctypes
from collections.abc import Iterable, Sequence
from typing import Self

from edgebit.errors import EngineError
from edgebit.runtime import abi
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.native_object import NativeObject


class Tokenizer(NativeObject):
    """The BPE that the model was trained with, on any bytes."""

    _close_function = "eb_tokenizer_close"

    def __init__(self, library: Library, handle: ctypes.c_void_p, keep: object) -> None:
        super().__init__(library, handle)
        self._keep = keep
        self.vocab_size: int = library.dll.eb_tokenizer_vocab_size(handle)

    @classmethod
    def from_model(cls, model: Model) -> Self:
        """The tokenizer inside a model file, used in place; EngineError where it has none."""
        data, size = ctypes.c_void_p(), ctypes.c_uint64()
        model.library.check(
            model.library.dll.eb_model_section(model.handle, b"TOKN", ctypes.byref(data), ctypes.byref(size))
        )
        if not data.value:
            raise EngineError(
                f"{model.source} cannot take text: its checkpoint had no tokenizer. Build it from one that has"
            )
        return cls._open(model.library, data.value, size.value, model)

    @classmethod
    def from_section(cls, library: Library, section: bytes) -> Self:
        """From the bytes of a TOKN section, which are copied; BundleError where they are damaged."""
        memory = ctypes.create_string_buffer(len(section) + 64)
        start = (ctypes.addressof(memory) + 63) & ~63
        ctypes.memmove(start, section, len(section))
        return cls._open(library, start, len(section), memory)

    @classmethod
    def _open(cls, library: Library, address: int, size: int, keep: object) -> Self:
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_tokenizer_open(
            ctypes.byref(library.host), address, size, ctypes.byref(handle), ctypes.byref(error)
        )
        library.check(status, error)
        return cls(library, handle, keep)

    def encode(self, text: str | bytes, *, parse_special: bool = False) -> list[int]:
        """Token ids of `text`. With parse_special, names of special tokens in it become those tokens."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return self._ids(data, [(0, len(data))] if parse_special else [])

    def encode_segments(self, segments: Iterable[tuple[str, bool]], *, begin: int | None = None) -> list[int]:
        """Token ids of the segments' texts as one text; special tokens are recognised within the marked ones only.

        begin: a token before them. A special one is a part of the text, which then does not begin with a word: some
        of SentencePiece's tokenizers put no space there.
        """
        if begin is not None:
            name, is_special = self._token(begin)
            if not is_special:
                return [begin, *self.encode_segments(segments)]
            segments = [(name.decode("utf-8", "surrogateescape"), True), *segments]
        data, ranges = b"", []
        for text, parse_special in segments:
            start = len(data)
            data += text.encode("utf-8", "surrogateescape")
            if parse_special:
                ranges.append((start, len(data)))
        return self._ids(data, ranges)

    def _ids(self, data: bytes, ranges: Sequence[tuple[int, int]]) -> list[int]:
        special = (abi.Range * len(ranges))(*(abi.Range(*ends) for ends in ranges))
        ids, count = (ctypes.c_int32 * (len(data) + 1))(), ctypes.c_size_t()
        while True:
            status = self.library.dll.eb_tokenize_ranges(
                self.handle, data, len(data), special, len(ranges), ids, len(ids), ctypes.byref(count)
            )
            if status != abi.LIMIT or count.value <= len(ids):
                break
            ids = (ctypes.c_int32 * count.value)()  # normalizing has made the text longer
        self.library.check(status)
        return ids[: count.value]

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; EngineError outside the vocabulary."""
        return self._token(token)[0]

    def is_special(self, token: int) -> bool:
        """Whether the token is one such as <|eot_id|>, which text leaves out; EngineError outside the vocabulary."""
        return self._token(token)[1]

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> bytes:
        """The bytes that the tokens stand for, without the space that tokenizing puts before a text."""
        pieces = [self._token(token) for token in tokens]
        data = b"".join(piece for piece, special in pieces if not (special and skip_special))
        return data.removeprefix(b" ") if self.library.dll.eb_tokenizer_strips_space(self.handle) else data

    def _token(self, token: int) -> tuple[bytes, bool]:
        size, special = ctypes.c_size_t(), ctypes.c_int()
        address = self.library.dll.eb_token_bytes(self.handle, token, ctypes.byref(size), ctypes.byref(special))
        if address is None:
            raise EngineError(f"token {token} is outside the vocabulary of {self.vocab_size}")
        return ctypes.string_at(address, size.value), bool(special.value)
