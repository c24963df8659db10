"""A model file, as the native engine reads it."""

import ctypes
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edgebit.errors import BundleError
from edgebit.runtime import abi
from edgebit.runtime.library import Library
from edgebit.runtime.native_object import NativeObject


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, from its CONF section; sizes in elements, weight_bytes and bytes_per_token in bytes."""

    hidden_size: int
    ffn_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    context_max: int
    bos_token: int | None
    stop_tokens: tuple[int, ...]
    weight_bytes: int
    bytes_per_token: int


class Model(NativeObject):
    """A model file, mapped and checked. It must stay open as long as an Engine or Tokenizer made from it."""

    _close_function = "eb_model_close"

    def __init__(self, library: Library, handle: ctypes.c_void_p, source: str, keep: object = None) -> None:
        super().__init__(library, handle)
        self.source = source
        self._keep = keep
        struct = library.dll.eb_model_get_info(handle).contents
        self.info = ModelInfo(
            hidden_size=struct.hidden_size,
            ffn_size=struct.ffn_size,
            n_layers=struct.n_layers,
            n_heads=struct.n_heads,
            n_kv_heads=struct.n_kv_heads,
            head_dim=struct.head_dim,
            vocab_size=struct.vocab_size,
            context_max=struct.context_max,
            bos_token=struct.bos_token if struct.bos_token >= 0 else None,
            stop_tokens=tuple(struct.stop_tokens[: struct.n_stop_tokens]),
            weight_bytes=struct.weight_bytes,
            bytes_per_token=struct.bytes_per_token,
        )

    @classmethod
    def open(cls, library: Library, path: Path, *, offset: int = 0, size: int = 0) -> Self:
        """Map the model file at `path`, or `size` bytes at `offset` of a bundle.

        Raises BundleError where it is damaged, cut short or of another version; the message names the section.
        """
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_model_open(
            ctypes.byref(library.host),
            os.fsencode(path),
            offset,
            size,
            ctypes.byref(handle),
            ctypes.byref(error),
        )
        library.check(status, error)
        return cls(library, handle, str(path))

    @classmethod
    def from_bytes(cls, library: Library, data: bytes) -> Self:
        """Use a model file that is in memory already; a copy is kept, aligned to 64 bytes."""
        memory = ctypes.create_string_buffer(len(data) + 64)
        start = (ctypes.addressof(memory) + 63) & ~63
        ctypes.memmove(start, data, len(data))
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_model_open_memory(
            ctypes.byref(library.host), start, len(data), ctypes.byref(handle), ctypes.byref(error)
        )
        library.check(status, error)
        return cls(library, handle, "<memory>", keep=memory)

    def section(self, tag: str) -> bytes | None:
        """A copy of the section's bytes, or None where the file has none of that tag."""
        data, size = ctypes.c_void_p(), ctypes.c_uint64()
        self.library.check(
            self.library.dll.eb_model_section(self.handle, tag.encode(), ctypes.byref(data), ctypes.byref(size))
        )
        return ctypes.string_at(data, size.value) if data.value else None

    def meta(self) -> dict[str, Any]:
        """The META section: what is known about the model. Raises BundleError where it is no JSON object."""
        try:
            content = json.loads(self.section("META") or b"{}")
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{self.source}: section META is no JSON: {error}. Build it again.") from error
        if not isinstance(content, dict):
            raise BundleError(f"{self.source}: section META is no JSON object. Build it again.")
        return content

    def fingerprint(self) -> int:
        """64 bits that stand for what the model computes: of its weights and configuration."""
        return int(self.library.dll.eb_model_fingerprint(self.handle))

    def weights_fingerprint(self) -> int:
        """64 bits that stand for the layers' weights, in whichever layout they are: what an adapter is made for."""
        return int(self.library.dll.eb_weights_fingerprint(self.handle))

    def verify(self) -> None:
        """Read every weight: sums, codes, scales. BundleError names what is damaged."""
        error = abi.Error()
        self.library.check(self.library.dll.eb_model_verify(self.handle, ctypes.byref(error)), error)
