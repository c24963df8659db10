"""The model families edgebit knows: an architecture is a row of ARCHITECTURES, in one or more storages of projections.

A row says which tensors there are and what their numbers mean. Sources: transformers 5.24 (models/{bitnet,llama,qwen2,
qwen3}, integrations/bitnet.py); of 1bitLLM its own modelling file; of Falcon-E the converter of tiiuae/onebitllms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from edgebit.bundle.model_format import NO_LAYER, PROJECTIONS, ActivationQuantisation, Norms, Role

SCALE_SUFFIX = "_scale"  # added to a projection's name: the tensor that holds its scale
IGNORED_SUFFIX = ".rotary_emb.inv_freq"  # older files store it; it follows from theta, and transformers skips it


class Scale(Enum):
    """What turns a projection's integers into its output."""

    MULTIPLY = "multiply"  # codes and a stored weight_scale, mean|W|, that multiplies
    DIVIDE = "divide"  # codes and a stored weight_scale, 1 / mean|W|, that divides
    ABSMEAN = "absmean"  # master weights in floating point, quantised when they are read
    STORED = "stored"  # floats that are ternary as they stand: each is -1, 0 or +1 times the scale of its row or group


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """One way to store projections, as quantization_config tells it."""

    name: str
    linear_class: str | None  # None: there is no quantization_config
    mode: str | None
    scale: Scale
    activations: ActivationQuantisation = ActivationQuantisation.INT8


PACKED = Storage(name="packed", linear_class="autobitlinear", mode="offline", scale=Scale.MULTIPLY)
MASTER = Storage(name="master", linear_class="autobitlinear", mode="online", scale=Scale.ABSMEAN)
BITLINEAR_PACKED = Storage(name="bitlinear-packed", linear_class="bitlinear", mode="offline", scale=Scale.DIVIDE)
BITLINEAR_MASTER = Storage(name="bitlinear-master", linear_class="bitlinear", mode="online", scale=Scale.ABSMEAN)
BARE_MASTER = Storage(name="master", linear_class=None, mode=None, scale=Scale.ABSMEAN)
BARE_TERNARY = Storage(
    name="ternary", linear_class=None, mode=None, scale=Scale.STORED, activations=ActivationQuantisation.INT15
)
FROM_FLOAT = Storage(name="from-float", linear_class=None, mode=None, scale=Scale.ABSMEAN)  # only where it is asked for
_QUANTISED = (PACKED, MASTER, BITLINEAR_PACKED, BITLINEAR_MASTER)

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
PROJECTION_MODULES = {role: _NAMES[role].removesuffix(".weight") for role in PROJECTIONS}  # alike in all of them
_SUB_NORM_NAMES = {
    Role.ATTN_SUB_NORM: "model.layers.{}.self_attn.attn_sub_norm.weight",
    Role.FFN_SUB_NORM: "model.layers.{}.mlp.ffn_sub_norm.weight",
}
_LEGACY_SUB_NORM_NAMES = {
    Role.ATTN_SUB_NORM: "model.layers.{}.self_attn.inner_attn_ln.weight",
    Role.FFN_SUB_NORM: "model.layers.{}.mlp.ffn_layernorm.weight",
}
_QK_NORM_NAMES = {
    Role.Q_NORM: "model.layers.{}.self_attn.q_norm.weight",
    Role.K_NORM: "model.layers.{}.self_attn.k_norm.weight",
}
# What transformers takes where config.json is silent.
_LLAMA_DEFAULTS = {
    "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
}  # fmt: skip
_BITNET_DEFAULTS = _LLAMA_DEFAULTS | {"hidden_act": "relu2", "rope_theta": 500000.0, "rms_norm_eps": 1e-5}
_MISTRAL_DEFAULTS = _LLAMA_DEFAULTS | {
    "max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096,
}  # fmt: skip
_QWEN_DEFAULTS = _LLAMA_DEFAULTS | {"max_position_embeddings": 32768}


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """What a model computes, and what its tensors are called."""

    name: str
    class_name: str  # in config.json's architectures
    model_type: str
    storages: tuple[Storage, ...]  # those it is known in; none: as a float model alone
    tensor_names: Mapping[Role, str]  # {} stands for the layer
    defaults: Mapping[str, Any]  # for keys of config.json that may be missing
    demands: Mapping[str, Any] = field(default_factory=dict)  # further keys of config.json and their only known value


