"""BitLinear beside numpy and beside transformers' AutoBitLinear."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from edgebit.train.bit_linear import BitLinear, absmean_codes  # noqa: E402

pytestmark = pytest.mark.reference


def inputs(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("scale", [1e-6, 0.02, 3.0])
def test_forward_is_integers_times_scales(scale):
    """Sums of int8 times -1, 0, +1, scaled by absmax / 127 of the token and by the mean of |W|."""
    weight, x = inputs(1, 48, 32) * np.float32(scale), inputs(2, 5, 32)
    layer = BitLinear(32, 48)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        found = layer(torch.from_numpy(x)).numpy()

    mean = max(np.abs(weight.astype(np.float64)).mean(), 1e-5)
    codes = np.clip(np.rint(weight / mean), -1, 1)
    top = np.abs(x).max(axis=1, keepdims=True)
    integers = np.rint(x * (np.float32(127) / top)).astype(np.int64)
    assert np.array_equal(absmean_codes(layer.weight.detach()).numpy(), codes)
    np.testing.assert_allclose(found, integers @ codes.T * mean * (top / 127), rtol=2e-5, atol=1e-5 * mean)


def test_forward_and_gradients_are_those_of_transformers():
    """To the bit: what is trained here is what runs there."""
    bitnet = pytest.importorskip("transformers.integrations.bitnet", reason="transformers is not installed")
    ours, theirs = BitLinear(64, 96), bitnet.AutoBitLinear(64, 96, bias=False, online_quant=True)
    theirs.load_state_dict(ours.state_dict())
    outputs = []
    with torch.compiler.set_stance("force_eager"):
        for layer in (ours, theirs):
            x = torch.from_numpy(inputs(3, 7, 64)).requires_grad_()
            y = layer(x)
            (y * torch.from_numpy(inputs(4, 7, 96))).sum().backward()
            outputs.append((y.detach(), x.grad, layer.weight.grad))

    for our, their in zip(*outputs, strict=True):
        assert torch.equal(our, their)
