"""Whatever is in a file, it is read or refused in words, and never met with another error."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.errors import TrainError
from edgebit.train.data.corpus import read_corpus
from edgebit.train.data.formats import FORMATS

KEYS = ("text", "messages", "conversations", "instruction", "input", "context", "output", "response", "prompt",
        "completion", "question", "answer", "system", "tools", "role", "from", "content", "value", "weight", "type",
        "tool_calls")  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2), st.floats(), st.text(max_size=3),
    st.sampled_from(["user", "assistant", "human", "gpt", "system", "text", "\ud800", "\0", ""]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)
RECORDS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


def check(path, **settings) -> None:
    try:
        corpus = read_corpus([path], **settings)
    except TrainError as refused:
        assert str(path) in str(refused)
    else:
        assert len(list(corpus.examples())) == len(corpus)


@settings(max_examples=60)
@given(
    records=st.lists(RECORDS, min_size=1, max_size=3),
    format=st.sampled_from([None, *FORMATS]),
    skip_invalid=st.booleans(),
)
def test_any_record_is_read_or_refused(folder, records, format, skip_invalid):
    path = folder / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))

    check(path, format=format, skip_invalid=skip_invalid)


@settings(max_examples=40)
@given(
    data=st.binary(max_size=40),
    name=st.sampled_from(["x.jsonl", "x.txt"]),
    parting=st.sampled_from(["blank-lines", "files"]),
)
def test_any_bytes_are_read_or_refused(folder, data, name, parting):
    path = folder / name
    path.write_bytes(data)

    check(path, parting=parting)
    check(path, parting=parting, skip_invalid=True)
