"""The architectures that edgebit reads from GGUF files: one row of ARCHITECTURES each, by general.architecture.

Sources: llama.cpp's llama-arch.cpp for names; its models' graphs for activation and RoPE;
bitnet.cpp's converter and llama.cpp fork for bitnet-25 and bitnet-b1.58.
"""

from dataclasses import dataclass

from edgebit.bundle.model_format import Activation, Norms
from edgebit.errors import CheckpointError


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """What a model of one architecture computes."""

    name: str  # general.architecture, and what its keys begin with
    activation: Activation
    norms: Norms
    permuted: bool = False  # rows of q and k in pairs of neighbours, for a RoPE that turns those
    int8_activations: bool | None  # what all its models were trained with; None: it varies


_SUB_NORMS = Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM

ARCHITECTURES = (
    Architecture(  # 1bitLLM/bitnet_b1_58-large, -3B
        name="bitnet",
        activation=Activation.SILU,
        norms=_SUB_NORMS,
        int8_activations=True,
    ),
    Architecture(  # microsoft/bitnet-b1.58-2B-4T-gguf as of April 2025
        name="bitnet-25",
        activation=Activation.RELU2,
        norms=_SUB_NORMS,
        int8_activations=True,
    ),
    Architecture(  # microsoft/bitnet-b1.58-2B-4T-gguf
        name="bitnet-b1.58",
        activation=Activation.RELU2,
        norms=_SUB_NORMS,
        int8_activations=True,
    ),
    Architecture(  # Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E, TriLM
        name="llama",
        activation=Activation.SILU,
        norms=Norms(0),
        permuted=True,
        int8_activations=None,
    ),
    Architecture(  # Bonsai
        name="qwen3",
        activation=Activation.SILU,
        norms=Norms.QK_NORM,
        int8_activations=None,
    ),
)


def match_architecture(name: object, where: str) -> Architecture:
    """The row for general.architecture. Raises CheckpointError naming those that are known."""
    for architecture in ARCHITECTURES:
        if isinstance(name, str) and architecture.name == name:
            return architecture
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    raise CheckpointError(f"{where}: general.architecture is {name!r}; known are {known}")
