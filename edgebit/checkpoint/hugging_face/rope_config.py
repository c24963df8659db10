"""What config.json says about rotary position embedding: rope_theta, rope_scaling (older files), rope_parameters."""

import math

from edgebit.bundle.conf_section import ROPE_ATTENTION_FACTOR_MAX, SIZE_MAX
from edgebit.checkpoint.hugging_face.config_keys import ConfigKeys
from edgebit.checkpoint.rope import Rope, linear_rope, llama3_rope, rope_inv_freq, yarn_attention_factor, yarn_rope

_KNOWN = ("default", "linear", "llama3", "yarn")
_WHY_NOT = {
    "dynamic": "its frequencies change with the length of the text, so a KV cache would have to be computed anew",
    "longrope": "its frequencies change with the length of the text, so a KV cache would have to be computed anew",
}


def read_rope(keys: ConfigKeys, head_dim: int) -> Rope:
    """The RoPE of a config.json. Raises CheckpointError naming the key where it is none that edgebit computes."""
    _refuse_partial(keys)
    name = next((key for key in ("rope_parameters", "rope_scaling") if keys.get(key) is not None), None)
    rope = keys.part(name) if name else None
    if rope is None or name is None:
        return Rope(rope_inv_freq(keys.positive("rope_theta"), head_dim))
    _refuse_partial(rope)
    theta = rope.positive("rope_theta") if rope.get("rope_theta") is not None else keys.positive("rope_theta")
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    if any(isinstance(rope.get(layer_type), dict) for layer_type in ("full_attention", "sliding_attention")):
        raise keys.fault(name, "differs between layers, which is not known")
    match rope_type:
        case "default":
            return Rope(rope_inv_freq(theta, head_dim))
        case "linear":
            return linear_rope(theta, head_dim, factor=_factor(rope))
        case "llama3":
            return _llama3(keys, rope, theta, head_dim)
        case "yarn":
            return _yarn(keys, rope, theta, head_dim)
    why = _WHY_NOT.get(rope_type, "is not known") if isinstance(rope_type, str) else "is not known"
    raise keys.fault(name, f"asks for {rope_type!r}: {why}. Known are {', '.join(_KNOWN)}")


def _refuse_partial(keys: ConfigKeys) -> None:
    if (keys.get("partial_rotary_factor") or 1.0) != 1.0:
        raise keys.fault("partial_rotary_factor", "asks for a partial rotation, which is not known")


def _factor(rope: ConfigKeys) -> float:
    factor = rope.positive("factor")
    if factor < 1:
        raise rope.fault("factor", f"is {factor}; 1 or more is needed")
    return factor


def _original_context(keys: ConfigKeys, rope: ConfigKeys) -> int:
    """Tokens before the context was made longer: of the file itself first, then of the RoPE, then the context."""
    for place in (keys, rope):
        if place.get("original_max_position_embeddings") is not None:
            return place.count("original_max_position_embeddings", SIZE_MAX["context_max"])
    return keys.count("max_position_embeddings", SIZE_MAX["context_max"])


def _llama3(keys: ConfigKeys, rope: ConfigKeys, theta: float, head_dim: int) -> Rope:
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if high <= low:
        raise rope.fault("high_freq_factor", f"is {high}; more than low_freq_factor, {low}, is needed")
    return llama3_rope(
        theta,
        head_dim,
        factor=_factor(rope),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context=_original_context(keys, rope),
    )


def _yarn(keys: ConfigKeys, rope: ConfigKeys, theta: float, head_dim: int) -> Rope:
    original = _original_context(keys, rope)
    if rope.get("factor") is None:
        factor = keys.count("max_position_embeddings", SIZE_MAX["context_max"]) / original
    else:
        factor = _factor(rope)
    if theta <= 1:
        raise keys.fault("rope_theta", f"is {theta}; YaRN needs more than 1")
    weights = [rope.positive(key) if rope.get(key) else None for key in ("mscale", "mscale_all_dim")]
    attention = rope.positive("attention_factor", yarn_attention_factor(factor, *weights))
    if not math.isfinite(attention) or attention > ROPE_ATTENTION_FACTOR_MAX:
        raise rope.fault("attention_factor", f"is {attention}; {ROPE_ATTENTION_FACTOR_MAX} is the most")
    return yarn_rope(
        theta,
        head_dim,
        factor=factor,
        original_context=original,
        attention_factor=attention,
        beta_fast=rope.positive("beta_fast", 32.0),
        beta_slow=rope.positive("beta_slow", 1.0),
        truncate=rope.flag("truncate", True),
    )
