"""transformers loads what `edgebit export hf` writes, and computes what the engine computes."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch", reason="PyTorch computes what we export (pip install torch)")
transformers = pytest.importorskip(
    "transformers", reason="transformers loads what we export (pip install transformers)"
)
pytest.importorskip("accelerate", reason="transformers needs it to load a BitNet (pip install accelerate)")

from edgebit.export.to_hugging_face import export_hugging_face  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402

pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("eager")]
MODELS = sorted(path.name for path in (Path(__file__).parents[1] / "reference").iterdir() if path.is_dir())


def load(folder) -> torch.nn.Module:
    """The model in float32, as tests/reference was computed."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(torch.float32)
    for module in model.modules():
        if type(module).__name__ == "BitLinear":
            module.dtype = torch.float32
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_source(name, reference_checkpoint, tmp_path):
    """What transformers once computed of the checkpoint itself, by the measures of tests/parity: mean difference
    0.03 of the deviation, 95 % the same argmax."""
    reference = load_file(reference_checkpoint(name) / "reference.safetensors")
    export_hugging_face(reference_checkpoint(name), tmp_path / "out")
    found = load(tmp_path / "out")(torch.from_numpy(reference["input_ids"])[None].long()).logits[0].numpy()
    wanted = reference["logits_f32"]
    print(f"\n{name}: mean difference {np.abs(found - wanted).mean() / wanted.std():.1e} of the deviation")
    assert np.abs(found - wanted).mean() <= 0.03 * wanted.std()
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.95


@pytest.mark.parametrize("name", ["bitnet-packed-odd-untied", "llama-master", "qwen3-rmsnorm-packed", "trilm-f16"])
def test_a_model_file_computes_what_the_engine_computes(name, reference_model, reference_checkpoint, native, tmp_path):
    """Its head as int8 rows with it; RoPE of Llama 3.1 and YaRN; floats in place of packed weights."""
    export_hugging_face(reference_model(name), tmp_path / "out")
    ids = load_file(reference_checkpoint(name) / "reference.safetensors")["input_ids"].tolist()
    with (
        Model.open(native, reference_model(name)) as opened,
        Engine(opened, ctx_len=len(ids), logits_rows=len(ids), kv="f32") as engine,
    ):
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        wanted = np.stack([np.frombuffer(engine.logits(row), np.float32) for row in range(len(ids))])
    found = load(tmp_path / "out")(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(found - wanted).mean() <= 0.03 * wanted.std()
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.95


def test_the_stored_type_loads_as_it_is(reference_checkpoint, tmp_path):
    """Without a word about types: bfloat16 where the export is, and tokenizer and chat template with it."""
    export_hugging_face(reference_checkpoint("bitnet-packed"), tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > ids["input_ids"].shape[1]
