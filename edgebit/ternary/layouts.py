"""The layouts that weights are stored in: pack, unpack, sizes. Bytes mean the same on every CPU.

All lie in tiles (docs/model-format.md): four rows go together, 16 bytes of each in turn, so that a cache line of 64
bytes holds the same columns of four rows. Rows are filled up to a multiple of 4, columns to one of 64, with weight 0.

t2: two bits a weight, code = weight + 1; byte p of a row's 16 holds columns p, 16 + p, 32 + p, 48 + p of 64.
t1: three weights in five bits, index = code0 + 3 code1 + 9 code2; 384 columns of a row take five times 16 bytes.
h8: int8 rows of the head in three planes, of which a decode step reads the first and only a few rows of the others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebit.errors import CheckpointError

TILE_ROWS = 4
T1_BLOCK = 384  # columns
# (2 r - 15)^2 and (2 (r mod 4) - 3)^2 of r = 0 .. 15
_SQUARES_OF_15 = np.array([(2 * r - 15) ** 2 for r in range(16)], np.uint8)
_SQUARES_OF_3 = np.array([(2 * (r % 4) - 3) ** 2 for r in range(16)], np.uint8)
_HEAD_COLUMNS = 256  # the head's columns are filled up to a multiple of this


def pack_t2(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to the bytes of layout t2. Raises ValueError on any other value."""
    return _t2_tiles(_padded_codes(weights)).reshape(-1)


