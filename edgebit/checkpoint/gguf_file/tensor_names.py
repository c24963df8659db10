"""How GGUF calls the tensors of a model, in every architecture that edgebit knows.

Sources: llama.cpp's llama-arch.cpp and gguf-py's constants.py.
"""

from collections.abc import Mapping

from edgebit.bundle.model_format import NO_LAYER, Role

TENSOR_NAMES: Mapping[Role, str] = {  # {} stands for the layer; without .weight
    Role.TOKEN_EMBEDDING: "token_embd",
    Role.HEAD: "output",
    Role.FINAL_NORM: "output_norm",
    Role.INPUT_NORM: "blk.{}.attn_norm",
    Role.Q_PROJ: "blk.{}.attn_q",
    Role.K_PROJ: "blk.{}.attn_k",
    Role.V_PROJ: "blk.{}.attn_v",
    Role.Q_NORM: "blk.{}.attn_q_norm",
    Role.K_NORM: "blk.{}.attn_k_norm",
    Role.ATTN_SUB_NORM: "blk.{}.attn_sub_norm",
    Role.O_PROJ: "blk.{}.attn_output",
    Role.POST_ATTENTION_NORM: "blk.{}.ffn_norm",
    Role.GATE_PROJ: "blk.{}.ffn_gate",
    Role.UP_PROJ: "blk.{}.ffn_up",
    Role.FFN_SUB_NORM: "blk.{}.ffn_sub_norm",
    Role.DOWN_PROJ: "blk.{}.ffn_down",
}
ROPE_FACTORS = "rope_freqs.weight"  # what the frequencies are divided by, [head_dim / 2]


def tensor_name(role: Role, layer: int = NO_LAYER) -> str:
    """The name of a tensor in the file."""
    return TENSOR_NAMES[role].format(layer) + ".weight"


def scale_name(role: Role, layer: int) -> str:
    """The name of the tensor that a projection's output is multiplied by, where there is one."""
    return TENSOR_NAMES[role].format(layer) + ".scale"
