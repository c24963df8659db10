"""Rotary position embedding: what a position is multiplied by to get the angle of each pair of elements.

Computed in double precision and rounded once; transformers does it in float32, a few units of the last place beside.
Of any numbers that a file may hold, infinity and NaN among the frequencies: open_checkpoint() refuses those.
Source: transformers 5.24, modeling_rope_utils.py; YaRN: Peng et al. 2023 (arXiv:2309.00071).
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rope:
    """A RoPE's frequencies, and what rotated queries and keys are multiplied by."""

    inv_freq: NDArray[np.float32]  # [head_dim / 2]
    attention_factor: float = 1.0


@np.errstate(over="ignore", invalid="ignore")
def rope_inv_freq(theta: float, head_dim: int) -> NDArray[np.float32]:
    """The frequencies of a RoPE without scaling, [head_dim / 2]."""
    return _inv_freq(theta, head_dim).astype(np.float32)


@np.errstate(over="ignore", invalid="ignore")
def linear_rope(theta: float, head_dim: int, *, factor: float) -> Rope:
    """Positions that count 1 / factor each."""
    return Rope((_inv_freq(theta, head_dim) / factor).astype(np.float32))


@np.errstate(over="ignore", invalid="ignore")
def llama3_rope(
    theta: float,
    head_dim: int,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_context: int,
) -> Rope:
    """Llama 3.1: high frequencies stay, low ones are divided by factor, those between are blended.

    original_context: tokens the model was trained on before its context was made longer
    """
    inv_freq = _inv_freq(theta, head_dim)
    turns = original_context * inv_freq / (2 * math.pi)  # within the original context
    blend = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return Rope(((1 - blend) * inv_freq / factor + blend * inv_freq).astype(np.float32))


@np.errstate(over="ignore", invalid="ignore")
def yarn_rope(
    theta: float,
    head_dim: int,
    *,
    factor: float,
    original_context: int,
    attention_factor: float,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Rope:
    """YaRN: elements that turn more than beta_fast times within the original context stay, those that turn less than
    beta_slow times are divided by factor, and a ramp over the elements' numbers lies between.

    truncate: the ramp begins and ends at whole numbers
    """

    def element_that_turns(times: float) -> float:
        turns = original_context / (times * 2 * math.pi)
        bounded = min(max(turns, sys.float_info.min), sys.float_info.max)  # whatever beta a file may say
        return head_dim * math.log(bounded) / (2 * math.log(theta))

    low, high = element_that_turns(beta_fast), element_that_turns(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(float(low), 0.0), min(float(high), head_dim - 1.0)
    width = high - low or 0.001
    ramp = np.clip((np.arange(head_dim // 2) - low) / width, 0, 1)
    inv_freq = _inv_freq(theta, head_dim)
    return Rope((inv_freq / factor * ramp + inv_freq * (1 - ramp)).astype(np.float32), attention_factor)


def yarn_attention_factor(factor: float, mscale: float | None = None, mscale_all_dim: float | None = None) -> float:
    """YaRN's own choice of the attention factor; mscale and mscale_all_dim are DeepSeek's, and count together only."""

    def for_scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if mscale and mscale_all_dim:
        return for_scale(mscale) / for_scale(mscale_all_dim)
    return for_scale(1.0)


def _inv_freq(theta: float, head_dim: int) -> NDArray[np.float64]:
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    return 1.0 / np.float64(theta) ** exponents
