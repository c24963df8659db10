"""The parameters of a RoPE, found from its frequencies, which are all that a model file keeps."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.rope import rope_inv_freq

_MOST_DIGITS = 9  # of a theta: more than any model's has
_SAME = 3e-7  # relative: five units of a float32's last place


@dataclass(frozen=True, slots=True)
class RopeParameters:
    """frequency i = theta^(-2 i / head_dim) / factor / divisors[i]."""

    theta: float
    factor: float  # 1: not scaled; else positions are divided by it
    divisors: NDArray[np.float32] | None  # [head_dim / 2] of a scaling that is not the same for all; None: all 1


def find_rope_parameters(inv_freq: NDArray[np.float32]) -> RopeParameters:
    """theta, and the linear factor or, where the frequencies follow no power law, what each is divided by."""
    frequencies = inv_freq.astype(np.float64)
    head_dim = 2 * len(frequencies)
    if head_dim == 2:
        return RopeParameters(10000.0, _plain(1 / frequencies[0]), None)
    factor = _plain(1 / frequencies[0])
    steps = (-1, 1)  # of the last frequency theta is known best; the first ones are those that scalings leave alone
    for step in steps:
        i = step % len(frequencies)
        theta = (frequencies[0] / frequencies[i]) ** (head_dim / (2 * i))
        for digits in range(1, _MOST_DIGITS + 1):
            candidate = float(f"{theta:.{digits - 1}e}")
            if np.allclose(rope_inv_freq(candidate, head_dim) / factor, frequencies, rtol=_SAME, atol=0):
                return RopeParameters(candidate, factor, None)
    theta = _plain((frequencies[0] / frequencies[1]) ** (head_dim / 2), digits=4)
    divisors = rope_inv_freq(theta, head_dim).astype(np.float64) / frequencies
    return RopeParameters(theta, 1.0, divisors.astype(np.float32))


def _plain(value: float, digits: int = 6) -> float:
    """The number of few digits that is as near as a float32 can tell, or else the value."""
    for count in range(1, digits + 1):
        rounded = float(f"{value:.{count - 1}e}")
        if math.isclose(rounded, value, rel_tol=_SAME if digits == 6 else 1e-5):
            return rounded
    return value
