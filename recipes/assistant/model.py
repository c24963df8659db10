"""BitNet b1.58 for training: the mathematics of transformers' BitNetForCausalLM with linear class `autobitlinear`.

Source: Ma et al. 2024, "The Era of 1-bit LLMs" (arXiv:2402.17764); Wang et al. 2025, "BitNet b1.58 2B4T Technical
Report" (arXiv:2504.12285): absmean weights, absmax activations, squared ReLU, RMSNorm before every output projection.
Parameters carry the names of the Hugging Face checkpoint, so a state dict is the checkpoint.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The sizes of a model, under the names of its config.json."""

    vocab_size: int = 768
    hidden_size: int = 192
    intermediate_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


def absmean_scale(weight: Tensor) -> Tensor:
    """The scale of a ternary weight tensor: the mean of its absolute values, a 0-d tensor."""
    return weight.abs().mean().clamp(min=1e-5)


def absmean_codes(weight: Tensor) -> Tensor:
    """The codes -1, 0, +1 of a weight tensor, so that it is about codes * absmean_scale."""
    return (weight / absmean_scale(weight)).round().clamp(-1, 1)


def absmax_int8(x: Tensor) -> Tensor:
    """Activations rounded to int8 by the absmax of their token (the last axis), and scaled back."""
    scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return (x * scale).round().clamp(-128, 127) / scale


class BitLinear(nn.Linear):
    """A linear layer that computes with ternary weights and int8 activations, and passes gradients straight through."""

    def __init__(self, in_features: int, out_features: int) -> None:
        """Draw latent weights of unit gain; there is no bias."""
        super().__init__(in_features, out_features, bias=False)
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        weight = self.weight
        ternary = absmean_codes(weight) * absmean_scale(weight)
        x = input + (absmax_int8(input) - input).detach()
        return F.linear(x, weight + (ternary - weight).detach())


def rotate_half(x: Tensor) -> Tensor:
    """The partner that RoPE mixes x with: the second half of the last axis negated, then the first half."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Attention(nn.Module):
    """Grouped-query attention with RoPE, and a sub-norm before the output projection."""

    def __init__(self, shape: Shape) -> None:
        """Make the four projections and the sub-norm."""
        super().__init__()
        self.shape = shape
        kv_size = shape.num_key_value_heads * shape.head_dim
        self.q_proj = BitLinear(shape.hidden_size, shape.hidden_size)
        self.k_proj = BitLinear(shape.hidden_size, kv_size)
        self.v_proj = BitLinear(shape.hidden_size, kv_size)
        self.o_proj = BitLinear(shape.hidden_size, shape.hidden_size)
        self.attn_sub_norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Map x [batch, tokens, hidden]; cos and sin are [batch, 1, tokens, head_dim], mask is added to the scores."""
        batch, tokens, _ = x.shape
        dim, groups = self.shape.head_dim, self.shape.num_attention_heads // self.shape.num_key_value_heads
        q = self.q_proj(x).view(batch, tokens, -1, dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, tokens, -1, dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, tokens, -1, dim).transpose(1, 2)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        scores = (q @ k.transpose(2, 3)) * dim**-0.5 + mask
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, -1)
        out: Tensor = self.o_proj(self.attn_sub_norm(mixed))
        return out


class FeedForward(nn.Module):
    """Gated feed-forward with squared ReLU, and a sub-norm before the down projection."""

    def __init__(self, shape: Shape) -> None:
        """Make the three projections and the sub-norm."""
        super().__init__()
        self.gate_proj = BitLinear(shape.hidden_size, shape.intermediate_size)
        self.up_proj = BitLinear(shape.hidden_size, shape.intermediate_size)
        self.down_proj = BitLinear(shape.intermediate_size, shape.hidden_size)
        self.ffn_sub_norm = nn.RMSNorm(shape.intermediate_size, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., hidden] to [..., hidden]."""
        gated = F.relu(self.gate_proj(x)).square() * self.up_proj(x)
        out: Tensor = self.down_proj(self.ffn_sub_norm(gated))
        return out


class Layer(nn.Module):
    """One transformer block: attention and feed-forward, each normed before and added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        """Make both halves and their norms."""
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Map [batch, tokens, hidden] to the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Body(nn.Module):
    """Embedding, layers and final norm: what the checkpoint calls `model`."""

    def __init__(self, shape: Shape) -> None:
        """Make all layers."""
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


class BitNet(nn.Module):
    """A causal language model; several dialogues may lie in one row, and none sees another."""

    inv_freq: Tensor

    def __init__(self, shape: Shape) -> None:
        """Make a model with random weights; the head is the embedding."""
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        steps = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        self.register_buffer("inv_freq", shape.rope_theta**-steps, persistent=False)

    def forward(self, ids: Tensor, positions: Tensor, dialogue: Tensor) -> Tensor:
        """Logits [batch, tokens, vocab] for ids, positions and dialogue numbers, each [batch, tokens]."""
        angles = positions[:, :, None].float() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        tokens = torch.arange(ids.shape[1])
        visible = (dialogue[:, :, None] == dialogue[:, None, :]) & (tokens[:, None] >= tokens[None, :])
        mask = torch.where(visible, 0.0, -1e9)[:, None]
        x = self.model.embed_tokens(ids)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


@torch.no_grad()
def greedy(model: BitNet, prompts: list[list[int]], stop: int, limit: int = 48) -> list[list[int]]:
    """The most likely answer to each prompt up to `stop`, which is left out, or to `limit` tokens."""
    answers: list[list[int]] = [[] for _ in prompts]
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for indices in by_length.values():
        ids, live = torch.tensor([prompts[i] for i in indices]), indices
        for _ in range(limit):
            positions = torch.arange(ids.shape[1]).expand_as(ids)
            best = model(ids, positions, torch.zeros_like(ids))[:, -1].argmax(dim=-1)
            going = [row for row, token in enumerate(best.tolist()) if token != stop]
            if not going:
                break
            ids = torch.cat((ids, best[:, None]), dim=1)[going]
            live = [live[row] for row in going]
            for row, index in enumerate(live):
                answers[index].append(int(ids[row, -1]))
    return answers
