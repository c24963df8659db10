"""How weights lie in the graph's external data: ternary ones in layout n2 or in plain rows, int8 rows of the head.

docs/onnx.md, "The operators", has n2 and the head's; plain rows are those of ONNX Runtime's MatMulNBits.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.checkpoint import Projection
from edgebit.ternary.layouts import TILE_ROWS

LAYOUT = "n2"  # of ternary weights
BLOCK = 64  # columns that 16 bytes of a row hold
ROW_STEP = 16  # an int8 row is filled up to a multiple of this
_CHUNK_ROWS = 1024


def n2_shape(rows: int, columns: int, groups: int) -> tuple[int, ...]:
    """[G, N4, C, 4, 16]: `groups` matrices of columns / groups each."""
    return groups, -(-rows // TILE_ROWS), -(-(columns // groups) // BLOCK), TILE_ROWS, 16


def n2_chunks(parts: Sequence[Projection], groups: int) -> Iterator[NDArray[np.uint8]]:
    """The bytes of projections that stand under one another, group after group, a piece at a time.

    All but the last have a multiple of four rows.
    """
    for group in range(groups):
        for part in parts:
            step = part.weights.shape[1] // groups
            columns = part.weights[:, group * step : (group + 1) * step]
            for first in range(0, len(columns), _CHUNK_ROWS):
                yield pack_n2(columns[first : first + _CHUNK_ROWS])


def row_chunks(parts: Sequence[Projection], block: int) -> Iterator[NDArray[np.uint8]]:
    """The bytes of projections that stand under one another, as pack_rows() has them, a piece at a time.

    Rows are filled up to a multiple of `block` columns.
    """
    for part in parts:
        for first in range(0, len(part.weights), _CHUNK_ROWS):
            rows = part.weights[first : first + _CHUNK_ROWS]
            yield pack_rows(rows, len(rows), -(-rows.shape[1] // block) * block)


def pack_n2(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to layout n2, [N4, C, 4, 16].

    16 bytes of each of four rows in turn; byte p of 16 holds columns 4p .. 4p + 3 of 64, the first in the lowest bits,
    as weight + 2. Rows and columns are filled up with weight 0.
    """
    rows, columns = weights.shape
    _, tiles, blocks, _, _ = n2_shape(rows, columns, 1)
    packed = pack_rows(weights, tiles * TILE_ROWS, blocks * BLOCK)
    return np.ascontiguousarray(packed.reshape(tiles, TILE_ROWS, blocks, 16).transpose(0, 2, 1, 3))


def pack_rows(weights: NDArray[np.int8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1} as weight + 2, [rows, columns / 4]: four columns a byte, the first in the lowest bits.

    Filled up with weight 0 to `rows` and `columns`.
    """
    codes = np.full((rows, columns), 2, np.uint8)
    codes[: weights.shape[0], : weights.shape[1]] += weights.view(np.uint8)  # modulo 256: 255 stands for -1
    fours = codes.reshape(rows, -1, 4)
    return np.asarray(fours[..., 0] | fours[..., 1] << 2 | fours[..., 2] << 4 | fours[..., 3] << 6, np.uint8)


def ternary_block(columns: int) -> int:
    """Columns that share a scale in MatMulNBits, of `columns` that do: above 128 it has no int8 products of 2 bits."""
    return 128 if columns % 128 == 0 else 64


def int8_block(columns: int) -> int:
    """The same of int8 rows that are filled up as padded_columns() says."""
    return next(size for size in (128, 64, 32, ROW_STEP) if padded_columns(columns) % size == 0)


def padded_columns(columns: int) -> int:
    """KP: the bytes of an int8 row."""
    return -(-columns // ROW_STEP) * ROW_STEP


def int8_bytes(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """int8 codes, [rows, columns], as code + 128, [rows, KP]."""
    rows, columns = codes.shape
    stored = np.full((rows, padded_columns(columns)), 128, np.uint8)
    stored[:, :columns] = codes.view(np.uint8) ^ 0x80
    return stored
