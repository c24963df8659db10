"""Files to examples: every format, every way to be wrong, and no more memory than a record takes."""

import json
import shutil
import tracemalloc
from pathlib import Path

import pytest

from edgebit.bundle.prompt_program import Message
from edgebit.errors import TrainError
from edgebit.train.data import records
from edgebit.train.data.corpus import read_corpus
from edgebit.train.data.examples import Conversation, Text

FILES = Path(__file__).parent
REFUSALS = json.loads((FILES / "invalid" / "refusals.json").read_text())


def chat(*said: str, system: str = "", given: frozenset[int] = frozenset()) -> Conversation:
    """Of user and assistant in turns."""
    turns = [Message(("user", "assistant")[place % 2], content) for place, content in enumerate(said)]
    return Conversation(tuple([Message("system", system)] * bool(system) + turns), given)


HELLO, BRIEF = chat("Hi", "Hello."), chat("Hi", "Hello.", system="Be brief.")
SUM = chat("Add.\n\n1 and 2", "3")
VALID = {
    "text.jsonl": ("text", [Text("One text."), Text("Zwei, schön 你好 🙂")]),
    "messages.jsonl": ("chat", [BRIEF, BRIEF]),
    "weights.jsonl": ("chat", [chat("a", "b", "c", "d", given=frozenset({1}))]),
    "sharegpt.jsonl": ("chat", [HELLO, BRIEF]),
    "alpaca.jsonl": ("instruction", [SUM, HELLO]),
    "dolly.jsonl": ("instruction", [SUM]),
    "input_output.jsonl": ("io", [HELLO, BRIEF]),
    "prompt_completion.jsonl": ("io", [HELLO]),
    "prompt_response.jsonl": ("io", [HELLO]),
    "question_answer.jsonl": ("io", [HELLO]),
    "windows.jsonl": ("text", [Text("One text.")]),
    "plain.txt": (
        "text",
        [Text("One text\nof two lines."), Text("A second one.\n  Indented."), Text("Third, without an end")],
    ),
}


@pytest.mark.parametrize("path", sorted((FILES / "valid").iterdir()), ids=lambda path: path.name)
def test_what_a_file_says(path):
    """The format is told by the keys; the examples are read again by their numbers."""
    corpus = read_corpus([path])

    format, wanted = VALID[path.name]
    assert (corpus.format, list(corpus.examples())) == (format, wanted)
    assert [corpus[number] for number in reversed(range(len(corpus)))] == wanted[::-1]


@pytest.mark.parametrize("name", REFUSALS)
def test_a_broken_file_is_refused(name):
    """With the words that refusals.json has for it: the file, the line, what is wrong and how to mend it."""
    with pytest.raises(TrainError) as refused:
        read_corpus([FILES / "invalid" / name])

    assert REFUSALS[name] in str(refused.value) and name in str(refused.value)


def test_every_broken_file_has_its_words():
    assert {path.name for path in (FILES / "invalid").iterdir()} == {*REFUSALS, "refusals.json"}


@pytest.mark.parametrize(
    ("name", "format", "words"),
    [
        ("text.jsonl", "chat", ":1: has 'text': that is not the format chat"),
        ("plain.txt", "io", ":3: plain text, and --format says io"),
        ("alpaca.jsonl", "io", None),
        ("alpaca.jsonl", "text", ":1: has 'instruction', 'input', 'output': that is not the format text"),
    ],
)
def test_a_format_that_is_asked_for_must_fit(name, format, words):
    """`input` and `output` beside an instruction are the instruction's, and no pair."""
    with pytest.raises(TrainError) as refused:
        read_corpus([FILES / "valid" / name], format=format)

    assert (words or "that is not the format io") in str(refused.value)


def test_a_format_that_is_asked_for_decides():
    """Where the keys could mean two."""
    path = FILES / "invalid" / "text_and_messages.jsonl"

    assert list(read_corpus([path], format="text").examples()) == [Text("x")]
    assert list(read_corpus([path], format="chat").examples()) == [chat("hello", "hi")]


