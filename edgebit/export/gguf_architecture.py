"""Which architecture of GGUF a model is, and what its metadata says of it.

Sources: llama.cpp, src/models/{bitnet,llama,qwen3}.cpp and convert_hf_to_gguf.py; bitnet.cpp's converters.
"""

import math
from dataclasses import dataclass

from edgebit.bundle.model_format import Activation, ActivationQuantisation, Conf, Norms
from edgebit.checkpoint.checkpoint import ModelConfig
from edgebit.checkpoint.own_gguf_keys import ACTIVATIONS, I2S_DIALECT
from edgebit.checkpoint.rope import yarn_attention_factor
from edgebit.errors import ExportError
from edgebit.export.gguf_file import f32, i32, text, u32
from edgebit.export.rope_parameters import RopeParameters, find_rope_parameters

_SAMPLING_KEYS = {  # what the makers advise
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "temperature": "general.sampling.temp",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
_ACTIVATIONS = {ActivationQuantisation.INT8: "int8", ActivationQuantisation.INT15: "float"}
_SUB_NORMS = Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM
_RELU2_NOTE = (
    "squared ReLU: bitnet.cpp and ik_llama.cpp know it by arch bitnet-b1.58, newer llama.cpp by hidden_activation; an "
    "older llama.cpp refuses bitnet-b1.58, and computes arch bitnet with SiLU, which is wrong"
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture of GGUF keeps a model."""

    name: str
    has_interleaved_rope: bool = False  # rows of q and k lie in pairs, where checkpoints have halves
    has_output: bool = True  # there is a head besides the embedding
    has_rope_divisors: bool = False  # rope_freqs.weight
    square_attention: bool = False  # heads x head_dim must be hidden_size


BITNET = Architecture("bitnet", has_output=False, square_attention=True)
BITNET_B158 = Architecture("bitnet-b1.58", square_attention=True)
LLAMA = Architecture("llama", has_interleaved_rope=True, has_rope_divisors=True)
QWEN3 = Architecture("qwen3")
ARCHITECTURES = {architecture.name: architecture for architecture in (BITNET, BITNET_B158, LLAMA, QWEN3)}


def choose_architecture(conf: Conf, wanted: str | None = None) -> tuple[Architecture, list[str]]:
    """The architecture that computes what `conf` asks for, or the `wanted` one where it can; and notes for the user.

    Raises ExportError where GGUF has none, or `wanted` is not it.
    """
    fitting = _fitting(conf)
    if wanted is not None and wanted not in (architecture.name for architecture in fitting):
        names = " or ".join(architecture.name for architecture in fitting)
        raise ExportError(f"arch {wanted} does not compute what this model does; {names} does")
    chosen = fitting[0] if wanted is None else ARCHITECTURES[wanted]
    if chosen.square_attention and conf.n_heads * conf.head_dim != conf.hidden_size:
        raise ExportError(
            f"arch {chosen.name} has heads of hidden_size together; this model has {conf.n_heads} x {conf.head_dim} "
            f"and {conf.hidden_size}"
        )
    if not chosen.has_output and not conf.head_tied:
        raise ExportError(f"arch {chosen.name} has no head of its own, and this model's is not tied to its embedding")
    notes = [_RELU2_NOTE] if conf.activation == Activation.RELU2 else []
    if conf.activation_quantisation != ActivationQuantisation.INT8:
        notes.append("this model was trained with float activations; GGUF's programs take int8 ones for these types")
    return chosen, notes


def _fitting(conf: Conf) -> list[Architecture]:
    """The architectures that fit norms and activation, the preferred one first."""
    match conf.activation, conf.norms:
        case Activation.RELU2, norms if norms == _SUB_NORMS:
            return [BITNET_B158, BITNET]
        case Activation.SILU, norms if norms == _SUB_NORMS:
            return [BITNET]
        case Activation.SILU, Norms.QK_NORM:
            return [QWEN3]
        case Activation.SILU, norms if not norms:
            return [LLAMA]
    names = ", ".join(norm.name.lower() for norm in conf.norms if norm.name) or "no further norms"
    raise ExportError(
        f"GGUF has no architecture with {conf.activation.name.lower()} and {names}. "
        "edgebit export hf, or a model file, keeps this model"
    )


def architecture_metadata(
    config: ModelConfig, architecture: Architecture, *, file_type: int
) -> tuple[dict[str, bytes], RopeParameters]:
    """The keys general.* and ARCH.*, and the RoPE they describe. Raises ExportError on a RoPE that cannot be said."""
    conf, name = config.conf, architecture.name
    rope = find_rope_parameters(config.rope_inv_freq)
    if rope.kind != "yarn" and conf.rope_attention_factor != 1:
        raise ExportError("the RoPE multiplies attention as YaRN does, but its frequencies are not YaRN's")
    if rope.divisors is not None and not architecture.has_rope_divisors:
        raise ExportError(f"the RoPE is scaled by frequency ({rope.kind}), which arch {name} does not know")
    metadata = {
        "general.architecture": text(name),
        "general.type": text("model"),
        "general.name": text(config.name),
        **({"general.license": text(config.licence)} if config.licence else {}),
        "general.quantization_version": u32(2),
        "general.file_type": u32(file_type),
        ACTIVATIONS: text(_ACTIVATIONS[conf.activation_quantisation]),
        f"{name}.vocab_size": u32(conf.vocab_size),
        f"{name}.context_length": u32(conf.context_max),
        f"{name}.embedding_length": u32(conf.hidden_size),
        f"{name}.block_count": u32(conf.n_layers),
        f"{name}.feed_forward_length": u32(conf.ffn_size),
        f"{name}.attention.head_count": u32(conf.n_heads),
        f"{name}.attention.head_count_kv": u32(conf.n_kv_heads),
        f"{name}.attention.key_length": u32(conf.head_dim),
        f"{name}.attention.value_length": u32(conf.head_dim),
        f"{name}.attention.layer_norm_rms_epsilon": f32(conf.rms_norm_eps),
        f"{name}.rope.dimension_count": u32(conf.head_dim),
        f"{name}.rope.freq_base": f32(rope.theta),
    }
    metadata |= {f"{name}.rope.scaling.{key}": value for key, value in _rope_scaling(conf, rope).items()}
    if conf.activation == Activation.RELU2:
        metadata[f"{name}.hidden_activation"] = text("relu2")
    for key, value in config.generation.items():
        if key in _SAMPLING_KEYS:
            metadata[_SAMPLING_KEYS[key]] = i32(int(value)) if key == "top_k" else f32(value)
    return metadata, rope


def _rope_scaling(conf: Conf, rope: RopeParameters) -> dict[str, bytes]:
    """The keys ARCH.rope.scaling.*: what changes frequencies otherwise is in a tensor."""
    if rope.kind not in ("linear", "yarn"):
        return {}
    scaling = {"type": text(rope.kind), "factor": f32(rope.factor)}
    if rope.kind == "yarn":
        scaling["original_context_length"] = u32(rope.original_context)
        own = yarn_attention_factor(rope.factor)
        if not math.isclose(conf.rope_attention_factor, own, rel_tol=1e-6):
            scaling["attn_factor"] = f32(conf.rope_attention_factor / own)
    return scaling


def i2_s_metadata() -> dict[str, bytes]:
    """That tensors in I2_S are written as on x86, which a reader could not know else."""
    return {I2S_DIALECT: text("x86")}
