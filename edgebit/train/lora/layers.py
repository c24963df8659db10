"""The layers of a decoder with an adapter: ternary weights that do not move, and the pairs beside them that do."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebit.train.bit_linear import absmax_int8, straight_through


class FrozenBitLinear(nn.Module):
    """A linear layer with given ternary weights, [out, in], and int8 activations; gradients pass to its input alone."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: float = 1.0) -> None:
        """weight: codes, with their `scale`, or already multiplied by it."""
        super().__init__()
        self.register_buffer("weight", weight.detach(), persistent=False)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        return F.linear(straight_through(absmax_int8(input), input), self.weight) * self.scale


class LoraLinear(nn.Module):
    """A frozen layer, and beside it scale B (A x) of the same input before it is rounded."""

    def __init__(self, frozen: FrozenBitLinear, rank: int, scale: float, dropout: float = 0.0) -> None:
        """A begins as nn.Linear's weights do, B as zeros: the side path adds nothing yet."""
        super().__init__()
        rows, columns = frozen.weight.shape
        self.frozen, self.scale = frozen, scale
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.lora_A = nn.Linear(columns, rank, bias=False)
        self.lora_B = nn.Linear(rank, rows, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        side = self.lora_B(self.lora_A(self.dropout(input)))
        out: Tensor = self.frozen(input) + side * self.scale
        return out
