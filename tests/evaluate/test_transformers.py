"""Perplexity by sliding windows beside transformers, by the loop of its guide."""

import pytest
from safetensors.numpy import load_file

from edgebit.evaluate.perplexity import measure_perplexity
from edgebit.evaluate.text import take_ids
from edgebit.evaluate.windows import Windows, open_engine
from edgebit.runtime.model import Model

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def theirs(reference_checkpoint):
    """bitnet-packed as transformers runs it, in float32 and without its compiler, which takes a minute."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    folder = reference_checkpoint("bitnet-packed")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    for module in model.to(torch.float32).eval().modules():
        if module.__class__.__name__ == "BitLinear":
            module.dtype = torch.float32
    with torch.compiler.set_stance("force_eager"):
        yield model


@pytest.mark.parametrize(("length", "stride"), [(64, 32), (200, 100), (50, 49)])
def test_the_perplexity_of_the_guide(length, stride, theirs, native, reference_model, reference_checkpoint):
    """Mean loss over tokens of windows whose context is masked out, one window at a time: within 0.02."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ids = load_file(reference_checkpoint("bitnet-packed") / "reference.safetensors")["long_ids"].tolist()
    loss, tokens, end_before = 0.0, 0, 1
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        read = torch.tensor([ids[begin:end]])
        labels = read.clone()
        labels[:, : end_before - begin] = -100
        with torch.no_grad():
            loss += float(theirs(read, labels=labels).loss) * (end - end_before)
        tokens, end_before = tokens + end - end_before, end
        if end == len(ids):
            break
    with Model.open(native, reference_model("bitnet-packed")) as model:
        windows = Windows(length, stride)
        with open_engine(model, windows, threads=1, kv="f32") as engine:
            ours = measure_perplexity(engine, take_ids(model, ids, name="ids"), windows)
    assert ours.tokens == tokens == 199
    assert abs(ours.nll - loss / tokens) <= 0.02
