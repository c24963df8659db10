"""BitNet b1.58 as it is trained: the mathematics of transformers' BitNetForCausalLM with linear class `autobitlinear`.

Source: Wang et al. 2025, "BitNet b1.58 2B4T Technical Report" (arXiv:2504.12285): squared ReLU, an RMSNorm before every
output projection, grouped-query attention with RoPE. Parameters have the names of the Hugging Face checkpoint, so a
state dict is the master. Shapes: [rows, tokens, ...]; several documents lie in a row, and none sees another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebit.train.bit_linear import BitLinear, FloatLinear
from edgebit.train.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Sight:
    """What attention needs to know of places: RoPE's cosines and sines, and which token sees which."""

    cos: Tensor  # [rows, 1, tokens, head_dim]
    sin: Tensor
    mask: Tensor  # [rows, 1, 1, tokens, tokens], added to the scores: 0, or minus infinity


def rotated(x: Tensor, sight: Sight) -> Tensor:
    """RoPE: the first half of each head is turned with its second half."""
    first, second = x.chunk(2, dim=-1)
    return x * sight.cos + torch.cat((-second, first), dim=-1) * sight.sin


class Attention(nn.Module):
    """Grouped-query attention with RoPE, and a sub-norm before the output projection."""

    def __init__(self, shape: ModelShape, linear: type[nn.Linear]) -> None:
        """Make the four projections and the sub-norm."""
        super().__init__()
        self.shape = shape
        self.q_proj = linear(shape.hidden_size, shape.hidden_size)
        self.k_proj = linear(shape.hidden_size, shape.kv_size)
        self.v_proj = linear(shape.hidden_size, shape.kv_size)
        self.o_proj = linear(shape.hidden_size, shape.hidden_size)
        self.attn_sub_norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """Map [rows, tokens, hidden] to the same."""
        rows, tokens, _ = x.shape
        kv_heads, dim = self.shape.num_key_value_heads, self.shape.head_dim
        q, k, v = (
            projection(x).view(rows, tokens, -1, dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # The queries of one group as rows of one product: keys and values need no copies.
        q = rotated(q, sight).reshape(rows, kv_heads, -1, dim)
        scores = (q @ rotated(k, sight).transpose(2, 3)).view(rows, kv_heads, -1, tokens, tokens)
        weights = (scores * dim**-0.5 + sight.mask).softmax(dim=-1).view(rows, kv_heads, -1, tokens)
        mixed = (weights @ v).view(rows, -1, tokens, dim).transpose(1, 2).reshape(rows, tokens, -1)
        out: Tensor = self.o_proj(self.attn_sub_norm(mixed))
        return out


class FeedForward(nn.Module):
    """Gated feed-forward, and a sub-norm before the down projection."""

    def __init__(self, shape: ModelShape, linear: type[nn.Linear]) -> None:
        """Make the three projections and the sub-norm."""
        super().__init__()
        self.squared = shape.hidden_act == "relu2"
        self.gate_proj = linear(shape.hidden_size, shape.intermediate_size)
        self.up_proj = linear(shape.hidden_size, shape.intermediate_size)
        self.down_proj = linear(shape.intermediate_size, shape.hidden_size)
        self.ffn_sub_norm = nn.RMSNorm(shape.intermediate_size, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., hidden] to the same."""
        gate = self.gate_proj(x)
        gate = F.relu(gate).square() if self.squared else F.silu(gate)
        out: Tensor = self.down_proj(self.ffn_sub_norm(gate * self.up_proj(x)))
        return out


class Layer(nn.Module):
    """One block: attention and feed-forward, each normed before and added to the residual stream."""

    def __init__(self, shape: ModelShape, linear: type[nn.Linear]) -> None:
        """Make both halves and their norms."""
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape, linear)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = FeedForward(shape, linear)

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """Map [rows, tokens, hidden] to the same."""
        x = x + self.self_attn(self.input_layernorm(x), sight)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Body(nn.Module):
    """Embedding, layers and final norm: what the checkpoint calls `model`."""

    inv_freq: Tensor

    def __init__(self, shape: ModelShape, linear: type[nn.Linear]) -> None:
        """Make all layers."""
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.7 * shape.hidden_size**-0.5)
        self.layers = nn.ModuleList(Layer(shape, linear) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        steps = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        self.register_buffer("inv_freq", shape.rope_theta**-steps, persistent=False)

    def forward(self, ids: Tensor, positions: Tensor, documents: Tensor) -> Tensor:
        """Hidden states after the final norm, [rows, tokens, hidden]."""
        sight = self._sight(positions, documents)
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, sight)
        out: Tensor = self.norm(x)
        return out

    def _sight(self, positions: Tensor, documents: Tensor) -> Sight:
        angles = positions[:, :, None].float() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        places = torch.arange(positions.shape[1], device=positions.device)
        visible = (documents[:, :, None] == documents[:, None, :]) & (places[:, None] >= places[None, :])
        mask = torch.zeros(visible.shape, device=positions.device).masked_fill(~visible, float("-inf"))
        return Sight(angles.cos(), angles.sin(), mask[:, None, None])


class Decoder(nn.Module):
    """A causal language model."""

    def __init__(self, shape: ModelShape, *, ternary: bool = True) -> None:
        """Make a model with random weights, of torch's generator. ternary=False: the float twin, all else the same."""
        super().__init__()
        self.shape, self.ternary = shape, ternary
        self.model = Body(shape, BitLinear if ternary else FloatLinear)
        if not shape.tie_word_embeddings:
            self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
            nn.init.normal_(self.lm_head.weight, std=0.7 * shape.hidden_size**-0.5)

    def forward(self, ids: Tensor, positions: Tensor, documents: Tensor) -> Tensor:
        """Logits [rows, tokens, vocab] for ids, positions within a document, and documents' numbers."""
        return self.head(self.model(ids, positions, documents))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of hidden states after the final norm."""
        tied = self.shape.tie_word_embeddings
        return F.linear(hidden, self.model.embed_tokens.weight if tied else self.lm_head.weight)