ARCHITECTURES = (
    Architecture(  # microsoft/bitnet-b1.58-2B-4T, its -bf16 form and fine-tunes
        name="bitnet",
        class_name="BitNetForCausalLM",
        model_type="bitnet",
        storages=(PACKED, MASTER),
        tensor_names=_NAMES | _SUB_NORM_NAMES,
        defaults=_BITNET_DEFAULTS,
    ),
    Architecture(  # 1bitLLM/bitnet_b1_58-large, -xl, -3B
        name="bitnet-1bitllm",
        class_name="BitnetForCausalLM",
        model_type="llama",
        storages=(BARE_MASTER,),
        tensor_names=_NAMES | _LEGACY_SUB_NORM_NAMES,
        defaults=_LLAMA_DEFAULTS,
        demands={"weight_bits": 1, "input_bits": 8},
    ),
    Architecture(  # quantised: HF1BitLLM/Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E; bare: TriLM, Falcon-E's bfloat16
        name="llama",
        class_name="LlamaForCausalLM",
        model_type="llama",
        storages=(*_QUANTISED, BARE_TERNARY),
        tensor_names=_NAMES,
        defaults=_LLAMA_DEFAULTS,
    ),
    Architecture(  # bare: Bonsai and Ternary-Bonsai, "unpacked"
        name="qwen3",
        class_name="Qwen3ForCausalLM",
        model_type="qwen3",
        storages=(*_QUANTISED, BARE_TERNARY),
        tensor_names=_NAMES | _QK_NORM_NAMES,
        defaults=_QWEN_DEFAULTS | {"head_dim": 128},
    ),
    Architecture(  # with biases of zero only
        name="qwen2",
        class_name="Qwen2ForCausalLM",
        model_type="qwen2",
        storages=(*_QUANTISED, BARE_TERNARY),
        tensor_names=_NAMES,
        defaults=_QWEN_DEFAULTS,
    ),
    Architecture(  # without a window of attention: Mistral-7B from v0.2 on
        name="mistral",
        class_name="MistralForCausalLM",
        model_type="mistral",
        storages=(),
        tensor_names=_NAMES,
        defaults=_MISTRAL_DEFAULTS,
        demands={"sliding_window": None},
    ),
)
# Classes of ternary models that cannot be converted, and why.
REFUSED_CLASSES = {
    "Qwen3Model": "an embedding model: it has no head, and edgebit generates text",
    "Gemma3TextModel": "an embedding model: it has no head, and edgebit generates text",
    "Gemma3ForCausalLM": "it scales embeddings, has norms behind attention and feed-forward, and GELU: not known",
    "HunYuanDenseV1ForCausalLM": "its norms of queries and keys come after RoPE: not known",
    "Qwen3_5ForCausalLM": "most of its layers are no attention but a gated delta rule: not known",
    "Qwen3_5ForConditionalGeneration": "most of its layers are no attention but a gated delta rule: not known",
}
_NORM_BITS = {
    Role.ATTN_SUB_NORM: Norms.ATTN_SUB_NORM, Role.FFN_SUB_NORM: Norms.FFN_SUB_NORM, Role.Q_NORM: Norms.QK_NORM,
    Role.Q_PROJ.norm_of: Norms.PROJECTION_NORM,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """An architecture in one storage."""

    architecture: Architecture
    storage: Storage
    tensor_names: Mapping[Role, str]

    @property
    def name(self) -> str:
        return f"{self.architecture.name}-{self.storage.name}"

    @property
    def form(self) -> str:
        """The evidence this family is matched on, as a refusal prints it."""
        return describe_form(
            self.architecture.class_name, self.architecture.model_type, self.storage.linear_class, self.storage.mode
        )

    @property
    def norms(self) -> Norms:
        """The norms this family has besides the usual three."""
        norms = Norms(0)
        for role, norm in _NORM_BITS.items():
            norms |= norm if role in self.tensor_names else Norms(0)
        return norms

    def tensor_name(self, role: Role, layer: int = NO_LAYER) -> str:
        """The checkpoint's name of a tensor."""
        return self.tensor_names[role].format(layer)

    def bias_name(self, role: Role, layer: int) -> str:
        """The checkpoint's name of a projection's bias."""
        return self.tensor_name(role, layer).removesuffix("weight") + "bias"

    def with_projection_norms(self) -> "Family":
        """The same with a norm inside each projection, as use_rms_norm makes it."""
        names = {role.norm_of: self.tensor_names[role].replace("weight", "rms_norm.weight") for role in PROJECTIONS}
        return replace(self, tensor_names={**self.tensor_names, **names})


FAMILIES = tuple(
    Family(architecture=architecture, storage=storage, tensor_names=architecture.tensor_names)
    for architecture in ARCHITECTURES
    for storage in architecture.storages
)
FLOAT_FAMILIES = tuple(  # what can be ternarised: 1bitLLM's class says itself that it is ternary
    Family(architecture=architecture, storage=FROM_FLOAT, tensor_names=architecture.tensor_names)
    for architecture in ARCHITECTURES
    if BARE_MASTER not in architecture.storages
)


def family_named(name: str) -> Family:
    """The family with that name. Raises KeyError where there is none."""
    return {family.name: family for family in FAMILIES}[name]


def describe_form(class_name: str, model_type: str, linear_class: str | None, mode: str | None) -> str:
    """One line for a storage form."""
    quantised = f"quantised {linear_class}/{mode}" if linear_class else "no quantization_config"
    return f"{class_name} (model_type {model_type}, {quantised})"
