"""Reference checkpoints mean what transformers takes them for: codes, scales and norms, multiplied out in numpy.

This holds whether or not the engine knows a form, and shows a fault of reading apart from one of computing.
"""

from contextlib import closing

import numpy as np
import pytest
from float_model import FloatModel
from safetensors.numpy import load_file

from edgebit.checkpoint.opening import open_checkpoint

MODELS = (
    "bitnet-packed", "bitnet-bf16", "bitnet-packed-odd-untied", "legacy-1bitllm-f32", "legacy-1bitllm-f16-head100",
    "llama-bitlinear-packed", "llama-bitlinear-rmsnorm-packed", "falcon3-packed", "llama-master", "trilm-f16",
    "bonsai-f16", "qwen3-rmsnorm-packed", "qwen2-zero-bias-packed",
)  # fmt: skip


@pytest.fixture(params=MODELS)
def case(request, reference_checkpoint):
    """A float model of one reference checkpoint, and transformers' results."""
    folder = reference_checkpoint(request.param)
    with closing(open_checkpoint(folder)) as checkpoint:
        yield FloatModel(checkpoint), load_file(folder / "reference.safetensors")


def test_each_layer_and_the_head(case):
    """Fed with the reference's own input: 1e-4 of the largest value at 30 of 32 positions, 5 % at the rest."""
    model, wanted = case
    hidden = wanted["hidden_f32"]
    assert np.array_equal(model.embedding[wanted["input_ids"]], hidden[0])
    for layer in range(model.conf.n_layers):
        error = np.abs(model.layer(hidden[layer], layer) - hidden[layer + 1]).max(1) / np.abs(hidden[layer + 1]).max(1)
        assert (error <= 1e-4).sum() >= 30, f"layer {layer}: {np.sort(error)[-4:]}"
        assert error.max() <= 0.05, f"layer {layer}: {error.max()}"
    np.testing.assert_allclose(model.logits(hidden[-1]), wanted["logits_f32"], atol=1e-4)
