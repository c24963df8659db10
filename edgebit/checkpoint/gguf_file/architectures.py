"""The architectures that edgebit reads from GGUF files: one row of ARCHITECTURES each, by general.architecture.

Sources: llama.cpp's llama-arch.cpp and gguf-py's constants.py for names; its models' graphs for activation and RoPE;
bitnet.cpp's converter and llama.cpp fork for bitnet-25 and bitnet-b1.58.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edgebit.bundle.model_format import NO_LAYER, Activation, Norms, Role
from edgebit.errors import CheckpointError

_NAMES = {
    Role.TOKEN_EMBEDDING: "token_embd",
    Role.HEAD: "output",
    Role.FINAL_NORM: "output_norm",
    Role.INPUT_NORM: "blk.{}.attn_norm",
    Role.Q_PROJ: "blk.{}.attn_q",
    Role.K_PROJ: "blk.{}.attn_k",
    Role.V_PROJ: "blk.{}.attn_v",
    Role.O_PROJ: "blk.{}.attn_output",
    Role.POST_ATTENTION_NORM: "blk.{}.ffn_norm",
    Role.GATE_PROJ: "blk.{}.ffn_gate",
    Role.UP_PROJ: "blk.{}.ffn_up",
    Role.DOWN_PROJ: "blk.{}.ffn_down",
}
_SUB_NORM_NAMES = {Role.ATTN_SUB_NORM: "blk.{}.attn_sub_norm", Role.FFN_SUB_NORM: "blk.{}.ffn_sub_norm"}
_QK_NORM_NAMES = {Role.Q_NORM: "blk.{}.attn_q_norm", Role.K_NORM: "blk.{}.attn_k_norm"}
ROPE_FACTORS = "rope_freqs.weight"  # what the frequencies are divided by, [head_dim / 2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """What a model of one architecture computes, and how its tensors are called."""

    name: str  # general.architecture, and what its keys begin with
    activation: Activation
    norms: Norms
    names: Mapping[Role, str]  # {} stands for the layer; without .weight
    permuted: bool = False  # rows of q and k in pairs of neighbours, for a RoPE that turns those
    int8_activations: bool | None  # what all its models were trained with; None: it varies

    def tensor_name(self, role: Role, layer: int = NO_LAYER) -> str:
        """The name of a tensor in the file."""
        return self.names[role].format(layer) + ".weight"

    def scale_name(self, role: Role, layer: int) -> str:
        """The name of the tensor that a projection's output is multiplied by, where there is one."""
        return self.names[role].format(layer) + ".scale"


_SUB_NORMS = Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM

ARCHITECTURES = (
    Architecture(  # 1bitLLM/bitnet_b1_58-large, -3B
        name="bitnet",
        activation=Activation.SILU,
        norms=_SUB_NORMS,
        names=_NAMES | _SUB_NORM_NAMES,
        int8_activations=True,
    ),
    Architecture(  # microsoft/bitnet-b1.58-2B-4T-gguf as of April 2025
        name="bitnet-25",
        activation=Activation.RELU2,
        norms=_SUB_NORMS,
        names=_NAMES | _SUB_NORM_NAMES,
        int8_activations=True,
    ),
    Architecture(  # microsoft/bitnet-b1.58-2B-4T-gguf
        name="bitnet-b1.58",
        activation=Activation.RELU2,
        norms=_SUB_NORMS,
        names=_NAMES | _SUB_NORM_NAMES,
        int8_activations=True,
    ),
    Architecture(  # Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E, TriLM
        name="llama",
        activation=Activation.SILU,
        norms=Norms(0),
        names=_NAMES,
        permuted=True,
        int8_activations=None,
    ),
    Architecture(  # Bonsai
        name="qwen3",
        activation=Activation.SILU,
        norms=Norms.QK_NORM,
        names=_NAMES | _QK_NORM_NAMES,
        int8_activations=None,
    ),
)


def match_architecture(name: object, where: str) -> Architecture:
    """The row for general.architecture. Raises CheckpointError naming those that are known."""
    for architecture in ARCHITECTURES:
        if architecture.name == name:
            return architecture
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    raise CheckpointError(f"{where}: general.architecture is {name!r}; known are {known}")
