"""The master as it is written: transformers and the engine compute from it what was trained."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from safetensors.torch import load_file, save_file  # noqa: E402

from edgebit.convert import convert  # noqa: E402
from edgebit.errors import TrainError  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402
from edgebit.train.bit_linear import absmean_codes  # noqa: E402
from edgebit.train.decoder import Decoder  # noqa: E402
from edgebit.train.master import read_master, round_latent, write_master  # noqa: E402
from edgebit.train.shape import ModelShape  # noqa: E402

pytestmark = pytest.mark.reference
SHAPE = ModelShape(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def decoder(request):
    torch.manual_seed(3)
    shape = ModelShape.from_config(
        {**{name: getattr(SHAPE, name) for name in SHAPE.__slots__}, "tie_word_embeddings": request.param}
    )
    return Decoder(shape)


@pytest.fixture
def tokenizer(reference_checkpoint):
    folder = reference_checkpoint("bitnet-bf16")
    return {name: (folder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}


def logits_of(decoder, ids):
    given_ids = torch.tensor([ids])
    with torch.no_grad():
        return decoder(given_ids, torch.arange(len(ids))[None], torch.zeros_like(given_ids))[0].numpy()


def transformers_logits(folder, ids):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    assert type(model).__name__ == "BitNetForCausalLM"
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        return model(torch.tensor([ids])).logits[0].numpy()


def native_logits(native, folder, ids, out):
    convert(folder, out, probes=False)
    with Model.open(native, out) as model, Engine(model, ctx_len=64, threads=1, logits_rows=len(ids)) as engine:
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.array(engine.logits(row)) for row in range(len(ids))])


IDS = np.random.default_rng(5).integers(0, 500, 40).tolist()


def assert_near(found, expected, distance=0.01):
    """Of logits whose int8 rounding may fall to the other side here and there: few places, little."""
    assert np.abs(found - expected).mean() < distance * expected.std()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95


def test_transformers_computes_the_same(decoder, tokenizer, tmp_path):
    """BitNetForCausalLM, quantised online, of the folder."""
    write_master(tmp_path, decoder, tokenizer, bos=500, eos=501)

    assert_near(transformers_logits(tmp_path, IDS), logits_of(read_master(tmp_path), IDS))


def test_the_engine_computes_the_same(decoder, tokenizer, tmp_path, native):
    """Of the model file that convert makes of the folder, whose head has int8 rows."""
    write_master(tmp_path / "master", decoder, tokenizer, bos=500, eos=501)
    found = native_logits(native, tmp_path / "master", IDS, tmp_path / "model.ebm")

    assert_near(found, logits_of(read_master(tmp_path / "master"), IDS), distance=0.02)


def test_the_float_twin_is_the_same_without_rounding(tokenizer, tmp_path):
    """Logits equal to 1e-4: so every norm, head and position is where transformers has it."""
    torch.manual_seed(4)
    twin = Decoder(SHAPE, ternary=False)
    write_master(tmp_path, twin, tokenizer, bos=500, eos=501)

    np.testing.assert_allclose(transformers_logits(tmp_path, IDS), logits_of(twin, IDS), atol=1e-4)
    assert not read_master(tmp_path).ternary


def test_no_code_changes_on_the_way_to_bfloat16(decoder, tokenizer, tmp_path):
    """Though some cross the threshold when they are rounded to the nearest."""
    rounding = write_master(tmp_path, decoder, tokenizer)
    written = read_master(tmp_path).state_dict()
    flipped = 0
    for name, value in decoder.state_dict().items():
        if name.endswith("_proj.weight"):
            assert torch.equal(absmean_codes(value), absmean_codes(written[name]))
            flipped += int((absmean_codes(value) != absmean_codes(value.bfloat16().float())).sum())

    assert rounding.moved >= flipped > 0
    assert rounding.scale_error < 1e-4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 10), st.integers(0, 200))
def test_codes_stay_where_many_weights_lie_at_the_threshold(seed, scale, near):
    """Some of them on it, as they gather there in training."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(16, 32, generator=generator) * scale
    edge = weight.abs().mean() / 2
    noise = 1 + 0.004 * torch.randn(near, generator=generator)
    weight.view(-1)[:near] = edge * noise * torch.where(torch.rand(near, generator=generator) < 0.5, -1, 1)

    rounded, moved = round_latent(weight)

    assert rounded.dtype == torch.bfloat16
    assert torch.equal(absmean_codes(rounded.float()), absmean_codes(weight))
    assert moved <= weight.numel()


def test_a_published_master_is_read(reference_checkpoint):
    """Of the reference models."""
    decoder = read_master(reference_checkpoint("bitnet-bf16"))

    assert decoder.ternary
    assert decoder.shape.rope_theta == 500000.0


@pytest.mark.parametrize(
    ("name", "said"),
    [("bitnet-packed", "Take the master"), ("llama-master", "edgebit distill"), ("falcon3-packed", "edgebit distill")],
)
def test_what_is_no_master_is_refused(name, said, reference_checkpoint):
    """With the way out."""
    with pytest.raises(TrainError, match=said):
        read_master(reference_checkpoint(name))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}, "RoPE of kind linear is not trained on"),
        ("rope_scaling", {"type": "dynamic", "factor": 2.0}, "RoPE of kind dynamic is not trained on"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}, "RoPE of kind yarn"),
        ("rope_theta", None, "rope_theta is missing"),
    ],
    ids=["linear", "dynamic", "yarn", "none"],
)
def test_masters_whose_rope_is_not_trained_are_refused(key, value, said, tmp_path):
    """Naming the file; RoPE of kind default is none that is scaled."""
    write_master(tmp_path, Decoder(SHAPE), {})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_scaling": {"rope_type": "default"}}))
    assert read_master(tmp_path).shape == SHAPE

    changed = {name: each for name, each in {**config, key: value}.items() if each is not None}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(TrainError, match=rf"config\.json: {said}"):
        read_master(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "shape", "surplus", "cut"])
def test_damaged_masters_are_refused(fault, decoder, tmp_path):
    """Naming the tensor, or the file."""
    write_master(tmp_path, decoder, {})
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.self_attn.q_proj.weight"
    if fault == "missing":
        del tensors[name]
    elif fault == "shape":
        tensors[name] = tensors[name][:5].contiguous()
    elif fault == "surplus":
        tensors["model.layers.7.mlp.up_proj.weight"] = tensors[name].clone()
    save_file(tensors, path)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(TrainError, match="damaged" if fault == "cut" else r"model\.layers\."):
        read_master(tmp_path)
