"""config.json and generation_config.json of a model, for transformers' own classes.

Sources: transformers 5.24, models/{bitnet,llama,qwen3} and quantizers/quantizer_bitnet.py.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgebit.bundle.model_format import Activation, Conf, Norms, Role
from edgebit.checkpoint.checkpoint import ModelConfig
from edgebit.errors import ExportError
from edgebit.export.float_types import FloatType
from edgebit.export.rope_parameters import HIGH_FREQ_FACTOR, LOW_FREQ_FACTOR, find_rope_parameters

LinearClass = Literal["autobitlinear", "bitlinear"]  # output times the stored scale, or divided by it
_SUB_NORMS = Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM
_ATTENTION, _MLP = "model.layers.{}.self_attn.", "model.layers.{}.mlp."
TENSOR_NAMES = {
    Role.TOKEN_EMBEDDING: "model.embed_tokens",
    Role.HEAD: "lm_head",
    Role.FINAL_NORM: "model.norm",
    Role.INPUT_NORM: "model.layers.{}.input_layernorm",
    Role.Q_PROJ: _ATTENTION + "q_proj",
    Role.K_PROJ: _ATTENTION + "k_proj",
    Role.V_PROJ: _ATTENTION + "v_proj",
    Role.ATTN_SUB_NORM: _ATTENTION + "attn_sub_norm",
    Role.O_PROJ: _ATTENTION + "o_proj",
    Role.POST_ATTENTION_NORM: "model.layers.{}.post_attention_layernorm",
    Role.GATE_PROJ: _MLP + "gate_proj",
    Role.UP_PROJ: _MLP + "up_proj",
    Role.FFN_SUB_NORM: _MLP + "ffn_sub_norm",
    Role.DOWN_PROJ: _MLP + "down_proj",
    Role.Q_NORM: _ATTENTION + "q_norm",
    Role.K_NORM: _ATTENTION + "k_norm",
}
TENSOR_NAMES |= {
    role.norm_of: name + ".rms_norm" for role, name in TENSOR_NAMES.items() if role.is_projection
}  # with use_rms_norm


@dataclass(frozen=True, slots=True)
class HuggingFaceClass:
    """A class of transformers that computes a model."""

    architecture: str
    model_type: str


_BITNET = HuggingFaceClass("BitNetForCausalLM", "bitnet")
_LLAMA = HuggingFaceClass("LlamaForCausalLM", "llama")
_QWEN3 = HuggingFaceClass("Qwen3ForCausalLM", "qwen3")


def choose_class(conf: Conf) -> HuggingFaceClass:
    """The class that computes what `conf` asks for. Raises ExportError where transformers has none."""
    match conf.norms & ~Norms.PROJECTION_NORM, conf.activation:
        case norms, _ if norms == _SUB_NORMS:
            return _BITNET
        case norms, Activation.SILU if not norms:
            return _LLAMA
        case Norms.QK_NORM, Activation.SILU:
            return _QWEN3
    names = ", ".join(norm.name.lower() for norm in conf.norms if norm.name) or "no further norms"
    raise ExportError(f"transformers has no class with {conf.activation.name.lower()} and {names}")


def config_json(
    config: ModelConfig,
    kind: HuggingFaceClass,
    *,
    linear_class: LinearClass | None,
    dtype: FloatType,
) -> dict[str, Any]:
    """config.json; linear_class: None says nothing of ternary weights. Raises ExportError on a RoPE it cannot say."""
    conf = config.conf
    return {
        "architectures": [kind.architecture],
        "model_type": kind.model_type,
        "hidden_size": conf.hidden_size,
        "intermediate_size": conf.ffn_size,
        "num_hidden_layers": conf.n_layers,
        "num_attention_heads": conf.n_heads,
        "num_key_value_heads": conf.n_kv_heads,
        "head_dim": conf.head_dim,
        "vocab_size": conf.vocab_size,
        "max_position_embeddings": conf.context_max,
        "hidden_act": conf.activation.name.lower(),
        "rms_norm_eps": _shortest(conf.rms_norm_eps),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": conf.head_tied,
        "bos_token_id": conf.bos_token if conf.bos_token >= 0 else None,
        "eos_token_id": list(conf.stop_tokens) if len(conf.stop_tokens) > 1 else next(iter(conf.stop_tokens), None),
        "torch_dtype": dtype,
        "use_cache": True,
        **({} if linear_class is None else {"quantization_config": _quantization(conf, linear_class)}),
        **_rope(config),
    }


def _quantization(conf: Conf, linear_class: LinearClass) -> dict[str, Any]:
    quantization = {"quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": "offline"}
    if Norms.PROJECTION_NORM not in conf.norms:
        return quantization
    return {**quantization, "use_rms_norm": True, "rms_norm_eps": _shortest(conf.projection_norm_eps)}


def generation_config_json(config: ModelConfig) -> dict[str, Any]:
    """generation_config.json: the tokens that begin and end, and what the makers advise for sampling."""
    conf = config.conf
    sampling = bool(config.generation)
    return {
        **({"bos_token_id": conf.bos_token} if conf.bos_token >= 0 else {}),
        **({"eos_token_id": list(conf.stop_tokens)} if conf.stop_tokens else {}),
        "do_sample": sampling,
        **config.generation,
    }


def _rope(config: ModelConfig) -> dict[str, Any]:
    rope, attention = find_rope_parameters(config.rope_inv_freq), config.conf.rope_attention_factor
    if rope.kind == "other":
        raise ExportError(
            "the RoPE is scaled by frequency in a way that is not Llama 3.1's nor YaRN's; config.json has no other"
        )
    if rope.kind != "yarn" and attention != 1:
        raise ExportError("the RoPE multiplies attention as YaRN does, but its frequencies are not YaRN's")
    scaling: dict[str, Any] = {"rope_type": rope.kind, "factor": rope.factor}
    if rope.kind in ("llama3", "yarn"):
        scaling["original_max_position_embeddings"] = rope.original_context
    if rope.kind == "llama3":
        scaling |= {"low_freq_factor": LOW_FREQ_FACTOR, "high_freq_factor": HIGH_FREQ_FACTOR}
    if rope.kind == "yarn":
        scaling["attention_factor"] = _shortest(attention)
    return {"rope_theta": rope.theta, **({} if rope.kind == "default" else {"rope_scaling": scaling})}


def _shortest(value: float) -> float:
    """The number of fewest digits that is the same float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
