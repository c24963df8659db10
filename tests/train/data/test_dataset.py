"""Examples to documents: none too long, counted, by their numbers, and the same rows after a resume."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.cli.data_summary import echo_dry_run, summary_as_dict, summary_lines
from edgebit.errors import TrainError
from edgebit.train.data.corpus import read_corpus
from edgebit.train.data.dataset import Dataset, open_dataset, shortened
from edgebit.train.data.preparation import DataSettings, prepare
from edgebit.train.rows import IGNORED, Document, PackedRows, shuffled

pytest.importorskip("tokenizers")


def write(folder: Path, *records: object) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def pairs(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"prompt": asked, "completion": answer} for asked, answer in said]


@pytest.fixture
def dataset(tmp_path, encoder) -> Dataset:
    """60 short conversations and one that is long, a quarter held out."""
    said = [(f"question {number}", f"answer {number} " * (number % 5 + 1)) for number in range(60)]
    path = write(tmp_path, *pairs(*said, ("long", "answer " * 200)))
    return open_dataset(read_corpus([path]), encoder("bitnet"), length=80, eval_share=0.25)


def test_every_document_is_on_one_side_or_dropped(dataset):
    """The long conversation has no answer that fits; the counts are those of the documents."""
    assert len(dataset.train) + len(dataset.held_out) == 60
    assert dataset.dropped == {"longer than 80 tokens": 1}
    for side in (dataset.train, dataset.held_out):
        assert side.tokens == sum(len(document.ids) for document in side)
        assert side.learnt == sum(label != IGNORED for document in side for label in document.labels)
        assert sum(side.lengths.values()) == len(side) and max(side.lengths) <= 7


def test_a_document_is_the_same_at_every_reading(dataset):
    """In any order."""
    once = list(dataset.train)

    assert [dataset.train[number] for number in reversed(range(len(once)))] == once[::-1]
    assert dataset.train[3:5] == once[3:5]


def test_rows_after_a_resume_are_those_that_would_have_come(tmp_path, dataset, encoder):
    """By a new reading of the same files."""
    rows = PackedRows(shuffled(dataset.train, seed=7), 80)
    rows.take(20)
    place = json.loads(json.dumps(rows.state()))
    wanted = rows.take(30)

    again = open_dataset(read_corpus([tmp_path]), encoder("bitnet"), length=80, eval_share=0.25)
    resumed = PackedRows(shuffled(again.train, seed=7), 80)
    resumed.restore(place)
    assert resumed.take(30) == wanted and again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    "change", [{"length": 81}, {"eval_share": 0.26}, {"template": "chatml"}, {"text": "other"}], ids=str
)
def test_the_fingerprint_tells_what_makes_other_documents(tmp_path, dataset, encoder, change):
    with (tmp_path / "x.jsonl").open("a") as file:
        file.write(json.dumps(pairs(("x", change["text"]))[0]) if "text" in change else "")
    settings = {"length": 80, "eval_share": 0.25} | {
        key: change[key] for key in ("length", "eval_share") & change.keys()
    }
    other = open_dataset(read_corpus([tmp_path]), encoder(change.get("template", "bitnet")), **settings)

    assert other.fingerprint != dataset.fingerprint


def test_a_long_text_is_cut_and_nothing_is_lost(tmp_path, encoder):
    """Each piece begins with the last token of the one before it, so every token but the first is learnt once."""
    path = write(tmp_path, {"text": "A long text about lamps. " * 40})
    whole = encoder("bitnet").text("A long text about lamps. " * 40)
    dataset = open_dataset(read_corpus([path]), encoder("bitnet"), length=32)

    pieces = list(dataset.train)
    assert [token for piece in pieces for token in piece.ids[1:]] == list(whole.ids[1:])
    assert all(one.ids[-1] == other.ids[0] for one, other in pairwise(pieces))
    assert dataset.train.learnt == len(whole.ids) - 1 and max(len(piece.ids) for piece in pieces) == 32


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5), st.integers(2, 60))
def test_a_long_conversation_ends_with_its_last_answer_that_fits(turns, length):
    """Never in the middle of one; where the first does not fit, nothing is left."""
    labels = [label for given, learnt in turns for label in [IGNORED] * given + [5] * learnt]
    ends = [sum(map(sum, turns[: number + 1])) for number in range(len(turns))]
    document = Document([5] * len(labels), labels)

    fitting = max((end for end in ends if end <= length), default=None)
    short = shortened(document, length)
    assert (None if short is None else len(short.ids)) == fitting


def test_a_conversation_that_is_cut_is_counted(tmp_path, encoder):
    messages = [{"role": role, "content": "Say it. " * 4} for role in ("user", "assistant") * 3]
    path = write(tmp_path, {"messages": messages})
    whole = encoder("chatml").documents(read_corpus([path])[0])[0]

    dataset = open_dataset(read_corpus([path]), encoder("chatml"), length=len(whole.ids) - 1)

    assert (len(dataset.train), dataset.cut, dataset.dropped) == (1, 1, {})
    assert dataset.train[0].ids == whole.ids[: len(dataset.train[0].ids)] and dataset.train.tokens < len(whole.ids)


def test_what_the_template_does_not_take_is_refused_or_counted(tmp_path, encoder):
    """With the line."""
    two = [{"role": role, "content": "x"} for role in ("user", "user", "assistant")]
    path = write(tmp_path, {"messages": two[1:]}, {"messages": two})
    corpus, opened = read_corpus([path]), encoder("mistral")

    with pytest.raises(TrainError, match=r"x.jsonl:2: this model's chat template takes user and assistant messages in"):
        open_dataset(corpus, opened, length=64)
    assert open_dataset(corpus, opened, length=64, skip_invalid=True).dropped == {"refused by the template": 1}


@pytest.mark.parametrize(
    ("length", "share", "words"), [(4, 0.0, "1 longer than 4 tokens"), (64, 1.0, "all are to evaluate on")]
)
def test_nothing_left_to_learn_is_refused(tmp_path, encoder, length, share, words):
    path = write(tmp_path, *pairs(("a", "b")))

    with pytest.raises(TrainError, match=f"no document is left to learn from: {words}"):
        open_dataset(read_corpus([path]), encoder("bitnet"), length=length, eval_share=share)


def test_a_summary_says_it_all(dataset, encoder):
    """For people, with what is learnt of the first document marked; and for scripts."""
    lines = "\n".join(summary_lines(dataset, encoder("bitnet")))
    figures = summary_as_dict(dataset, encoder("bitnet"))

    assert "examples   61, of which 0 equal an earlier one" in lines
    assert "dropped    1: longer than 80 tokens" in lines
    assert f"to learn   {len(dataset.train)} documents, {dataset.train.tokens:,} tokens" in lines
    assert "<|begin_of_text|>User: question 0<|eot_id|>Assistant: [[answer 0<|eot_id|>]]" in lines
    assert figures["train"]["documents"] + figures["held_out"]["documents"] == 60
    assert figures["first"][1] == {"text": "answer 0<|eot_id|>", "learnt": True}
    assert json.loads(json.dumps(figures)) == figures


def test_a_dry_run_says_what_a_training_would_learn(tmp_path, native, capsys):
    """And how many steps once through it takes; nothing stays."""
    path = write(tmp_path, *pairs(*((f"is lamp {number} on", "Yes, it is on.") for number in range(50))))
    data = DataSettings(vocab_size=280)

    echo_dry_run([path], data, row_length=64, batch_tokens=256, as_json=True)
    figures = json.loads(capsys.readouterr().out)
    echo_dry_run([path], data, row_length=64, batch_tokens=256, as_json=False)
    lines = capsys.readouterr().out.splitlines()

    assert figures["steps_an_epoch"] == round(figures["train"]["tokens"] / 256) > 1
    assert lines[-1].startswith(f"steps      about {figures['steps_an_epoch']} of 256 tokens")
    assert list(tmp_path.iterdir()) == [path]


def test_a_dry_run_reads_what_would_be_evaluated_on_and_rehearsed(tmp_path, native, capsys):
    """With the tokenizer of the data to learn; no share of these is held out then, and what is wrong there is named."""
    paths = [tmp_path / name / "x.jsonl" for name in ("learnt", "held-out", "old")]
    for path, count in zip(paths, (50, 7, 9), strict=True):
        path.parent.mkdir()
        write(path.parent, *pairs(*((f"is lamp {number} on", "Yes, it is on.") for number in range(count))))
    sizes = {"evaluate_on": [paths[1]], "replay": [paths[2]], "row_length": 64, "batch_tokens": 256}
    data = DataSettings(vocab_size=280, eval_share=0.5)

    echo_dry_run(paths[:1], data, **sizes, as_json=True)
    figures = json.loads(capsys.readouterr().out)
    echo_dry_run(paths[:1], data, **sizes, as_json=False)
    lines = capsys.readouterr().out

    assert (figures["train"]["documents"], figures["held_out"]["documents"]) == (50, 0)
    assert (figures["evaluated_on"]["documents"], figures["replay"]["documents"]) == (7, 9)
    assert "evaluation 1 file, format io: 7 documents" in lines and "rehearsal  1 file, format io: 9" in lines
    paths[1].write_text("{")
    with pytest.raises(TrainError, match=r"held-out/x\.jsonl:1"):
        echo_dry_run(paths[:1], data, **sizes, as_json=True)


def test_from_paths_to_documents_in_one_call(tmp_path, native):
    """A tokenizer is learnt, and taken over the next time, with the same documents."""
    path = write(tmp_path, *pairs(*((f"is lamp {number} on", "Yes, it is on.") for number in range(50))))
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()

    dataset, opened = prepare([path], first, DataSettings(vocab_size=280), length=64)
    taken = DataSettings(tokenizer=first)
    again, other = prepare([path], second, taken, length=64)
    resumed, third = prepare([path], first, taken, length=64)

    assert dataset.fingerprint == again.fingerprint == resumed.fingerprint
    assert list(dataset.train) == list(again.train)
    for each in (opened, other, third):
        each.close()
