"""Linear layers with ternary weights and int8 activations, whose gradients pass straight through the rounding.

Source: Ma et al. 2024, "The Era of 1-bit LLMs" (arXiv:2402.17764); the same float32 arithmetic as `autobitlinear` of
transformers, online: what is trained here is what is computed there.
"""

from torch import Tensor, nn
from torch.nn import functional as F

_LEAST = 1e-5  # of a mean or a maximum that is divided by


def absmean_factor(weight: Tensor) -> Tensor:
    """What weights are multiplied with before they are rounded: 1 / mean(|W|), a 0-d tensor."""
    return 1.0 / weight.abs().mean().clamp(min=_LEAST)


def absmean_codes(weight: Tensor) -> Tensor:
    """The codes -1, 0, +1 of a weight tensor, so that it is about codes / absmean_factor."""
    return (weight * absmean_factor(weight)).round().clamp(-1, 1)


def ternary(weight: Tensor) -> Tensor:
    """Weights rounded to their codes, and scaled back."""
    factor = absmean_factor(weight)
    return (weight * factor).round().clamp(-1, 1) / factor


def absmax_int8(x: Tensor) -> Tensor:
    """Activations rounded to int8 by the absmax of their token (the last axis), and scaled back."""
    factor = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=_LEAST)
    return (x * factor).round().clamp(-128, 127) / factor


def straight_through(rounded: Tensor, x: Tensor) -> Tensor:
    """Exactly `rounded`, with the gradient of `x`."""
    return rounded.detach() + (x - x.detach())


class BitLinear(nn.Linear):
    """A linear layer without bias, [..., in] to [..., out]; `weight` are the latent weights, float32."""

    def __init__(self, in_features: int, out_features: int) -> None:
        """Draw latent weights of unit gain."""
        super().__init__(in_features, out_features, bias=False)
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def forward(self, input: Tensor) -> Tensor:
        """Map with the ternary weights, of activations rounded to int8."""
        x = straight_through(absmax_int8(input), input)
        return F.linear(x, straight_through(ternary(self.weight), self.weight))


class FloatLinear(nn.Linear):
    """What a BitLinear is compared with: the same without any rounding."""

    def __init__(self, in_features: int, out_features: int) -> None:
        """Draw the weights that a BitLinear would draw."""
        super().__init__(in_features, out_features, bias=False)
        nn.init.normal_(self.weight, std=in_features**-0.5)
