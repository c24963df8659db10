"""The loop: it learns, parts of a batch add up to it, and what cannot go on is said."""

import subprocess
from dataclasses import replace

import pytest
from sorting_task import END, SHAPE, sorting_document, sorting_documents

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from greedy_decoding import greedy  # noqa: E402

from edgebit.errors import TrainError  # noqa: E402
from edgebit.train.decoder import Decoder  # noqa: E402
from edgebit.train.records import Listener  # noqa: E402
from edgebit.train.rows import IGNORED, Document, PackedRows, packed_once, shuffled  # noqa: E402
from edgebit.train.schedule import Schedule  # noqa: E402
from edgebit.train.trainer import Settings, train  # noqa: E402

pytestmark = pytest.mark.reference


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(documents, *, shape=SHAPE, ternary=True, objective=None, listener=None, held_out=(), **settings):
    """A decoder, and what came of its training."""
    torch.manual_seed(1)
    decoder = Decoder(shape, ternary=ternary)
    steps = settings.pop("steps", 5)
    rate = settings.pop("learning_rate", 5e-3)
    schedule = Schedule(steps=steps, learning_rate=rate, warmup=2)
    given = Settings(schedule=schedule, **{"batch_rows": 4, "compile": False, **settings})
    source = PackedRows(shuffled(documents, 1), 48)
    extra = {} if objective is None else {"objective": objective}
    return decoder, train(decoder, source, given, held_out=held_out, listener=listener, **extra)


@pytest.mark.parametrize("ternary", [True, False], ids=["ternary", "float"])
def test_a_tiny_decoder_learns_to_sort(ternary):
    """Held-out rows too: two numbers in order, nearly always, after some seconds."""
    documents = sorting_documents(2000)
    decoder, outcome = trained(
        documents, ternary=ternary, steps=240, batch_rows=16, evaluate_every=80,
        held_out=packed_once(sorting_documents(60, seed=2), 48),
    )  # fmt: skip

    assert outcome.finished and outcome.records[-1].loss < 0.5 * outcome.records[0].loss
    evaluated = [record for record in outcome.records if record.held_out_loss is not None]
    assert [record.step for record in evaluated] == [80, 160, 240]
    assert evaluated[-1].held_out_loss < evaluated[0].held_out_loss
    assert outcome.held_out.accuracy == evaluated[-1].held_out_accuracy
    prompts = [sorting_document([high, low]).ids[:4] for high, low in ((9, 2), (20, 11), (17, 3))]
    answers = greedy(decoder, prompts, stop={END}, limit=6)
    assert all(answer == sorted(answer) for answer in answers)


def test_parts_of_a_batch_add_up_to_it():
    """Four parts of a row each give the losses of four rows at once, though documents' tokens are unevenly spread."""
    documents = sorting_documents(100)
    whole, parts = (trained(documents, accumulate=count)[1].records for count in (1, 4))

    assert [record.loss for record in parts] == pytest.approx([record.loss for record in whole], rel=1e-3)
    assert [record.tokens for record in parts] == [record.tokens for record in whole]


def test_frozen_parameters_stay():
    """What wants no gradient is neither moved nor decayed."""
    torch.manual_seed(1)
    decoder = Decoder(SHAPE)
    decoder.model.embed_tokens.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    settings = Settings(schedule=Schedule(steps=2), batch_rows=2, compile=False)
    train(decoder, PackedRows(shuffled(sorting_documents(50), 1), 48), settings)

    moved = {name for name, value in decoder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(before) - {"model.embed_tokens.weight"}


def test_another_objective_is_what_is_trained():
    """Of the hidden states at the learnt places."""
    seen = []

    def objective(decoder, hidden, batch):
        seen.append((len(hidden), len(batch.labels)))
        return hidden.square().sum()

    _, outcome = trained(sorting_documents(50), objective=objective, steps=3)

    assert outcome.records[-1].loss < outcome.records[0].loss
    assert all(states == labels for states, labels in seen)


def test_a_loss_that_is_no_number_ends_the_training():
    """With what to change."""
    with pytest.raises(TrainError, match=r"the loss is (nan|inf).*--learning-rate"):
        trained(sorting_documents(50), learning_rate=1e12, steps=20)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (float("inf"), "the loss is -?inf"),
        (float("nan"), "the loss is nan"),
        (1e38, "the norm of the gradients is inf"),
    ],
)
def test_a_step_that_is_no_number_moves_nothing(factor, said):
    """The loss, or with a finite loss the gradients: the weights are those of before."""
    decoders = []

    def objective(decoder, hidden, batch):
        decoders.append((decoder, {name: value.clone() for name, value in decoder.state_dict().items()}))
        return hidden.sum() * 0 + decoder.head(hidden).flatten()[0] * factor * 1e-3

    with pytest.raises(TrainError, match=f"step 1: {said}.*--learning-rate 0.0025"):
        trained(sorting_documents(50), objective=objective, steps=1)
    ((decoder, before),) = decoders
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


def test_data_without_answers_are_refused():
    """Nothing of them would be learnt."""
    with pytest.raises(TrainError, match="no token of its 4 rows is learnt"):
        trained([Document([1, 2, 3], [IGNORED] * 3)])


def test_too_little_memory_is_said_with_a_cure(monkeypatch):
    """The next number of parts that the rows divide into."""

    def full(*given):
        raise torch.OutOfMemoryError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(TrainError, match=r"not enough memory for 4 rows at once\. Give --accumulate 2"):
        trained(sorting_documents(50), objective=full)


def test_it_stops_when_it_is_asked_to():
    """After a step, and says that it has not ended."""
    asked = iter([False, False, True])
    _, outcome = trained(sorting_documents(50), listener=Listener(should_stop=lambda: next(asked)))

    assert len(outcome.records) == 3
    assert not outcome.finished


def test_rows_that_do_not_divide_are_refused():
    """Into the parts that were asked for."""
    with pytest.raises(TrainError, match="10 rows do not divide into 4"):
        Settings(schedule=Schedule(steps=1), batch_rows=10, accumulate=4)


def test_it_goes_on_where_nothing_compiles(monkeypatch):
    """With a note; the losses are those without the compiler."""

    def broken(body, **options):
        def call(*given):
            raise RuntimeError("No working C++ compiler found\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    notes = []
    _, plain = trained(sorting_documents(50))
    _, outcome = trained(sorting_documents(50), compile=True, listener=Listener(noted=notes.append))

    assert len(notes) == 1 and "(No working C++ compiler found)" in notes[0]
    assert outcome.records == plain.records


def test_a_compiled_training_is_near_the_one_that_is_not():
    """The same steps in another order of sums; one layer, since compiling takes long."""
    shape = replace(SHAPE, num_hidden_layers=1)
    try:
        subprocess.run(["c++", "--version"], check=True, capture_output=True)
    except OSError:
        pytest.skip("no C++ compiler")
    notes = []
    _, plain = trained(sorting_documents(50), shape=shape)
    _, outcome = trained(sorting_documents(50), shape=shape, compile=True, listener=Listener(noted=notes.append))

    assert not notes
    assert [record.loss for record in outcome.records] == pytest.approx([each.loss for each in plain.records], rel=0.01)


def test_products_of_bfloat16_learn_nearly_the_same():
    """Other bits where the CPU has them, losses within some percent; a training without them is exact again."""
    documents = sorting_documents(100)
    _, exact = trained(documents, steps=12)
    _, rounded = trained(documents, steps=12, bf16_products=True)
    _, again = trained(documents, steps=12)

    assert [record.loss for record in rounded.records] == pytest.approx([r.loss for r in exact.records], rel=0.1)
    assert again.records == exact.records
