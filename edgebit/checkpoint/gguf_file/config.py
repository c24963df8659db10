"""From a GGUF file's keys to a model's configuration, each value checked as it is taken."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.conf_section import SIZE_MAX
from edgebit.bundle.model_format import Activation, Conf
from edgebit.checkpoint.checked_keys import finite_number
from edgebit.checkpoint.checkpoint import ModelConfig
from edgebit.checkpoint.gguf_file.architectures import Architecture
from edgebit.checkpoint.gguf_file.keys import Keys
from edgebit.checkpoint.gguf_file.metadata import Value
from edgebit.checkpoint.gguf_file.rope import read_rope
from edgebit.errors import CheckpointError

# Keys of an architecture that change what is computed, with the values that change nothing.
_NEUTRAL: Mapping[str, tuple[Value, ...]] = {
    "expert_count": (0, 1),
    "attention.sliding_window": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "pooling_type": (0,),
    "use_parallel_residual": (False,),
    "rope.scaling.alpha": (0.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0, -1.0),  # as if it was not there
}
_NO_TOKEN = 0xFFFFFFFF  # how -1 is written
_ADVISED = {
    "temp": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "penalty_repeat": "repetition_penalty",
}  # fmt: skip


def read_config(
    path: Path,
    fields: Mapping[str, Value],
    architecture: Architecture,
    *,
    activation: Activation,
    vocab_size: int,
    rope_factors: NDArray[np.float32] | None,
) -> ModelConfig:
    """The configuration that the keys give, as if the head was not tied and activations were int8.

    vocab_size: the rows of the embedding; rope_factors: what the frequencies are divided by, [head_dim / 2]
    Raises CheckpointError naming the key that is missing, wrong or contradicted.
    """
    keys = Keys(path, fields, architecture.name)
    _check_neutral(keys)
    hidden, heads = (
        keys.count("embedding_length", SIZE_MAX["hidden_size"]),
        keys.count("attention.head_count", SIZE_MAX["n_heads"]),
    )
    kv_heads = keys.count("attention.head_count_kv", SIZE_MAX["n_kv_heads"], default=heads)
    if heads % kv_heads:
        raise keys.fault("attention.head_count_kv", f"is {kv_heads}, which does not divide head_count, {heads}")
    head_dim = _head_dim(keys, hidden, heads)
    if keys.count("vocab_size", SIZE_MAX["vocab_size"], default=vocab_size) != vocab_size:
        raise keys.fault("vocab_size", f"is {keys.get('vocab_size')}, token_embd.weight has {vocab_size} rows")
    rope = read_rope(keys, head_dim, rope_factors)
    return ModelConfig(
        name=_name(path, fields),
        conf=Conf(
            hidden_size=hidden,
            ffn_size=keys.count("feed_forward_length", SIZE_MAX["ffn_size"]),
            n_layers=keys.count("block_count", SIZE_MAX["n_layers"]),
            n_heads=heads,
            n_kv_heads=kv_heads,
            head_dim=head_dim,
            vocab_size=vocab_size,
            context_max=keys.count("context_length", SIZE_MAX["context_max"]),
            rms_norm_eps=keys.positive("attention.layer_norm_rms_epsilon"),
            activation=activation,
            norms=architecture.norms,
            head_tied=False,
            bos_token=_bos(path, fields, vocab_size),
            stop_tokens=_stops(path, fields, vocab_size),
            rope_attention_factor=rope.attention_factor,
        ),
        rope_inv_freq=rope.inv_freq,
        generation=_generation(fields),
        licence=_licence(fields),
    )


def _check_neutral(keys: Keys) -> None:
    for key, neutral in _NEUTRAL.items():
        value = keys.get(key)
        if value is not None and not (not isinstance(value, np.ndarray) and value in neutral):
            raise keys.fault(key, f"is {value!r}, which edgebit does not compute")


def _head_dim(keys: Keys, hidden: int, heads: int) -> int:
    if keys.get("attention.key_length") is None and hidden % heads:
        raise keys.fault("embedding_length", f"is {hidden}, no multiple of attention.head_count, {heads}")
    head_dim = keys.count("attention.key_length", SIZE_MAX["head_dim"], default=hidden // heads)
    for key, why in (("attention.value_length", "keys and values"), ("rope.dimension_count", "a part of each head")):
        found = keys.count(key, SIZE_MAX["head_dim"], default=head_dim)
        if found != head_dim:
            raise keys.fault(key, f"is {found}, a head has {head_dim}: {why} of another size are not known")
    if head_dim % 2:
        raise keys.fault("attention.key_length", f"is {head_dim}: an even number is needed")
    return head_dim


def _name(path: Path, fields: Mapping[str, Value]) -> str:
    name = fields.get("general.name")
    return name if isinstance(name, str) and name.strip() else path.stem


def _licence(fields: Mapping[str, Value]) -> str | None:
    value = fields.get("general.license")
    return value.strip().lower() if isinstance(value, str) and value.strip() else None


def _generation(fields: Mapping[str, Value]) -> dict[str, float]:
    found = {name: finite_number(fields.get(f"general.sampling.{key}")) for key, name in _ADVISED.items()}
    # A float32 has seven digits: 0.6, and not 0.6000000238.
    return {name: float(f"{value:.7g}") for name, value in found.items() if value is not None}


def _bos(path: Path, fields: Mapping[str, Value], vocab_size: int) -> int:
    if fields.get("tokenizer.ggml.add_bos_token") is False:
        return -1
    return next(iter(_token_ids(path, fields, ("bos",), vocab_size)), -1)


def _stops(path: Path, fields: Mapping[str, Value], vocab_size: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_token_ids(path, fields, ("eos", "eot", "eom"), vocab_size)))


def _token_ids(path: Path, fields: Mapping[str, Value], names: tuple[str, ...], vocab_size: int) -> list[int]:
    ids = []
    for name in names:
        key = f"tokenizer.ggml.{name}_token_id"
        value = fields.get(key)
        if value is None or (isinstance(value, int) and value == _NO_TOKEN):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab_size:
            raise CheckpointError(f"{path}: {key} is {value!r}; ids from 0 to {vocab_size - 1} are known")
        ids.append(value)
    return ids
