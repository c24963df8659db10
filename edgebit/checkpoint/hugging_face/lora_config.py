"""adapter_config.json of a LoRA adapter: what peft's LoraConfig says, as far as it is a plain low-rank side path.

Source: peft 0.21, tuners/lora/{config,layer}.py; Hu et al. 2021, "LoRA" (arXiv:2106.09685); rsLoRA: Kalajdzievski 2023
(arXiv:2312.03732).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebit.checkpoint.checked_keys import finite_number
from edgebit.checkpoint.hugging_face.config_keys import ConfigKeys
from edgebit.checkpoint.hugging_face.json_file import read_json

CONFIG_NAME = "adapter_config.json"
MAX_RANK = 65_536
MAX_ALPHA = 1e6
_PLAIN_INITIALISATIONS = (None, True, False, "gaussian", "eva", "orthogonal")
_PLAIN_PATTERN = re.compile(r"\^?[A-Za-z0-9_.]+")
# What has no part in what a trained adapter computes.
_SILENT = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
    "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
_REFUSED = {
    "use_dora": "DoRA scales the base's weights by column, so it is no side path: train with use_dora false",
    "fan_in_fan_out": "weights of ternary models lie [out, in]: train with fan_in_fan_out false",
    "lora_bias": "projections of ternary models have no bias: train with lora_bias false",
    "modules_to_save": "whole modules beside the low-rank pairs are not known: train without modules_to_save",
    "trainable_token_indices": "trained embeddings are not known: train without trainable_token_indices",
    "target_parameters": "side paths of bare parameters are not known: train with target_modules",
    "layer_replication": "layers used twice are not known: train without layer_replication",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """A plain LoRA's settings, in peft's terms."""

    rank: int  # peft's r
    alpha: float
    dropout: float = 0.0  # of the side path's input, while training
    target_modules: tuple[str, ...] | str = ()  # names of projections, or a word for many as peft's "all-linear"
    use_rslora: bool = False  # alpha / sqrt(rank) in place of alpha / rank
    base_model: str | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)  # by module; others have `rank`
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def rank_of(self, module: str) -> int:
        """The rank of a module, named as model.layers.0.self_attn.q_proj."""
        return next((rank for name, rank in self.rank_pattern.items() if _matches(name, module)), self.rank)

    def scale_of(self, module: str) -> float:
        """What a module's low-rank product is multiplied by."""
        alpha = next((alpha for name, alpha in self.alpha_pattern.items() if _matches(name, module)), self.alpha)
        rank = self.rank_of(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def as_json(self) -> dict[str, Any]:
        """The content of adapter_config.json."""
        targets = self.target_modules
        return {
            "alpha_pattern": dict(self.alpha_pattern),
            "base_model_name_or_path": self.base_model,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": int(self.alpha) if self.alpha == int(self.alpha) else self.alpha,
            "lora_dropout": self.dropout,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": dict(self.rank_pattern),
            "target_modules": targets if isinstance(targets, str) else list(targets),
            "task_type": "CAUSAL_LM",
            "use_dora": False,
            "use_rslora": self.use_rslora,
        }


def read_lora_config(folder: Path) -> LoraConfig:
    """The settings in a peft folder. Raises CheckpointError naming the key that says more than a plain LoRA."""
    values = read_json(folder / CONFIG_NAME)
    keys = ConfigKeys(folder / CONFIG_NAME, values)
    if keys.get("peft_type") != "LORA":
        raise keys.fault("peft_type", f"is {keys.get('peft_type')!r}; known is 'LORA'")
    _refuse_variants(keys, values)
    dropout = finite_number(values.get("lora_dropout", 0.0))
    if dropout is None or not 0 <= dropout < 1:
        raise keys.fault("lora_dropout", f"is {values['lora_dropout']!r}; a number from 0 to below 1 is needed")
    base = keys.get("base_model_name_or_path")
    return LoraConfig(
        rank=keys.count("r", MAX_RANK),
        alpha=_alpha(keys, "lora_alpha", keys.get("lora_alpha")),
        dropout=dropout,
        target_modules=_targets(keys),
        use_rslora=keys.flag("use_rslora"),
        base_model=base if isinstance(base, str) else None,
        rank_pattern={name: keys.as_count("rank_pattern", n, MAX_RANK) for name, n in _pattern(keys, "rank_pattern")},
        alpha_pattern={name: _alpha(keys, "alpha_pattern", value) for name, value in _pattern(keys, "alpha_pattern")},
    )


def _refuse_variants(keys: ConfigKeys, values: Mapping[str, Any]) -> None:
    for key, why in _REFUSED.items():
        if keys.get(key):
            raise keys.fault(key, f"is {keys.get(key)!r}: {why}")
    if values.get("bias", "none") != "none":
        raise keys.fault("bias", f"is {values['bias']!r}: projections of ternary models have none. Train with 'none'")
    start = keys.get("init_lora_weights")
    if start not in _PLAIN_INITIALISATIONS:
        raise keys.fault(
            "init_lora_weights",
            f"is {start!r}, which changes the base's weights too; known are true, false and 'gaussian'. "
            "peft can convert the adapter to plain LoRA when it saves it (path_initial_model_for_weight_conversion)",
        )
    for key in sorted(values.keys() - _SILENT - _REFUSED.keys() - {"bias"}):
        if values[key]:
            raise keys.fault(key, f"is {values[key]!r}: not known; it may be more than a plain low-rank side path")


def _targets(keys: ConfigKeys) -> tuple[str, ...] | str:
    targets = keys.get("target_modules")
    if isinstance(targets, str):
        return targets
    if targets is not None and not (isinstance(targets, list) and all(isinstance(each, str) for each in targets)):
        raise keys.fault("target_modules", f"is {targets!r}; names of modules are needed")
    return tuple(targets or ())


def _pattern(keys: ConfigKeys, key: str) -> list[tuple[str, Any]]:
    pattern = keys.get(key) or {}
    if not isinstance(pattern, dict):
        raise keys.fault(key, f"is {pattern!r}; an object is needed")
    for name in pattern:
        if not _PLAIN_PATTERN.fullmatch(name):
            raise keys.fault(key, f"holds {name!r}: modules are known by their names alone, not by other expressions")
    return list(pattern.items())


def _alpha(keys: ConfigKeys, key: str, value: object) -> float:
    number = finite_number(value)
    if number is None or abs(number) > MAX_ALPHA:
        raise keys.fault(key, f"holds {value!r}; a number up to {MAX_ALPHA:g} is needed")
    return number


def _matches(name: str, module: str) -> bool:
    """Whether peft takes a pattern's name for the module: it is the module's whole name, or its last parts."""
    if name.startswith("^"):
        return module == name[1:]
    return module == name or module.endswith(f".{name}")
