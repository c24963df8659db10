"""Rotary position embedding: what a position is multiplied by to get the angle of each pair of elements.

Source: transformers 5.23, modeling_rope_utils.py.
"""

import numpy as np
from numpy.typing import NDArray


def rope_inv_freq(theta: float, head_dim: int) -> NDArray[np.float32]:
    """The frequencies of a RoPE without scaling, [head_dim / 2]."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    return (1.0 / np.float64(theta) ** exponents).astype(np.float32)
