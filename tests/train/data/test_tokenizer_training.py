"""Tokenizers that are learnt: as large as asked for, the same at every run, and to `tokenizers` what they are to us."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.checkpoint.tokenizer import read_tokenizer
from edgebit.errors import TokenizerError, TrainError
from edgebit.train.data.examples import Text
from edgebit.train.data.tokenizer_files import adopt_tokenizer
from edgebit.train.data.tokenizer_training import train_tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXTS = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from(["<|eot_id|>", "<|begin_of_text|>", "the light", "\r\n", "don't"]))
).map("".join)


@settings(max_examples=80)
@given(text=TEXTS)
def test_engine_and_tokenizers_give_the_same_ids(encoder, learnt, text):
    """With names of special tokens as those tokens, which is how `tokenizers` reads every text."""
    theirs = tokenizers.Tokenizer.from_file(str(learnt("bitnet") / "tokenizer.json"))
    ids = theirs.encode(text, add_special_tokens=False).ids

    assert encoder("bitnet").tokenizer.encode(text, parse_special=True) == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text


def test_the_merges_are_learnt(learnt):
    """What is often in the data takes few tokens; special tokens come last, begin-of-text first among them."""
    read = read_tokenizer(learnt("llama3"))

    assert len(read.tokens) == 512 and len(read.merges) > 240
    assert [token.decode() for token in read.tokens[-5:]] == [
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    ]  # fmt: skip
    assert read.tokens[read.bos_token] == b"<|begin_of_text|>"
    assert {read.tokens[token] for token in read.stop_tokens} == {b"<|end_of_text|>", b"<|eot_id|>"}


_TRAIN = """
import sys
from pathlib import Path
from edgebit.train.data.examples import Text
from edgebit.train.data.tokenizer_training import train_tokenizer
text = Path(sys.argv[2]).read_text()
train_tokenizer([Text(line) for line in text.split("\\n")], Path(sys.argv[1]), vocab_size=700)
"""


def test_the_same_data_give_the_same_files(tmp_path):
    """In processes whose hashes differ, on one thread or several."""
    scripts = Path(__file__).parents[2] / "data" / "tokenizers" / "scripts.txt"
    made = []
    for seed, parallel in (("1", "false"), ("2", "true")):
        folder = tmp_path / seed
        folder.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
        command = [sys.executable, "-c", _TRAIN, str(folder), str(scripts)]
        subprocess.run(command, check=True, env=environment, timeout=100)
        made.append([(folder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")])

    assert made[0] == made[1]


def test_a_vocabulary_that_the_data_do_not_fill_is_refused(tmp_path):
    """With the number that they do."""
    with pytest.raises(TrainError, match=r"give a vocabulary of (\d+) tokens, not 4000.* or --vocab \1"):
        train_tokenizer([Text("one two one two")], tmp_path, vocab_size=4000)
    with pytest.raises(TrainError, match="a vocabulary of 258 is too small: 256 bytes and 3 special tokens go into it"):
        train_tokenizer([Text("one two one two")], tmp_path, vocab_size=258)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_is_taken_over(tmp_path, learnt):
    """As it is, or with another chat template."""
    adopt_tokenizer(learnt("llama3"), tmp_path)
    assert read_tokenizer(tmp_path) == read_tokenizer(learnt("llama3"))

    (tmp_path / "chat_template.jinja").write_text("the file that would go first")
    adopt_tokenizer(learnt("llama3"), tmp_path, template="bitnet")
    taken = read_tokenizer(tmp_path)
    assert taken.tokens == read_tokenizer(learnt("llama3")).tokens
    assert "capitalize" in (taken.chat_template or "")
    assert "chat_template" in json.loads((tmp_path / "tokenizer_config.json").read_text())

    adopt_tokenizer(learnt("llama3"), tmp_path, template="none")
    assert read_tokenizer(tmp_path).chat_template is None


def test_a_tokenizer_that_cannot_be_taken_over_is_refused(tmp_path, learnt):
    (tmp_path / "empty").mkdir()

    with pytest.raises(TrainError, match=r"empty: there is no tokenizer.json, nor a tokenizer.model"):
        adopt_tokenizer(tmp_path / "empty", tmp_path)
    with pytest.raises(TokenizerError, match=r"--template chatml marks turns with <\|im_start\|>"):
        adopt_tokenizer(learnt("bitnet"), tmp_path, template="chatml")


def test_nothing_of_an_earlier_tokenizer_stays(tmp_path):
    """A template or a stop token in a file of its own would go before those of the new one."""
    for name in ("chat_template.jinja", "generation_config.json"):
        (tmp_path / name).write_text("{}")

    train_tokenizer([Text("some words and some more words")], tmp_path, vocab_size=None)

    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
