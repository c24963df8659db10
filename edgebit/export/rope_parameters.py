"""The parameters of a RoPE, found from its frequencies, which are all that a model file keeps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.rope import linear_rope, llama3_rope, rope_inv_freq, yarn_rope

_MOST_DIGITS = 9  # of a theta: more than any model's has
_SAME = 3e-7  # relative: five units of a float32's last place
LOW_FREQ_FACTOR, HIGH_FREQ_FACTOR = 1.0, 4.0  # of every Llama 3 there is; YaRN's are its own defaults
_ORIGINAL_CONTEXTS = tuple(1 << bits for bits in range(5, 21))


@dataclass(frozen=True, slots=True)
class RopeParameters:
    """What to compute the frequencies from, to within a few units of the last place."""

    kind: Literal["default", "linear", "llama3", "yarn", "other"]
    theta: float
    factor: float = 1.0  # 1: not scaled
    original_context: int = 0  # tokens; of llama3 and yarn
    divisors: NDArray[np.float32] | None = None  # [head_dim / 2] of llama3 and other: theta's frequency / frequency


def find_rope_parameters(inv_freq: NDArray[np.float32]) -> RopeParameters:
    """The plainest parameters that give these frequencies; kind "other" where only the divisors tell."""
    frequencies = inv_freq.astype(np.float64)
    n = len(frequencies)
    first = _plain(float(1 / frequencies[0]))
    if n == 1:
        return _linear(10000.0, first)
    for theta in _thetas(frequencies, 0, n - 1):
        if _same(linear_rope(theta, 2 * n, factor=first).inv_freq, frequencies):
            return _linear(theta, first)
    # Scalings leave the first frequencies alone, or divide the last ones by one factor.
    for theta in dict.fromkeys(chain(*(_thetas(frequencies, i, j) for i, j in ((0, 1), (3 * n // 4, n - 1))))):
        found = _scaled_by_frequency(theta, frequencies)
        if found is not None:
            return found
    theta = _plain(float((frequencies[0] / frequencies[1]) ** n), digits=4)
    return RopeParameters("other", theta, divisors=_divisors(theta, frequencies))


def _linear(theta: float, factor: float) -> RopeParameters:
    return RopeParameters("default", theta) if factor == 1 else RopeParameters("linear", theta, factor)


def _thetas(frequencies: NDArray[np.float64], i: int, j: int) -> Iterator[float]:
    """What theta is by two of the frequencies, few digits first."""
    theta = (frequencies[i] / frequencies[j]) ** (len(frequencies) / max(1, j - i))
    yield from dict.fromkeys(float(f"{theta:.{digits}e}") for digits in range(_MOST_DIGITS))


def _divisors(theta: float, frequencies: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rope_inv_freq(theta, 2 * len(frequencies)) / frequencies).astype(np.float32)


def _scaled_by_frequency(theta: float, frequencies: NDArray[np.float64]) -> RopeParameters | None:
    """As Llama 3.1 or YaRN does it, with the parameters that their models have."""
    divisors = _divisors(theta, frequencies)
    factor = _plain(float(divisors[-1]))
    head_dim = 2 * len(frequencies)
    if factor <= 1 or theta <= 1:
        return None
    for context in _ORIGINAL_CONTEXTS:
        llama3 = llama3_rope(
            theta,
            head_dim,
            factor=factor,
            low_freq_factor=LOW_FREQ_FACTOR,
            high_freq_factor=HIGH_FREQ_FACTOR,
            original_context=context,
        )
        if _same(llama3.inv_freq, frequencies):
            return RopeParameters("llama3", theta, factor, context, divisors)
        yarn = yarn_rope(theta, head_dim, factor=factor, original_context=context, attention_factor=1.0)
        if _same(yarn.inv_freq, frequencies):
            return RopeParameters("yarn", theta, factor, context)
    return None


def _same(found: NDArray[np.float32], frequencies: NDArray[np.float64]) -> bool:
    return np.allclose(found, frequencies, rtol=_SAME, atol=0)


def _plain(value: float, digits: int = 6) -> float:
    """The number of few digits that is as near as a float32 can tell, or else the value."""
    for count in range(1, digits + 1):
        rounded = float(f"{value:.{count - 1}e}")
        if math.isclose(rounded, value, rel_tol=_SAME if digits == 6 else 1e-5):
            return rounded
    return value
