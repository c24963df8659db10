"""Which RoPE a GGUF file's keys ask for.

Source: llama.cpp, llama-context.cpp (defaults, the factor of attention) and ggml's rope_yarn. YaRN's two betas mean
what they mean in the checkpoint that a file was made from; for these architectures llama.cpp does not look at them.
"""

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.conf_section import ROPE_ATTENTION_FACTOR_MAX, SIZE_MAX
from edgebit.checkpoint.gguf_file.keys import Keys
from edgebit.checkpoint.rope import Rope, linear_rope, rope_inv_freq, yarn_attention_factor, yarn_rope

_DEFAULT_THETA = 10000.0


@np.errstate(over="ignore", invalid="ignore")
def read_rope(keys: Keys, head_dim: int, divisors: NDArray[np.float32] | None) -> Rope:
    """The RoPE of the keys. Raises CheckpointError naming the key where it is none that edgebit computes.

    divisors: of the frequencies, [head_dim / 2], where the file has a tensor of them
    """
    rope = _scaled(keys, head_dim)
    attention = rope.attention_factor * keys.positive("rope.scaling.attn_factor", default=1.0)
    if attention > ROPE_ATTENTION_FACTOR_MAX:
        fault = f"gives attention the factor {attention}; {ROPE_ATTENTION_FACTOR_MAX} is the most"
        raise keys.fault("rope.scaling.attn_factor", fault)
    return Rope(rope.inv_freq if divisors is None else rope.inv_freq / divisors, attention)


def _scaled(keys: Keys, head_dim: int) -> Rope:
    theta = keys.positive("rope.freq_base", default=_DEFAULT_THETA)
    older = keys.positive("rope.scale_linear", default=1.0)  # of files before rope.scaling
    factor = keys.positive("rope.scaling.factor", default=older)
    kind = keys.get("rope.scaling.type")
    if kind is None:
        return linear_rope(theta, head_dim, factor=factor)
    if isinstance(kind, str):
        match kind:
            case "none":
                return Rope(rope_inv_freq(theta, head_dim))
            case "linear":
                return linear_rope(theta, head_dim, factor=factor)
            case "yarn":
                return _yarn(keys, theta, head_dim, factor)
    raise keys.fault("rope.scaling.type", f"is {kind!r}; none, linear and yarn are known")


def _yarn(keys: Keys, theta: float, head_dim: int, factor: float) -> Rope:
    if theta <= 1 or factor < 1:
        raise keys.fault("rope.scaling.type", f"is 'yarn', with base {theta} and factor {factor}: neither can be that")
    context = keys.count("context_length", SIZE_MAX["context_max"])
    return yarn_rope(
        theta,
        head_dim,
        factor=factor,
        original_context=keys.count("rope.scaling.original_context_length", SIZE_MAX["context_max"], default=context),
        attention_factor=yarn_attention_factor(factor),
        beta_fast=keys.positive("rope.scaling.yarn_beta_fast", default=32.0),
        beta_slow=keys.positive("rope.scaling.yarn_beta_slow", default=1.0),
    )
