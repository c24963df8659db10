"""What is held out for the evaluation: by content alone."""

import json
import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edgebit.bundle.prompt_program import Message
from edgebit.train.data.corpus import read_corpus
from edgebit.train.data.examples import Conversation, Text, digest, is_held_out

TEXTS = st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXTS), min_size=1, max_size=4)
EXAMPLES = st.one_of(
    st.builds(Text, TEXTS), st.builds(lambda messages: Conversation(tuple(messages)), MESSAGES)
)  # fmt: skip


def write(folder: Path, texts: list[str]) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@given(st.lists(EXAMPLES, unique=True, max_size=8))
def test_unequal_examples_have_unequal_digests(examples):
    assert len({digest(example) for example in examples}) == len(examples)


@given(EXAMPLES)
def test_more_share_holds_out_no_less(example):
    """0 holds out nothing, 1 everything; who is held out at a share is so at each higher one."""
    shares = [0.0, 0.1, 0.3, 0.9, 1.0]
    held = [is_held_out(digest(example), share) for share in shares]

    assert held == sorted(held) and not held[0] and held[-1]


def test_the_sides_do_not_hang_on_order_or_on_what_else_there_is(tmp_path):
    """Duplicates are on one side; about the share that was asked for is held out."""
    texts = [f"text {number % 1500}" for number in range(2000)]
    kept = set(read_corpus([write(tmp_path, texts)]).examples(0.25))
    random.Random(1).shuffle(texts)
    shuffled = set(read_corpus([write(tmp_path, [*texts, *map(str, range(500))])]).examples(0.25))

    known = {Text(text) for text in texts}
    assert shuffled & known == kept
    assert abs(len(kept) - 1125) < 70  # four standard deviations of 1500 draws