def unpack_t2(packed: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.int8]:
    """The bytes of layout t2 to weights {-1, 0, +1}, [rows, columns].

    Raises ValueError where a code is 3 or the padding is not zero weights.
    """
    return _weights(_t2_codes(packed.reshape(_up(rows, TILE_ROWS) // TILE_ROWS, -1)), rows, columns)


def pack_t1(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to the bytes of layout t1. Raises ValueError on any other value."""
    codes = _padded_codes(weights)
    whole = codes.shape[1] // T1_BLOCK * T1_BLOCK
    groups = len(codes) // TILE_ROWS
    blocks = codes[:, :whole].reshape(groups, TILE_ROWS, whole // T1_BLOCK, 8, 3, 16)
    index = blocks[..., 0, :] + 3 * blocks[..., 1, :] + 9 * blocks[..., 2, :]  # [group, row, block, j, 16]
    a, b, c, d, e = (index[:, :, :, j] for j in range(5))
    five, six, seven = (index[:, :, :, j] for j in (5, 6, 7))
    vectors = [
        a | five >> 2 << 5,
        b | six >> 2 << 5,
        c | seven >> 2 << 5,
        d | (five & 3) << 6 | (seven >> 1 & 1) << 5,
        e | (six & 3) << 6 | (seven & 1) << 5,
    ]
    tiles = np.stack(vectors, axis=2)  # [group, row, vector, block, 16]
    in_blocks = tiles.transpose(0, 3, 2, 1, 4).reshape(groups, -1)
    return np.concatenate([in_blocks, _t2_tiles(codes[:, whole:]).reshape(groups, -1)], axis=1).reshape(-1)


def unpack_t1(packed: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.int8]:
    """The bytes of layout t1 to weights {-1, 0, +1}, [rows, columns].

    Raises ValueError where an index is above 26, a code is 3, or the padding is not zero weights.
    """
    n_blocks, groups = _up(columns, 64) // T1_BLOCK, _up(rows, TILE_ROWS) // TILE_ROWS
    lines = packed.reshape(groups, -1)
    split = n_blocks * 5 * 64
    vectors = lines[:, :split].reshape(groups, n_blocks, 5, TILE_ROWS, 16)
    a, b, c, d, e = (vectors[:, :, v] for v in range(5))
    index = np.stack(
        [
            *(vector & 31 for vector in (a, b, c, d, e)),
            a >> 5 << 2 | d >> 6,
            b >> 5 << 2 | e >> 6,
            c >> 5 << 2 | (d >> 5 & 1) << 1 | (e >> 5 & 1),
        ],
        axis=2,
    )  # [group, block, j, row, 16]
    if (index > 26).any():
        raise ValueError("layout t1 has no index above 26")
    codes = np.stack([index % 3, index // 3 % 3, index // 9], axis=3)  # [group, block, j, trit, row, 16]
    in_blocks = codes.transpose(0, 4, 1, 2, 3, 5).reshape(groups * TILE_ROWS, n_blocks * T1_BLOCK)
    return _weights(np.concatenate([in_blocks, _t2_codes(lines[:, split:])], axis=1), rows, columns)


@dataclass(frozen=True, slots=True)
class HeadPlanes:
    """Rows of the head in layout h8. With u = code + 128 = 16 high + 4 middle + low:"""

    high: NDArray[np.uint8]  # bytes: two columns in one, in tiles
    middle: NDArray[np.uint8]  # [rows, columns / 4] bytes: four columns in one, row after row
    low: NDArray[np.uint8]  # the same
    high_bounds: NDArray[np.float32]  # [rows] at least |2 (4 middle + low) - 15|, the length of what high leaves out
    middle_bounds: NDArray[np.float32]  # [rows] at least |2 low - 3|, of what high and middle leave out


def pack_h8(codes: NDArray[np.int8]) -> HeadPlanes:
    """int8 codes, [rows, columns], in planes. `rows` is a multiple of 4, but for the last rows of a matrix."""
    rows, columns = codes.shape
    u = np.full((_up(rows, TILE_ROWS), _up(columns, _HEAD_COLUMNS)), 128, np.uint8)
    u[:rows, :columns] = codes.view(np.uint8) ^ 0x80
    nibbles = (u >> 4).reshape(-1, TILE_ROWS, u.shape[1] // 32, 2, 16)
    high = (nibbles[:, :, :, 0] | nibbles[:, :, :, 1] << 4).transpose(0, 2, 1, 3).reshape(-1)
    rest = u[:rows] & np.uint8(15)
    fields = rest.reshape(rows, -1, 4, 64)
    middle, low = fields >> np.uint8(2), fields & np.uint8(3)
    return HeadPlanes(
        high=np.ascontiguousarray(high),
        middle=_four_in_one(middle).reshape(rows, -1),
        low=_four_in_one(low).reshape(rows, -1),
        high_bounds=_length_at_least(_SQUARES_OF_15[rest[:, :columns]]),
        middle_bounds=_length_at_least(_SQUARES_OF_3[rest[:, :columns]]),
    )


def unpack_h8(planes: HeadPlanes, columns: int) -> NDArray[np.int8]:
    """The int8 codes, [rows, columns]."""
    rows, padded = planes.middle.shape[0], planes.middle.shape[1] * 4
    tiles = planes.high.reshape(-1, padded // 32, TILE_ROWS, 16)
    nibbles = np.stack([tiles & 15, tiles >> 4], axis=3)  # [group, block, row, half, 16]
    high = nibbles.transpose(0, 2, 1, 3, 4).reshape(-1, padded)[:rows]
    shifts = np.arange(0, 8, 2, dtype=np.uint8).reshape(1, 1, 4, 1)
    middle, low = (
        (plane.reshape(rows, -1, 1, 64) >> shifts & 3).reshape(rows, padded) for plane in (planes.middle, planes.low)
    )
    u = (high << 4 | middle << 2 | low)[:, :columns]
    codes: NDArray[np.int8] = (u ^ 0x80).view(np.int8)
    return codes


def unpack_quarter_rows(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """transformers' packed form, [rows / 4, columns], to weights {-1, 0, +1}, [rows, columns].

    Bits 2i+1:2i of stored row r hold row i * rows / 4 + r, as weight + 1. Raises CheckpointError on code 3, which
    ternary weights do not have, naming the first place.
    """
    invalid = packed & (packed >> 1) & 0x55
    if invalid.any():
        row, column = (int(index[0]) for index in np.nonzero(invalid))
        part = (int(invalid[row, column]) & -int(invalid[row, column])).bit_length() // 2
        row += part * packed.shape[0]
        raise CheckpointError(f"holds code 3, which is no ternary weight, at row {row}, column {column}")
    quarter, columns = packed.shape
    weights = np.empty((4, quarter, columns), np.int8)
    for i in range(4):
        np.bitwise_and(packed >> (2 * i), 3, out=weights[i].view(np.uint8))
    weights -= 1
    return weights.reshape(4 * quarter, columns)


def pack_quarter_rows(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to transformers' packed form, [rows / 4, columns]; rows a multiple of 4."""
    quarters = weights.reshape(4, -1, weights.shape[1]).view(np.uint8) + np.uint8(1)  # modulo 256: 255 stands for -1
    return np.asarray(
        quarters[0] | quarters[1] << np.uint8(2) | quarters[2] << np.uint8(4) | quarters[3] << np.uint8(6), np.uint8
    )


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _padded_codes(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """weight + 1, [rows up to a multiple of 4, columns up to a multiple of 64]."""
    if weights.size and (weights.min() < -1 or weights.max() > 1):
        raise ValueError("ternary weights are -1, 0 and +1")
    rows, columns = weights.shape
    codes = np.ones((_up(rows, TILE_ROWS), _up(columns, 64)), np.uint8)
    codes[:rows, :columns] += weights.view(np.uint8)  # modulo 256: 255 stands for -1
    return codes


def _t2_tiles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[group, block, row, 16] bytes of layout t2 from codes, [rows, columns]."""
    fields = codes.reshape(len(codes) // TILE_ROWS, TILE_ROWS, codes.shape[1] // 64, 4, 16)
    return np.ascontiguousarray(_four_in_one(fields).transpose(0, 2, 1, 3))


def _t2_codes(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes, [rows, columns], from [group, bytes] of layout t2. Raises ValueError on code 3."""
    tiles = lines.reshape(lines.shape[0], lines.shape[1] // 64, TILE_ROWS, 16)
    fields = np.stack([tiles >> (2 * field) & 3 for field in range(4)], axis=3)  # [group, block, row, field, 16]
    codes = fields.transpose(0, 2, 1, 3, 4).reshape(lines.shape[0] * TILE_ROWS, lines.shape[1])
    if (codes == 3).any():
        raise ValueError("layout t2 has no code 3")
    return codes


def _four_in_one(fields: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two-bit codes, [..., 4, n], to bytes, [..., n]: the first in the lowest bits."""
    first, second, third, fourth = (fields[..., field, :] for field in range(4))
    packed: NDArray[np.uint8] = first | second << np.uint8(2) | third << np.uint8(4) | fourth << np.uint8(6)
    return packed


def _weights(codes: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.int8]:
    if (codes[rows:] != 1).any() or (codes[:, columns:] != 1).any():
        raise ValueError("the padding must be zero weights")
    weights: NDArray[np.int8] = codes[:rows, :columns].astype(np.int8) - np.int8(1)
    return weights


def _length_at_least(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The square root of each row's sum, rounded up to a float32."""
    sums = squares.sum(axis=1, dtype=np.int64)
    lengths: NDArray[np.float32] = np.sqrt(sums.astype(np.float64)).astype(np.float32)
    too_low = lengths.astype(np.float64) ** 2 < sums
    lengths[too_low] = np.nextafter(lengths[too_low], np.float32(np.inf))
    return lengths
