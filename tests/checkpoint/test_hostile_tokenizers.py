"""Tokenizers made to do harm: what fuzzing found, and what would take hours or gigabytes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.chat_template.compiler import compile_chat_template
from edgebit.checkpoint.tokenizer import read_gguf_tokenizer, read_tokenizer
from edgebit.checkpoint.tokenizer.forms import MAX_VOCAB
from edgebit.convert import convert
from edgebit.errors import TokenizerError
from tests.fuzz.readers import tokenizer_model_seeds

REFERENCE = Path(__file__).parents[1] / "reference" / "bitnet-packed"
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b", "ab"]
SENTENCEPIECE = {
    "model": "llama", "tokens": PIECES, "scores": np.zeros(len(PIECES)),
    "token_type": np.array([2, 3, 3] + [6] * 256 + [1] * 3), "eos_token_id": 2,
}  # fmt: skip


def read_fields(**changes):
    fields = SENTENCEPIECE | changes
    return read_gguf_tokenizer({f"tokenizer.ggml.{key}": value for key, value in fields.items()}, "m.gguf")[0]


@pytest.mark.parametrize(
    ("changes", "promised"),
    [
        ({"eos_token_id": float("inf")}, "are not as GGUF has them"),
        ({"token_type": np.full(len(PIECES), np.inf)}, "are not as GGUF has them"),
        ({"scores": np.zeros(3)}, "3 scores: token 261 has none"),
        ({"tokens": [*PIECES[:-1], "a" * 20_000]}, "too long to look for all their merges"),
        ({"tokens": [""] * (MAX_VOCAB + 1)}, "2097153 tokens: 2097152 are the most"),
    ],
)
def test_hostile_fields_are_refused(changes, promised):
    assert read_fields().tokens[261] == b"ab"
    with pytest.raises(TokenizerError, match=promised) as refused:
        read_fields(**changes)
    assert str(refused.value).startswith("m.gguf: ")


def begins_with(token):
    return {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {}}],
        "special_tokens": {"x": {"ids": [token]}},
    }  # fmt: skip


def many_added(n):
    """Half of them are to be found in normalized text."""
    return [{"content": f"<{i}>", "id": 512 + i, "normalized": i % 2 == 0} for i in range(n)]


@pytest.mark.parametrize(
    ("changes", "promised"),
    [
        ({"post_processor": begins_with(512)}, "puts token 512 before a text: there are 512"),
        ({"post_processor": begins_with(-1)}, "puts token -1 before a text"),
        ({"post_processor": begins_with(float("inf"))}, "not a tokenizer.json"),
        ({"added_tokens": many_added(8000), "normalizer": None}, "too many to compare"),
    ],
)
def test_a_hostile_tokenizer_json_is_refused(changes, promised, tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads((REFERENCE / "tokenizer.json").read_text()) | changes))
    with pytest.raises(TokenizerError, match=promised) as refused:
        read_tokenizer(file)
    assert str(refused.value).startswith(str(file))


def test_half_a_character_can_not_begin_a_text():
    """A begin-of-text token that is one byte of several."""
    tokenizer = read_tokenizer(REFERENCE)
    byte = next(token for token, text in enumerate(tokenizer.tokens) if text == b"\x80")
    with pytest.raises(TokenizerError, match=f"the begin-of-text token, {byte}, is a part of a character"):
        compile_chat_template("{{ messages[0].content }}", dataclasses.replace(tokenizer, bos_token=byte))


def test_half_a_surrogate_pair_comes_back_from_a_model_file(tmp_path):
    """JSON can hold it, UTF-8 cannot."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((REFERENCE / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"license": "x\ud800"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    convert(tmp_path, tmp_path / "m.ebm", probes=False)
    with ModelFile(tmp_path / "m.ebm") as model:
        assert model.meta["licence"] == "x\ud800"


def test_a_hostile_tokenizer_model_is_refused(tmp_path):
    """An id that is no number beside it, and more bytes than any has."""
    file = tmp_path / "tokenizer.model"
    file.write_bytes(next(tokenizer_model_seeds()))
    assert read_tokenizer(tmp_path).tokens[-1] == b"ab"
    (tmp_path / "added_tokens.json").write_text('{"<x>": 1e999}')
    with pytest.raises(TokenizerError, match=r"tokenizer\.model: not a SentencePiece model: OverflowError"):
        read_tokenizer(tmp_path)
    with file.open("r+b") as opened:
        opened.truncate((16 << 20) + 1)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model: has more than 16777216 bytes"):
        read_tokenizer(tmp_path)
