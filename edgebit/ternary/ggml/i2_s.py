"""I2_S of bitnet.cpp: two bits a weight, one scale for the whole tensor behind them, and three dialects.

All three have one type number and one size; which it is depends on the machine and the build that wrote the file.
Source: bitnet.cpp, src/ggml-bitnet-mad.cpp (quantize_i2_s).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

TAIL_BYTES = 32  # after the codes: the scale, f32, and 28 bytes that mean nothing
_BLOCK_BYTES = {"x86": 32, "arm": 16}
_SHIFTS = np.array([6, 4, 2, 0], np.uint8)  # of four codes in a byte, the first in the highest bits

I2SDialect = Literal["x86", "arm", "rows4"]


def why_not(dialect: I2SDialect, rows: int, columns: int) -> str | None:
    """What keeps a tensor of that shape from being in the dialect; None: nothing."""
    if dialect == "rows4":
        return f"{rows} rows are no multiple of 4" if rows % 4 else None
    block = 4 * _BLOCK_BYTES[dialect]
    return f"{columns} columns are no multiple of {block}" if columns % block else None


def i2_s_codes(packed: NDArray[np.uint8], columns: int, dialect: I2SDialect) -> NDArray[np.uint8]:
    """The bytes of whole rows, [rows x columns / 4], to codes, [rows, columns]; rows4: of a multiple of four rows.

    Codes are weight + 1; 3 is none. x86: 32 bytes hold 128 columns, byte p columns p, 32 + p, 64 + p, 96 + p; arm: 16
    bytes hold 64, byte p columns p, 16 + p, 32 + p, 48 + p; rows4: a byte holds the same column of four rows.
    """
    if dialect == "rows4":
        fields = packed.reshape(-1, 1, columns) >> _SHIFTS[:, None] & np.uint8(3)
    else:
        fields = packed.reshape(-1, 1, _BLOCK_BYTES[dialect]) >> _SHIFTS[:, None] & np.uint8(3)
    codes: NDArray[np.uint8] = fields.reshape(-1, columns)
    return codes
