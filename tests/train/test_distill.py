"""Distillation of a tiny float Llama: rounding alone loses it, and some hundred steps with its logits bring it back."""

import json
import random

import numpy as np
import pytest
from click.testing import CliRunner

from edgebit.checkpoint.opening import open_checkpoint
from edgebit.cli import cli
from edgebit.errors import CheckpointError, TrainError

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("native")]  # which cuts texts into tokens

ROW = 64
CHOICES = {
    "who": ["the cook", "a driver", "my sister", "the old man", "nobody"],
    "does": ["opens", "closes", "paints", "carries", "sells"],
    "what": ["the red door", "a small boat", "the kitchen lamp", "two boxes", "an apple"],
    "where": ["in the garden", "near the river", "at home", "behind the school"],
}
OPPOSITE = {"opens": "closed", "closes": "open", "paints": "wet", "carries": "heavy", "sells": "gone"}


def write_text(path, seed, count):
    """Sentences of which the second half follows from the first."""
    rng, lines = random.Random(seed), []
    for _ in range(count):
        who, does, what, where = (rng.choice(words) for words in CHOICES.values())
        lines.append(f"{who} {does} {what} {where} , so {what} {where} is {OPPOSITE[does]} .")
    path.write_text("\n\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return write_text(folder / "learnt.txt", 1, 1200), write_text(folder / "held-out.txt", 2, 60)


@pytest.fixture(scope="module")
def teacher(native, texts, tmp_path_factory):
    """The folder of a float Llama of 0.1 M parameters that has learnt these sentences."""
    safetensors = pytest.importorskip("safetensors.torch")
    from edgebit.train.data.preparation import DataSettings
    from edgebit.train.decoder import Decoder
    from edgebit.train.distillation.teacher import remove_sub_norms
    from edgebit.train.prepared_rows import prepared_rows
    from edgebit.train.schedule import Schedule
    from edgebit.train.shape import ModelShape
    from edgebit.train.trainer import Settings, train

    folder = tmp_path_factory.mktemp("teacher")
    shape = ModelShape(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, hidden_act="silu",
    )  # fmt: skip
    torch.manual_seed(1)
    decoder = Decoder(shape, ternary=False)
    remove_sub_norms(decoder)
    data = DataSettings(vocab_size=shape.vocab_size, template="none", eval_share=0)
    with prepared_rows([texts[0]], folder, data, row_length=ROW, seed=1) as rows:
        schedule = Schedule(steps=200, learning_rate=4e-3)
        train(decoder, rows.source, Settings(schedule=schedule, batch_rows=8, compile=False, threads=1))
    safetensors.save_file(decoder.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    sizes = {name: getattr(shape, name) for name in ModelShape.__dataclass_fields__}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32", **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "response_schema.json").write_text('{"type": "string"}')
    return folder


def distill(*arguments: object):
    fixed = ["--template", "none", "--row-length", ROW, "--batch-tokens", 8 * ROW, "--threads", 1, "--no-compile"]
    return CliRunner().invoke(cli, ["distill", *map(str, [*arguments, *fixed, "--json"])])


@pytest.mark.parametrize("form", ["bitnet", "llama"])
def test_some_hundred_steps_bring_most_of_it_back(form, teacher, texts, tmp_path):
    """Held-out loss: rounded alone far above the teacher's; the student's, less than a third of the way from it."""
    done = distill(
        teacher, texts[0], "--eval", texts[1], "--student", form, "--steps", 200, "--learning-rate", 4e-3,
        "--eval-every", 0, "--out", tmp_path / "student",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    loss = {name: found["loss"] for name, found in json.loads(done.stdout)["held_out"].items()}
    print(form, loss)  # pytest -s: the table of docs/training.md
    assert loss["rounded"] > loss["teacher"] + 1
    assert loss["student"] - loss["teacher"] < (loss["rounded"] - loss["teacher"]) / 3

    checkpoint = open_checkpoint(tmp_path / "student")
    checkpoint.close()
    assert checkpoint.family == f"{form}-master"
    card = (tmp_path / "student" / "README.md").read_text()
    assert f"A student ({form}) of {teacher.name}" in card and "0.9 of the loss" in card
    assert f"loss {loss['student']:.4f}" in card and "200 steps of 8 rows" in card
    assert checkpoint.response_schema() == b'{"type": "string"}'
    assert json.loads(done.stdout)["response_schema"] == str(tmp_path / "student" / "response_schema.json")


def test_a_dry_run_writes_nothing(teacher, texts, tmp_path):
    """It says what the data hold in the teacher's tokens."""
    done = distill(teacher, texts[0], "--eval", texts[1], "--out", tmp_path / "student", "--dry-run")

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["vocab_size"] == 320 and told["evaluated_on"]["tokens"] > 0
    assert not (tmp_path / "student").exists()


def test_a_dry_run_refuses_a_teacher_that_is_ternary(texts, tmp_path, reference_checkpoint):
    """As the training would."""
    done = distill(reference_checkpoint("llama-master"), texts[0], "--out", tmp_path / "student", "--dry-run")

    assert isinstance(done.exception, CheckpointError) and "is ternary already" in str(done.exception)


def test_transformers_computes_the_same_student(teacher, texts, tmp_path):
    """Both forms: what is written is what was trained."""
    transformers = pytest.importorskip("transformers")
    from edgebit.train.decoder import Decoder
    from edgebit.train.distillation.teacher import read_teacher, remove_sub_norms
    from edgebit.train.master import read_master

    ids = torch.from_numpy(np.random.default_rng(3).integers(0, 320, (8, 6)))
    places = torch.arange(6).expand_as(ids)

    def both(decoder: Decoder, folder) -> tuple[np.ndarray, np.ndarray]:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(torch.float32).eval()
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            return decoder(ids, places, torch.ones_like(ids)).numpy(), model(ids).logits.numpy()

    ours, theirs = both(read_teacher(teacher), teacher)
    assert np.abs(ours - theirs).max() < 1e-4
    done = distill(teacher, texts[0], "--steps", 2, "--out", tmp_path / "bitnet")
    assert done.exit_code == 0, done.output
    ours, theirs = both(read_master(tmp_path / "bitnet"), tmp_path / "bitnet")
    assert np.median(np.abs(ours - theirs).max(axis=-1)) < 1e-4

    done = distill(teacher, texts[0], "--steps", 2, "--student", "llama", "--out", tmp_path / "llama")
    assert done.exit_code == 0, done.output
    student = Decoder(read_teacher(teacher).shape, ternary=True)
    remove_sub_norms(student)
    tensors = pytest.importorskip("safetensors.torch").load_file(tmp_path / "llama" / "model.safetensors")
    student.load_state_dict({name: values.float() for name, values in tensors.items()})
    ours, theirs = both(student.eval(), tmp_path / "llama")
    assert np.median(np.abs(ours - theirs).max(axis=-1)) < 1e-4


def test_it_goes_on_at_the_exact_step(teacher, texts, tmp_path):
    """Broken after 4 of 8 steps and resumed: the same weights, bit for bit."""
    options = [teacher, texts[0], "--steps", 8, "--save-every", 4]
    for name in ("whole", "broken"):
        assert distill(*options, "--out", tmp_path / name).exit_code == 0
    (tmp_path / "broken" / "training-state" / "step-00000008.state").unlink()
    (tmp_path / "broken" / "model.safetensors").unlink()
    assert distill(*options, "--out", tmp_path / "broken", "--resume").exit_code == 0
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]


def test_the_loss_is_divergence_and_cross_entropy_in_their_shares(teacher):
    """None of a student that is its teacher; with temperature, as computed from probabilities here."""
    from edgebit.train.batch import batch_of, cross_entropy
    from edgebit.train.distillation.objective import Distillation
    from edgebit.train.distillation.teacher import read_teacher, student_of
    from edgebit.train.rows import Document, row_of

    read = read_teacher(teacher)
    row = row_of([Document(list(range(20)), [-100] * 10 + list(range(10, 20)))], 32)
    batch = batch_of([row])

    def hidden(decoder):
        return decoder.model(batch.ids, batch.positions, batch.documents).flatten(0, 1)[batch.learnt]

    student = student_of(read, "llama", [row])
    with torch.no_grad():
        states = hidden(student)
        p, q = (
            (decoder.head(found).double() / 2).softmax(-1)
            for decoder, found in ((read, hidden(read)), (student, states))
        )
        wanted = 4 * float((p * (p / q).log()).sum())
        own = float(cross_entropy(student, states, batch))
        assert float(Distillation(read, 2.0, 1.0)(student, states, batch)) == pytest.approx(wanted, rel=1e-4)
        assert float(Distillation(read, 2.0, 0.0)(student, states, batch)) == pytest.approx(own, rel=1e-5)
        mixed = float(Distillation(read, 2.0, 0.25)(student, states, batch))
        assert mixed == pytest.approx(0.25 * wanted + 0.75 * own, rel=1e-4)
        assert float(Distillation(read, 2.0, 1.0)(read, hidden(read), batch)) == pytest.approx(0, abs=1e-4)


def test_what_can_be_no_teacher_is_refused(reference_checkpoint, texts, teacher, tmp_path):
    """A ternary model; a model of other norms; a temperature and rows that cannot be."""
    ternary = distill(reference_checkpoint("bitnet-bf16"), texts[0], "--out", tmp_path / "out")
    assert isinstance(ternary.exception, CheckpointError)
    assert "is ternary already" in str(ternary.exception)
    cold = distill(teacher, texts[0], "--temperature", "0", "--out", tmp_path / "cold")
    assert isinstance(cold.exception, TrainError)
    assert "temperature of 0" in str(cold.exception)
    assert not (tmp_path / "cold" / "config.json").exists()
