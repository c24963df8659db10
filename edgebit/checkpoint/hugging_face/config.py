"""config.json and generation_config.json, each value checked as it is taken."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebit.bundle.model_format import MAX_STOP_TOKENS, Activation, Conf
from edgebit.checkpoint.checkpoint import ModelConfig
from edgebit.checkpoint.hugging_face.families import Family
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.licence import find_licence
from edgebit.checkpoint.rope import rope_inv_freq
from edgebit.errors import CheckpointError

_ACTIVATIONS = {"relu2": Activation.RELU2, "silu": Activation.SILU}
_ADVISED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def read_config(folder: Path, config: Mapping[str, Any], family: Family) -> ModelConfig:
    """The configuration that config.json and generation_config.json give. Raises CheckpointError naming the key."""
    keys = _Keys(folder / "config.json", {**family.defaults, **config})
    heads = keys.count("num_attention_heads", 1024)
    hidden = keys.count("hidden_size", 65536)
    head_dim = keys.count("head_dim", 1024) if keys.get("head_dim") is not None else hidden // heads
    if keys.get("head_dim") is None and hidden % heads:
        raise keys.fault("hidden_size", f"is no multiple of num_attention_heads, {heads}")
    kv_heads = keys.count("num_key_value_heads", 1024) if keys.get("num_key_value_heads") is not None else heads
    if heads % kv_heads:
        raise keys.fault("num_key_value_heads", f"does not divide num_attention_heads, {heads}")
    if head_dim % 2:
        raise keys.fault("head_dim", f"is {head_dim}: an even number is needed")
    for key in ("attention_bias", "mlp_bias"):
        if keys.get(key):
            raise keys.fault(key, "is set: biases are not known")
    activation = keys.get("hidden_act")
    if activation not in _ACTIVATIONS:
        raise keys.fault("hidden_act", f"is {activation!r}; known are {', '.join(_ACTIVATIONS)}")
    vocab_size = keys.count("vocab_size", 2_097_152)
    generation_path = folder / "generation_config.json"
    generation = read_json(generation_path) if generation_path.is_file() else {}
    generation_keys = _Keys(generation_path, generation)
    eos = [*generation_keys.token_ids("eos_token_id", vocab_size), *keys.token_ids("eos_token_id", vocab_size)]
    stops = list(dict.fromkeys(eos))
    if len(stops) > MAX_STOP_TOKENS:
        raise generation_keys.fault("eos_token_id", f"gives {len(stops)} stop tokens; {MAX_STOP_TOKENS} are known")
    bos = keys.token_ids("bos_token_id", vocab_size)
    return ModelConfig(
        name=folder.resolve().name,
        conf=Conf(
            hidden_size=hidden,
            ffn_size=keys.count("intermediate_size", 262_144),
            n_layers=keys.count("num_hidden_layers", 1024),
            n_heads=heads,
            n_kv_heads=kv_heads,
            head_dim=head_dim,
            vocab_size=vocab_size,
            context_max=keys.count("max_position_embeddings", 16_777_216),
            rms_norm_eps=keys.positive("rms_norm_eps"),
            activation=_ACTIVATIONS[activation],
            norms=family.norms,
            head_tied=keys.flag("tie_word_embeddings"),
            bos_token=bos[0] if bos else -1,
            stop_tokens=tuple(stops),
        ),
        rope_inv_freq=rope_inv_freq(_rope_theta(keys), head_dim),
        generation={key: generation[key] for key in _ADVISED if _is_number(generation.get(key))},
        licence=find_licence(folder, config),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rope_theta(keys: "_Keys") -> float:
    """theta of a RoPE without scaling: newer files keep it in rope_parameters."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = keys.get(key)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise keys.fault(key, "is no object")
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type != "default":
            raise keys.fault(key, f"asks for {rope_type!r}: scaled RoPE is not known")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise keys.fault(key, "asks for a partial rotation, which is not known")
        if "rope_theta" in rope:
            return _Keys(keys.path, rope).positive("rope_theta")
    return keys.positive("rope_theta")


class _Keys:
    """The values of a configuration file, each checked as it is taken."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self._values = path, values

    def fault(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {key} {what}")

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def count(self, key: str, most: int) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.fault(key, f"is {value!r}; a whole number from 1 to {most} is needed")
        return value

    def positive(self, key: str) -> float:
        value = self.get(key)
        if not _is_number(value) or value <= 0:
            raise self.fault(key, f"is {value!r}; a number above 0 is needed")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._values.get(key, False)
        if not isinstance(value, bool):
            raise self.fault(key, f"is {value!r}; true or false is needed")
        return value

    def token_ids(self, key: str, vocab_size: int) -> list[int]:
        value = self.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        for token in ids:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
                raise self.fault(key, f"holds {token!r}; ids from 0 to {vocab_size - 1} are known")
        return ids
