"""bfloat16, which numpy does not have: its values stand as their bits, the upper half of a float32's."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def bfloat16_values(bits: NDArray[Any]) -> NDArray[np.float32]:
    """The values of uint16 bits, in their shape: exact."""
    values: NDArray[np.float32] = (bits.astype(np.uint32) << 16).view(np.float32)
    return values
