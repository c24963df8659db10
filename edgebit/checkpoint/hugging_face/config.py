"""config.json and generation_config.json, each value checked as it is taken."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebit.bundle.conf_section import SIZE_MAX
from edgebit.bundle.model_format import MAX_STOP_TOKENS, Activation, Conf, Norms
from edgebit.checkpoint.checked_keys import finite_number
from edgebit.checkpoint.checkpoint import ModelConfig
from edgebit.checkpoint.hugging_face.config_keys import ConfigKeys
from edgebit.checkpoint.hugging_face.families import Family
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.rope_config import read_rope
from edgebit.checkpoint.licence import find_licence

ACTIVATIONS = {"relu2": Activation.RELU2, "silu": Activation.SILU}
_ADVISED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_PROJECTION_NORM_EPS = 1e-6  # transformers' default in quantization_config


def read_config(folder: Path, config: Mapping[str, Any], family: Family) -> ModelConfig:
    """The configuration that config.json and generation_config.json give. Raises CheckpointError naming the key."""
    keys = ConfigKeys(folder / "config.json", {**family.architecture.defaults, **config})
    heads, kv_heads, head_dim = _heads(keys)
    _refuse_windows(keys)
    activation = keys.get("hidden_act")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise keys.fault("hidden_act", f"is {activation!r}; known are {', '.join(ACTIVATIONS)}")
    vocab_size = keys.count("vocab_size", SIZE_MAX["vocab_size"])
    generation_path = folder / "generation_config.json"
    generation = read_json(generation_path) if generation_path.is_file() else {}
    bos = keys.token_ids("bos_token_id", vocab_size)
    rope = read_rope(keys, head_dim)
    return ModelConfig(
        name=folder.resolve().name,
        conf=Conf(
            hidden_size=keys.count("hidden_size", SIZE_MAX["hidden_size"]),
            ffn_size=keys.count("intermediate_size", SIZE_MAX["ffn_size"]),
            n_layers=keys.count("num_hidden_layers", SIZE_MAX["n_layers"]),
            n_heads=heads,
            n_kv_heads=kv_heads,
            head_dim=head_dim,
            vocab_size=vocab_size,
            context_max=keys.count("max_position_embeddings", SIZE_MAX["context_max"]),
            rms_norm_eps=keys.positive("rms_norm_eps"),
            activation=ACTIVATIONS[activation],
            norms=family.norms,
            head_tied=keys.flag("tie_word_embeddings"),
            bos_token=bos[0] if bos else -1,
            stop_tokens=_stop_tokens(keys, ConfigKeys(generation_path, generation), vocab_size),
            activation_quantisation=family.storage.activations,
            projection_norm_eps=_projection_norm_eps(keys, family),
            rope_attention_factor=rope.attention_factor,
        ),
        rope_inv_freq=rope.inv_freq,
        generation={key: generation[key] for key in _ADVISED if finite_number(generation.get(key)) is not None},
        licence=find_licence(folder, config),
    )


def _heads(keys: ConfigKeys) -> tuple[int, int, int]:
    """The numbers of heads and of heads of keys and values, and a head's size."""
    heads = keys.count("num_attention_heads", SIZE_MAX["n_heads"])
    hidden = keys.count("hidden_size", SIZE_MAX["hidden_size"])
    head_dim = keys.count("head_dim", SIZE_MAX["head_dim"]) if keys.get("head_dim") is not None else hidden // heads
    if keys.get("head_dim") is None and hidden % heads:
        raise keys.fault("hidden_size", f"is no multiple of num_attention_heads, {heads}")
    kv_heads = (
        keys.count("num_key_value_heads", SIZE_MAX["n_kv_heads"])
        if keys.get("num_key_value_heads") is not None
        else heads
    )
    if heads % kv_heads:
        raise keys.fault("num_key_value_heads", f"does not divide num_attention_heads, {heads}")
    if head_dim % 2:
        raise keys.fault("head_dim", f"is {head_dim}: an even number is needed")
    return heads, kv_heads, head_dim


def _refuse_windows(keys: ConfigKeys) -> None:
    """Refuse attention over a window of the text."""
    if keys.flag("use_sliding_window"):
        raise keys.fault("use_sliding_window", "is set: attention over a window is not known")
    layer_types = keys.get("layer_types") or []
    if not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types):
        raise keys.fault("layer_types", "holds others than full_attention, which alone is known")


def _stop_tokens(keys: ConfigKeys, generation_keys: ConfigKeys, vocab_size: int) -> tuple[int, ...]:
    eos = [*generation_keys.token_ids("eos_token_id", vocab_size), *keys.token_ids("eos_token_id", vocab_size)]
    stops = tuple(dict.fromkeys(eos))
    if len(stops) > MAX_STOP_TOKENS:
        raise generation_keys.fault("eos_token_id", f"gives {len(stops)} stop tokens; {MAX_STOP_TOKENS} are known")
    return stops


def _projection_norm_eps(keys: ConfigKeys, family: Family) -> float:
    quantization = keys.part("quantization_config")
    if quantization is None or Norms.PROJECTION_NORM not in family.norms:
        return 0.0
    return quantization.positive("rms_norm_eps", _PROJECTION_NORM_EPS)
