"""torch and peft compute what the engine computes with an adapter, on every reference model."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch", reason="PyTorch computes what is compared (pip install torch)")
transformers = pytest.importorskip("transformers", reason="transformers runs the base (pip install transformers)")
peft = pytest.importorskip("peft", reason="peft puts the adapter on it (pip install peft)")
pytest.importorskip("accelerate", reason="transformers needs it to load a BitNet (pip install accelerate)")

from edgebit.adapters import convert_adapter  # noqa: E402
from edgebit.bundle.conf_section import read_conf  # noqa: E402
from edgebit.bundle.model_format import PROJECTIONS, Encoding  # noqa: E402
from edgebit.checkpoint.hugging_face.lora_config import LoraConfig  # noqa: E402
from edgebit.checkpoint.hugging_face.peft_folder import LowRankPair, PeftAdapter, write_peft_folder  # noqa: E402
from edgebit.export.to_hugging_face import export_hugging_face  # noqa: E402
from edgebit.runtime.adapter import Adapter  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402

pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("eager")]
MODELS = sorted(path.name for path in (Path(__file__).parents[1] / "reference").iterdir() if path.is_dir())
RANK = 8


def write_random_adapter(model: Model, folder: Path) -> None:
    """A pair for every projection, whose numbers f16 holds exactly."""
    conf, random = read_conf(model.section("CONF") or b""), np.random.default_rng(3)
    config = LoraConfig(rank=RANK, alpha=16, target_modules=tuple(role.name.lower() for role in PROJECTIONS))
    pairs = {}
    for layer in range(conf.n_layers):
        for role in PROJECTIONS:
            rows, columns = conf.shape_of(role)
            a = random.standard_normal((RANK, columns)) / np.sqrt(columns)
            b = random.standard_normal((rows, RANK)) * 0.4
            pairs[layer, role] = LowRankPair(
                a.astype("<f2").astype("<f4"), b.astype("<f2").astype("<f4"), config.alpha / RANK
            )
    folder.mkdir()
    write_peft_folder(folder, PeftAdapter(config, pairs))


def load_with_peft(checkpoint: Path, adapter: Path) -> torch.nn.Module:
    """The base in float32, as tests/reference was computed, and peft's own Linear around each projection."""
    base = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).to(torch.float32)
    packed = {type(module) for module in base.modules() if type(module).__name__ == "BitLinear"}
    for module in base.modules():
        if type(module) in packed:
            module.dtype = torch.float32
    config = peft.PeftConfig.from_pretrained(adapter)
    config._register_custom_module(dict.fromkeys(packed, peft.tuners.lora.Linear))  # no nn.Linear, but like one
    return peft.PeftModel.from_pretrained(base, adapter, config=config).eval()


def engine_logits(model: Model, ids: list[int], adapter: Adapter | None) -> np.ndarray:
    with Engine(model, ctx_len=len(ids), logits_rows=len(ids), kv="f32") as engine:
        engine.set_adapter(0, adapter)
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.array(engine.logits(row)) for row in range(len(ids))])


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_peft(name, reference_checkpoint, reference_model, native, tmp_path):
    """By tests/parity's measures for the base: mean difference 0.03 of the deviation, same argmax where it is sure.

    The adapter moves the logits by more than ten times that. int8 in place of f16 stays within 0.06.
    """
    reference = load_file(reference_checkpoint(name) / "reference.safetensors")
    ids = reference["input_ids"].tolist()
    with Model.open(native, reference_model(name)) as model:
        write_random_adapter(model, tmp_path / "lora")
        export_hugging_face(reference_checkpoint(name), tmp_path / "base")
        theirs = load_with_peft(tmp_path / "base", tmp_path / "lora")
        wanted = theirs(torch.tensor([ids])).logits[0].numpy()
        found = {}
        for encoding in (Encoding.F16, Encoding.I8):
            out = tmp_path / f"{encoding.name}.adapter"
            convert_adapter(tmp_path / "lora", reference_model(name), out, encoding=encoding)
            with Adapter.open(native, model, out.read_bytes()) as adapter:
                found[encoding] = engine_logits(model, ids, adapter)
        without = engine_logits(model, ids, None)

    deviation = wanted.std()
    off = {encoding: float(np.abs(logits - wanted).mean() / deviation) for encoding, logits in found.items()}
    moved = float(np.abs(without - wanted).mean() / deviation)
    print(f"\n{name}: f16 {off[Encoding.F16]:.1e}, int8 {off[Encoding.I8]:.1e}, without {moved:.2f} of the deviation")
    assert moved > 0.3
    assert off[Encoding.F16] <= 0.03
    assert off[Encoding.I8] <= 0.06
    best = np.sort(wanted, axis=1)
    sure = best[:, -1] - best[:, -2] >= 0.1 * deviation
    assert sure.mean() > 0.5
    assert (found[Encoding.F16].argmax(axis=1) == wanted.argmax(axis=1))[sure].all()


@pytest.mark.parametrize("name", ["bitnet-bf16", "llama-master"])
def test_greedy_tokens_are_those_of_peft_where_it_is_sure(
    name, reference_checkpoint, reference_model, native, tmp_path
):
    """Fed with peft's own 40 tokens: the same one wherever its distance to the second is 0.25 or more."""
    with Model.open(native, reference_model(name)) as model:
        write_random_adapter(model, tmp_path / "lora")
        theirs = load_with_peft(reference_checkpoint(name), tmp_path / "lora")
        ids = [1, 5, 9, 20]
        for _ in range(40):
            ids.append(int(theirs(torch.tensor([ids])).logits[0, -1].argmax()))
        wanted = theirs(torch.tensor([ids[:-1]])).logits[0, 3:]
        convert_adapter(tmp_path / "lora", reference_model(name), tmp_path / "x.adapter")
        with Adapter.open(native, model, (tmp_path / "x.adapter").read_bytes()) as adapter:
            ours = engine_logits(model, ids[:-1], adapter)[3:].argmax(axis=1)

    best = wanted.topk(2).values
    sure = [step for step in range(40) if best[step, 0] - best[step, 1] >= 0.25]
    assert len(sure) >= 10
    assert [int(ours[step]) for step in sure] == [ids[4 + step] for step in sure]
