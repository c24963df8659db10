"""Layouts that go row by row: a row is an optional scale of its own and blocks, which may have scales too.

Codes are weight + 1: 0, 1, 2. A code of 3 is none, whatever its layout has for it; the caller looks for it. Sources:
ggml (ggml-common.h, ggml-quants.c) for TQ1_0, TQ2_0, Q4_0, Q1_0 and Q2_0, ik_llama.cpp (iqk_quantize.cpp) for
IQ1_BN and IQ2_BN. What was not found there stands in docs/models.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
NO_CODE = 3
_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)  # of four codes in a byte, the first in the lowest bits


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockLayout:
    """One layout: what a block is made of."""

    block: int  # weights
    block_bytes: int
    codes_of: Callable[[Bytes], Bytes]  # [..., block_bytes] -> [..., block]
    row_scale: str | None = None  # dtype of one scale before a row's blocks
    block_scale: slice | None = None  # where in a block its f16 scale is

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row, which has a multiple of `block` columns."""
        return self._header + columns // self.block * self.block_bytes

    def codes(self, rows: Bytes) -> Bytes:
        """[rows, row_bytes] -> codes, [rows, columns]."""
        return self.codes_of(self._blocks(rows)).reshape(len(rows), -1)

    def scales(self, rows: Bytes) -> NDArray[np.float32]:
        """[rows, row_bytes] -> scales, [rows, 1] or [rows, columns / block]."""
        if self.row_scale is not None:
            found = np.ascontiguousarray(rows[:, : self._header]).view(self.row_scale)
        elif self.block_scale is not None:
            found = np.ascontiguousarray(self._blocks(rows)[..., self.block_scale]).view("<f2")[..., 0]
        else:
            raise AssertionError("a layout has scales")
        return found.astype(np.float32)

    @property
    def _header(self) -> int:
        return 0 if self.row_scale is None else np.dtype(self.row_scale).itemsize

    def _blocks(self, rows: Bytes) -> Bytes:
        return rows[:, self._header :].reshape(len(rows), -1, self.block_bytes)


def _trit_table() -> Bytes:
    """The five base-3 digits of each byte, [256, 5], the most significant first; NO_CODE where no quantiser makes it.

    A byte is digits x 256 / 243, rounded up, so that digits come out of its upper bits by multiplying.
    """
    table = np.full((256, 5), NO_CODE, np.uint8)
    for number in range(243):
        table[-(-number * 256 // 243)] = [number // 3**power % 3 for power in (4, 3, 2, 1, 0)]
    return table


_TRITS = _trit_table()
_LEAST_TRITS = np.ascontiguousarray(_TRITS[:, ::-1])


def _four_trits(digits: Bytes, spare: int) -> Bytes:
    """Digits [..., 5] without the spare one, which must be 0."""
    kept = np.delete(digits, spare, axis=-1)
    return np.where(digits[..., spare : spare + 1] == 0, kept, np.uint8(NO_CODE))


def _trit_planes(packed: Bytes) -> Bytes:
    """[..., n] bytes of five trits -> [..., 5 n]: the first trits of all, then the second ones."""
    return _TRITS[packed].swapaxes(-1, -2).reshape(*packed.shape[:-1], -1)


def _tq1_0(blocks: Bytes) -> Bytes:
    last = _four_trits(_TRITS[blocks[..., 48:52]], spare=4).swapaxes(-1, -2)
    parts = [
        _trit_planes(blocks[..., :32]), _trit_planes(blocks[..., 32:48]), last.reshape(*blocks.shape[:-1], 16)
    ]  # fmt: skip
    return np.concatenate(parts, axis=-1)


def _tq2_0(blocks: Bytes) -> Bytes:
    halves = blocks[..., :64].reshape(*blocks.shape[:-1], 2, 1, 32)
    return (halves >> _SHIFTS[:, None] & np.uint8(3)).reshape(*blocks.shape[:-1], 256)


def _q2_0(blocks: Bytes) -> Bytes:
    packed = blocks[..., 2:]
    return (packed[..., None] >> _SHIFTS & np.uint8(3)).reshape(*blocks.shape[:-1], -1)


def _q4_0(blocks: Bytes) -> Bytes:
    """Numbers 7, 8 and 9 of 16 are the weights -1, 0 and +1."""
    numbers = np.concatenate([blocks[..., 2:] & np.uint8(15), blocks[..., 2:] >> np.uint8(4)], axis=-1)
    return np.minimum(numbers - np.uint8(7), np.uint8(NO_CODE))  # modulo 256: below 7 is far above


def _q1_0(blocks: Bytes) -> Bytes:
    """Bits 0 and 1 are the weights -1 and +1."""
    return np.unpackbits(blocks[..., 2:], axis=-1, bitorder="little") << np.uint8(1)


def _iq1_bn(blocks: Bytes) -> Bytes:
    first = _LEAST_TRITS[blocks[..., :12]].reshape(*blocks.shape[:-1], 4, 15)
    last = _four_trits(_LEAST_TRITS[blocks[..., 12]], spare=4)[..., None]
    return np.concatenate([first, last], axis=-1).reshape(*blocks.shape[:-1], 64)


def _iq2_bn(blocks: Bytes) -> Bytes:
    return (blocks[..., None, :] >> _SHIFTS[:, None] & np.uint8(3)).reshape(*blocks.shape[:-1], 64)


TQ1_0 = BlockLayout(block=256, block_bytes=54, codes_of=_tq1_0, block_scale=slice(52, 54))
TQ2_0 = BlockLayout(block=256, block_bytes=66, codes_of=_tq2_0, block_scale=slice(64, 66))
Q2_0_64 = BlockLayout(block=64, block_bytes=18, codes_of=_q2_0, block_scale=slice(0, 2))
Q2_0_128 = BlockLayout(block=128, block_bytes=34, codes_of=_q2_0, block_scale=slice(0, 2))
Q4_0 = BlockLayout(block=32, block_bytes=18, codes_of=_q4_0, block_scale=slice(0, 2))
Q1_0 = BlockLayout(block=128, block_bytes=18, codes_of=_q1_0, block_scale=slice(0, 2))
IQ1_BN = BlockLayout(block=64, block_bytes=13, codes_of=_iq1_bn, row_scale="<f2")
IQ2_BN = BlockLayout(block=64, block_bytes=16, codes_of=_iq2_bn, row_scale="<f4")
