"""Where keys and values of one sequence lie between two runs of a graph, as its inputs and outputs ask for it."""

import contextlib
import math
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edgebit.onnx_engine.folder import kv_names
from edgebit.onnx_engine.session import OnnxSession

if TYPE_CHECKING:
    import numpy as np


class KvCache(Protocol):
    """Keys and values of all layers, float32 [1, n_kv_heads, tokens, head_dim] each."""

    @property
    def held_bytes(self) -> int:
        """Memory that it has asked for."""

    def bind(self, bound: Any) -> None:
        """Put the inputs and outputs of the next run into an IOBinding, after those that are bound already."""

    def take(self, outputs: list[Any]) -> None:
        """Note what a run has made of its outputs, in the order of bind()."""

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens."""

    def copy_from(self, other: "KvCache", length: int) -> None:
        """Hold the first `length` tokens of another one of the same kind, and no others."""


class SharedCache:
    """One buffer for a layer's keys, one for its values, each for the whole context: input and output in one.

    For GroupQueryAttention, which appends in place where both are the same memory, and reads how many tokens there are
    from its other inputs. Pages that no token has come to yet take no memory.
    """

    def __init__(self, session: OnnxSession, ctx_len: int) -> None:
        """Raises MemoryError where there is no room for them."""
        conf = session.folder.conf
        shape = (1, conf.n_kv_heads, ctx_len, conf.head_dim)
        names = _names(session)
        self._arrays = _zeros_by_pages(session, (len(names), *shape))
        values = map(session.runtime.OrtValue.ortvalue_from_numpy, self._arrays)
        self._values = list(zip(names, values, strict=True))

    @property
    def held_bytes(self) -> int:
        """Of address space: memory is taken as tokens come."""
        return sum(array.nbytes for array in self._arrays)

    def bind(self, bound: Any) -> None:
        """The same buffer as input and output."""
        for (past, present), value in self._values:
            bound.bind_ortvalue_input(past, value)
            bound.bind_ortvalue_output(present, value)

    def take(self, outputs: list[Any]) -> None:
        """Nothing: it is there already."""

    def truncate(self, length: int) -> None:
        """Nothing: what lies behind the length is not read, and is written over."""

    def copy_from(self, other: KvCache, length: int) -> None:
        """Copy the front of each head's tokens."""
        assert isinstance(other, SharedCache)
        for mine, theirs in zip(self._arrays, other._arrays, strict=True):
            mine[:, :, :length] = theirs[:, :, :length]


class GrownCache:
    """What a run gives out is the next one's input: each makes keys and values anew, one token longer.

    For ONNX's own Attention, whose outputs are its inputs with the new tokens behind them.
    """

    def __init__(self, session: OnnxSession) -> None:
        self._session, self._names = session, _names(session)
        conf = session.folder.conf
        self._empty = session.numpy.zeros((1, conf.n_kv_heads, 0, conf.head_dim), session.numpy.float32)
        self._values: list[Any] = []
        self.truncate(0)

    @property
    def held_bytes(self) -> int:
        """Of the tokens there are; a run holds as much again."""
        sizes = (self._session.numpy.prod(value.shape()) for value in self._values)
        return 4 * int(sum(sizes))

    def bind(self, bound: Any) -> None:
        """What the last run gave as input, and room that ONNX Runtime finds as output."""
        for (past, present), value in zip(self._names, self._values, strict=True):
            bound.bind_ortvalue_input(past, value)
            bound.bind_output(present, "cpu")

    def take(self, outputs: list[Any]) -> None:
        """Keep them for the next run."""
        self._values = outputs

    def truncate(self, length: int) -> None:
        """Copy the front of each head's tokens."""
        arrays = [value.numpy() for value in self._values] if length else [self._empty] * len(self._names)
        self._hold(arrays, length)

    def copy_from(self, other: KvCache, length: int) -> None:
        """Copy the front of each head's tokens."""
        assert isinstance(other, GrownCache)
        self._hold([value.numpy() for value in other._values], length)

    def _hold(self, arrays: "list[np.ndarray]", length: int) -> None:
        contiguous, to_value = self._session.numpy.ascontiguousarray, self._session.runtime.OrtValue.ortvalue_from_numpy
        self._values = [to_value(contiguous(array[:, :, :length])) for array in arrays]


def _zeros_by_pages(session: OnnxSession, shape: Sequence[int]) -> "np.ndarray":
    """Zeros, float32, whose memory is taken page by page as it is written to, and given back with the last view of it.

    numpy.zeros() asks for huge pages from 4 MB on. A head's tokens lie apart from the next one's by about as much as
    such a page holds, so that a first token would take the memory of all. Raises MemoryError where there is none.
    """
    try:
        pages = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(*error.args) from error
    with contextlib.suppress(AttributeError, OSError):  # a system that has no huge pages
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    array: np.ndarray = session.numpy.frombuffer(pages, session.numpy.float32).reshape(shape)
    return array


def _names(session: OnnxSession) -> list[tuple[str, str]]:
    """Input and output of each layer's keys and values."""
    return [
        names
        for layer in range(session.folder.conf.n_layers)
        for names in zip(kv_names("past_key_values", layer), kv_names("present", layer), strict=True)
    ]