def test_what_cannot_be_learnt_from_is_left_out_and_counted(tmp_path):
    """On request; the first good record shows the format."""
    lines = [
        b"{",
        b'{"text": 7}',
        b'{"text": "good"}',
        b'{"text": "\xff"}',
        b'{"prompt": "x", "completion": "y"}',
        b"[",
    ]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))

    corpus = read_corpus([tmp_path], skip_invalid=True)

    assert list(corpus.examples()) == [Text("good")]
    assert corpus.skipped == {"not JSON": 2, "text is no text": 1, "not UTF-8": 1, "of another format": 1}


def test_folders_are_read_by_name_without_what_is_no_data(tmp_path):
    """Hidden files, other kinds, and what tells about the data; a file that is named twice is read once."""
    for name in (
        "b.txt",
        "a.jsonl",
        "deep/c.txt",
        "picture.png",
        ".hidden.txt",
        ".git/d.txt",
        "README.md",
        "LICENSE.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) if name.endswith("l") else name)

    corpus = read_corpus([tmp_path, tmp_path / "b.txt"])

    assert [example.text for example in corpus.examples()] == ["a.jsonl", "b.txt", "deep/c.txt"]
    assert {path.name for path in corpus.ignored} == {"picture.png", "README.md", "LICENSE.txt"}
    assert len(read_corpus([tmp_path / "README.md"])) == 1  # asked for by its name


def test_a_folder_without_data_is_refused(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"x")

    with pytest.raises(TrainError, match="the folder has no data: JSON Lines"):
        read_corpus([tmp_path])


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrainError, match=r"none.jsonl: cannot be read: No such file"):
        read_corpus([tmp_path / "none.jsonl"])


def test_a_text_file_may_be_one_document():
    corpus = read_corpus([FILES / "valid" / "plain.txt"], parting="files")

    text = "One text\nof two lines.\n\n\n \t\nA second one.\n  Indented.\n\nThird, without an end"
    assert list(corpus.examples()) == [Text(text)]


def test_equal_examples_are_counted_whatever_they_are_written_as(tmp_path):
    """In any format and file, with any other keys."""
    for name in ("prompt_completion.jsonl", "prompt_response.jsonl", "question_answer.jsonl"):
        shutil.copy(FILES / "valid" / name, tmp_path)
    (tmp_path / "z.jsonl").write_text('{"id": 3, "prompt": "Hi", "completion": "Hello"}\n')

    corpus = read_corpus([tmp_path])

    assert (len(corpus), corpus.duplicates) == (4, 2)


def test_a_file_that_changes_is_noticed(tmp_path):
    """When it is read again, at the line."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    corpus = read_corpus([path])
    path.write_text('{"text": "one"}\n{"text": "TWO"}\n')

    assert corpus[0] == Text("one")
    with pytest.raises(TrainError, match=r"x.jsonl:2: the file has changed since it was read first"):
        corpus[1]
    path.unlink()
    with pytest.raises(TrainError, match=r"x.jsonl: cannot be read any more"):
        corpus[0]


@pytest.mark.parametrize("name", ["x.jsonl", "x.txt"])
def test_a_record_too_long_is_passed_over_whole(monkeypatch, tmp_path, name):
    """What comes after it is found again at its place."""
    monkeypatch.setattr(records, "RECORD_MAX", 1000)
    texts = ["short", "long " * 1000, "y" * 900]
    lines = [json.dumps({"text": text}) if name == "x.jsonl" else text for text in texts]
    (tmp_path / name).write_text("\n\n".join(lines))

    with pytest.raises(TrainError, match=rf"{name}:3: a record has more than"):
        read_corpus([tmp_path / name])
    corpus = read_corpus([tmp_path / name], skip_invalid=True)

    assert [example.text for example in corpus.examples()] == ["short", "y" * 900]
    assert corpus.place(1).endswith(":5") and corpus.skipped == {"too long": 1}


def test_memory_holds_no_texts(tmp_path):
    """A file of 30 MB is read, and read again, within 2 MB."""
    with (tmp_path / "x.jsonl").open("w") as file:
        for number in range(300):
            file.write(json.dumps({"text": f"{number} " + "x" * 100_000}) + "\n")

    tracemalloc.start()
    try:
        corpus = read_corpus([tmp_path])
        total = sum(len(example.text) for example in corpus.examples())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert total > 30_000_000 and peak < 2_000_000
