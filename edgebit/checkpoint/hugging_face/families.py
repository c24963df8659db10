"""The model families edgebit knows: a family is one row of FAMILIES, matched on what config.json says.

A row says which tensors there are and what their numbers mean. Sources: transformers 5.23 (models/bitnet,
integrations/bitnet.py) for the first three, 1bitLLM's own modelling file for the fourth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edgebit.bundle.model_format import NO_LAYER, Norms, Role
from edgebit.errors import CheckpointError


class Scale(Enum):
    """What turns a projection's integers into its output."""

    MULTIPLY = "multiply"  # packed codes and a stored weight_scale, mean|W|, that multiplies
    DIVIDE = "divide"  # packed codes and a stored weight_scale, 1 / mean|W|, that divides
    ABSMEAN = "absmean"  # master weights in floating point, quantised when they are read


_NAMES = {
    Role.TOKEN_EMBEDDING: "model.embed_tokens.weight",
    Role.HEAD: "lm_head.weight",
    Role.FINAL_NORM: "model.norm.weight",
    Role.INPUT_NORM: "model.layers.{}.input_layernorm.weight",
    Role.Q_PROJ: "model.layers.{}.self_attn.q_proj.weight",
    Role.K_PROJ: "model.layers.{}.self_attn.k_proj.weight",
    Role.V_PROJ: "model.layers.{}.self_attn.v_proj.weight",
    Role.O_PROJ: "model.layers.{}.self_attn.o_proj.weight",
    Role.POST_ATTENTION_NORM: "model.layers.{}.post_attention_layernorm.weight",
    Role.GATE_PROJ: "model.layers.{}.mlp.gate_proj.weight",
    Role.UP_PROJ: "model.layers.{}.mlp.up_proj.weight",
    Role.DOWN_PROJ: "model.layers.{}.mlp.down_proj.weight",
}
_SUB_NORM_NAMES = {
    Role.ATTN_SUB_NORM: "model.layers.{}.self_attn.attn_sub_norm.weight",
    Role.FFN_SUB_NORM: "model.layers.{}.mlp.ffn_sub_norm.weight",
}
_LEGACY_SUB_NORM_NAMES = {
    Role.ATTN_SUB_NORM: "model.layers.{}.self_attn.inner_attn_ln.weight",
    Role.FFN_SUB_NORM: "model.layers.{}.mlp.ffn_layernorm.weight",
}
# What transformers takes where config.json is silent.
_DEFAULTS = {"max_position_embeddings": 2048}
_BITNET_DEFAULTS = _DEFAULTS | {"hidden_act": "relu2", "rope_theta": 500000.0, "rms_norm_eps": 1e-5}
_LLAMA_DEFAULTS = _DEFAULTS | {"hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-6}


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One storage form of one architecture."""

    name: str
    architecture: str  # in config.json's architectures
    model_type: str
    linear_class: str | None  # of quantization_config; None: the config has no quantization_config
    quantization_mode: str | None
    scale: Scale
    tensor_names: Mapping[Role, str]  # {} stands for the layer
    scale_suffix: str = "_scale"  # added to a projection's name: the tensor that holds its scale
    defaults: Mapping[str, Any]  # for keys of config.json that may be missing
    ignored_suffix: str = (
        ".rotary_emb.inv_freq"  # older files store it; it follows from theta, and transformers skips it
    )
    demands: Mapping[str, Any] = field(default_factory=dict)  # further keys of config.json and their only known value

    @property
    def norms(self) -> Norms:
        """The sub-norms this family has."""
        attn = Norms.ATTN_SUB_NORM if Role.ATTN_SUB_NORM in self.tensor_names else Norms(0)
        return attn | (Norms.FFN_SUB_NORM if Role.FFN_SUB_NORM in self.tensor_names else Norms(0))

    def tensor_name(self, role: Role, layer: int = NO_LAYER) -> str:
        """The checkpoint's name of a tensor."""
        return self.tensor_names[role].format(layer)

    @property
    def form(self) -> str:
        """The evidence this family is matched on, as a refusal prints it."""
        return describe_form(self.architecture, self.model_type, self.linear_class, self.quantization_mode)


FAMILIES = (
    Family(  # microsoft/bitnet-b1.58-2B-4T
        name="bitnet-packed",
        architecture="BitNetForCausalLM",
        model_type="bitnet",
        linear_class="autobitlinear",
        quantization_mode="offline",
        scale=Scale.MULTIPLY,
        tensor_names=_NAMES | _SUB_NORM_NAMES,
        defaults=_BITNET_DEFAULTS,
    ),
    Family(  # microsoft/bitnet-b1.58-2B-4T-bf16, and most fine-tunes
        name="bitnet-master",
        architecture="BitNetForCausalLM",
        model_type="bitnet",
        linear_class="autobitlinear",
        quantization_mode="online",
        scale=Scale.ABSMEAN,
        tensor_names=_NAMES | _SUB_NORM_NAMES,
        defaults=_BITNET_DEFAULTS,
    ),
    Family(  # HF1BitLLM/Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E
        name="llama-bitlinear-packed",
        architecture="LlamaForCausalLM",
        model_type="llama",
        linear_class="bitlinear",
        quantization_mode="offline",
        scale=Scale.DIVIDE,
        tensor_names=_NAMES,
        defaults=_LLAMA_DEFAULTS,
    ),
    Family(  # 1bitLLM/bitnet_b1_58-large, -xl, -3B
        name="bitnet-1bitllm-master",
        architecture="BitnetForCausalLM",
        model_type="llama",
        linear_class=None,
        quantization_mode=None,
        scale=Scale.ABSMEAN,
        tensor_names=_NAMES | _LEGACY_SUB_NORM_NAMES,
        defaults=_LLAMA_DEFAULTS,
        demands={"weight_bits": 1, "input_bits": 8},
    ),
)


def describe_form(architecture: str, model_type: str, linear_class: str | None, mode: str | None) -> str:
    """One line for a storage form."""
    quantised = f"quantised {linear_class}/{mode}" if linear_class else "no quantization_config"
    return f"{architecture} (model_type {model_type}, {quantised})"


def match_family(config: Mapping[str, Any], where: str) -> Family:
    """The family that config.json describes; `where` names that file.

    Raises CheckpointError saying what was found and what is known.
    """
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and len(architectures) == 1 else None
    model_type = config.get("model_type")
    if not isinstance(architecture, str) or not isinstance(model_type, str):
        raise CheckpointError(
            f"{where}: one name in architectures and a model_type are needed; found {architectures!r}, {model_type!r}"
        )
    quantization = config.get("quantization_config")
    linear_class = mode = None
    if quantization is not None:
        if not isinstance(quantization, dict) or quantization.get("quant_method") != "bitnet":
            method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
            raise CheckpointError(f"{where}: quantization_config.quant_method is {method!r}; known is 'bitnet'")
        linear_class = str(quantization.get("linear_class", "bitlinear"))  # transformers' defaults
        mode = str(quantization.get("quantization_mode", "offline"))
        if quantization.get("use_rms_norm"):
            raise CheckpointError(
                f"{where}: quantization_config.use_rms_norm puts a norm inside each projection, which the model file "
                "cannot hold; a checkpoint without it is needed"
            )
        kept = quantization.get("modules_to_not_convert") or []
        if not isinstance(kept, list) or any(module != "lm_head" for module in kept):
            raise CheckpointError(
                f"{where}: modules_to_not_convert is {kept!r}; only lm_head may be: all projections must be ternary"
            )
    for family in FAMILIES:
        if (architecture, model_type, linear_class, mode) == (
            family.architecture, family.model_type, family.linear_class, family.quantization_mode,
        ):  # fmt: skip
            for key, wanted in family.demands.items():
                if config.get(key) != wanted:
                    found = config.get(key)
                    raise CheckpointError(f"{where}: {key} is {found!r}; of {family.form}, {wanted!r} is known")
            return family
    known = "; ".join(family.form for family in FAMILIES)
    found = describe_form(architecture, model_type, linear_class, mode)
    raise CheckpointError(f"{where}: unknown model: {found}. Known are: {known}")
