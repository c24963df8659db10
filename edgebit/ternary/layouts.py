"""The layouts that ternary weights are stored in: pack, unpack, sizes. Bytes mean the same on every CPU.

Layout t2 (docs/model-format.md): blocks of 64 weights in 16 bytes, two bits a weight, code = weight + 1. Byte p of a
block holds weights p, 16 + p, 32 + p, 48 + p from the lowest bits up; a row is filled up to whole blocks with code 1.
"""

import numpy as np
from numpy.typing import NDArray

from edgebit.errors import CheckpointError

T2_BLOCK = 64  # weights
_FOUR_ZEROS = 0x55  # a byte of four codes 1: four weights of value 0


def t2_row_bytes(columns: int) -> int:
    """Bytes of one row of `columns` weights in layout t2."""
    return -(-columns // T2_BLOCK) * (T2_BLOCK // 4)


def pack_t2(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to layout t2: bytes, [rows, t2_row_bytes(columns)].

    Raises ValueError on any other value.
    """
    if codes.size and (codes.min() < -1 or codes.max() > 1):
        raise ValueError("ternary weights are -1, 0 and +1")
    planes = _planes(_padded((codes + 1).astype(np.uint8), fill=1))
    packed = planes[0]
    for slot in (1, 2, 3):
        packed |= planes[slot] << np.uint8(2 * slot)
    return packed.reshape(codes.shape[0], t2_row_bytes(codes.shape[1]))


def unpack_t2(packed: NDArray[np.uint8], columns: int) -> NDArray[np.int8]:
    """Layout t2, [rows, t2_row_bytes(columns)], to weights {-1, 0, +1}, [rows, columns].

    Raises ValueError where a code is 3 or the padding is not zero weights.
    """
    rows = packed.shape[0]
    blocks = packed.reshape(rows, -1, 1, T2_BLOCK // 4)
    codes = (blocks >> np.arange(0, 8, 2, dtype=np.uint8).reshape(1, 1, 4, 1)) & 3
    codes = codes.reshape(rows, -1)
    if (codes == 3).any():
        raise ValueError("layout t2 has no code 3")
    if (codes[:, columns:] != 1).any():
        raise ValueError("the padding of layout t2 must be zero weights")
    weights: NDArray[np.int8] = codes[:, :columns].astype(np.int8) - np.int8(1)
    return weights


def unpack_quarter_rows(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """transformers' packed form, [rows / 4, columns], to weights, [rows, columns].

    Bits 2i+1:2i of stored row r hold row i * rows / 4 + r, as weight + 1.
    """
    quarters = [((packed >> (2 * i)) & 3).astype(np.int8) - np.int8(1) for i in range(4)]
    return np.concatenate(quarters)


def t2_from_quarter_rows(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """transformers' packed form, [rows / 4, columns], to layout t2, [rows, t2_row_bytes(columns)], without unpacking.

    A byte of the source holds one column of four rows, a byte of t2 four columns of one row: so four bytes, 16 columns
    apart, are a 4 x 4 matrix of 2-bit codes that is transposed, by two rounds of masked swaps on 8 bytes at once.
    Raises CheckpointError on code 3, which ternary weights do not have, naming the first place.
    """
    quarter, columns = packed.shape
    invalid = packed & (packed >> 1) & _FOUR_ZEROS
    if invalid.any():
        row, column = (int(index[0]) for index in np.nonzero(invalid))
        part = (int(invalid[row, column]) & -int(invalid[row, column])).bit_length() // 2
        row += part * quarter
        raise CheckpointError(f"holds code 3, which is no ternary weight, at row {row}, column {column}")
    planes = [plane.view(np.uint64) for plane in _planes(_padded(packed, fill=_FOUR_ZEROS))]
    for first, second, shift, mask in ((0, 2, 4, 0x0F), (1, 3, 4, 0x0F), (0, 1, 2, 0x33), (2, 3, 2, 0x33)):
        swap = ((planes[first] >> np.uint64(shift)) ^ planes[second]) & np.uint64(mask * 0x0101010101010101)
        planes[second] ^= swap
        planes[first] ^= swap << np.uint64(shift)
    return np.concatenate([plane.view(np.uint8).reshape(quarter, t2_row_bytes(columns)) for plane in planes])


def _padded(rows: NDArray[np.uint8], fill: int) -> NDArray[np.uint8]:
    missing = -rows.shape[1] % T2_BLOCK
    return np.pad(rows, ((0, 0), (0, missing)), constant_values=fill) if missing else np.ascontiguousarray(rows)


def _planes(rows: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The four groups of 16 columns of every block, each gathered into one array of its own."""
    lanes = rows.reshape(-1).view(np.complex128).reshape(-1, 4)  # complex128: numpy's 16-byte item, copied bit by bit
    return [np.ascontiguousarray(lanes[:, slot]).view(np.uint8) for slot in range(4)]
