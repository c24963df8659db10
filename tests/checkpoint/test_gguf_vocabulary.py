"""The byte-level vocabulary of a GGUF file: the same tokenizer as tokenizer.json's, and clear refusals."""

import json
from pathlib import Path

import pytest

from edgebit.checkpoint.tokenizer import Normalizer, PreTokenizer, read_gguf_tokenizer, read_tokenizer
from edgebit.checkpoint.tokenizer.prompt_tokens import TURN_ENDERS
from edgebit.errors import TokenizerError

TINY = Path(__file__).resolve().parent.parent / "reference" / "bitnet-packed"


def byte_level_fields(**changes):
    data = json.loads((TINY / "tokenizer.json").read_text())
    ids = dict(data["model"]["vocab"]) | {entry["content"]: entry["id"] for entry in data["added_tokens"]}
    fields = {
        "model": "gpt2",
        "pre": "llama-bpe",
        "tokens": sorted(ids, key=ids.__getitem__),
        "token_type": [3 if token >= 500 else 1 for token in range(len(ids))],
        "merges": [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]],
        "bos_token_id": 500,
        "eos_token_id": 501,
    }
    given = {**fields, **changes}
    return {f"tokenizer.ggml.{name}": value for name, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("pre", "pre_tokenizer", "normalizer", "bos"),
    [
        ("llama-bpe", PreTokenizer.LLAMA3, Normalizer.NONE, 500),
        ("falcon3", PreTokenizer.LLAMA3, Normalizer.NONE, 500),
        ("falcon_e", PreTokenizer.LLAMA3, Normalizer.NONE, 500),
        ("gpt-2", PreTokenizer.GPT2, Normalizer.NONE, None),
        ("qwen2", PreTokenizer.QWEN2, Normalizer.NFC, None),
        ("falcon", PreTokenizer.FALCON, Normalizer.NONE, None),
    ],
)
def test_pre_tokenizers_by_name(pre, pre_tokenizer, normalizer, bos):
    """With what llama.cpp puts first where the file does not say."""
    read, _ = read_gguf_tokenizer(byte_level_fields(pre=pre), "model.gguf")
    assert (read.pre_tokenizer, read.normalizer, read.bos_token) == (pre_tokenizer, normalizer, bos)


def test_a_byte_level_vocabulary_is_that_of_tokenizer_json():
    read, notes = read_gguf_tokenizer(byte_level_fields(), "model.gguf")
    expected = read_tokenizer(TINY)
    assert (read.tokens, read.flags, read.merges) == (expected.tokens, expected.flags, expected.merges)
    assert read.stop_tokens[0] == 501 and set(read.stop_tokens) > {501}
    assert any("<|eot_id|>" in note for note in notes)


@pytest.mark.parametrize("whole", [False, True])
def test_keys_of_our_own_say_what_no_pre_tokenizers_name_says(whole):
    """Qwen2's cut of text as it is, pieces that are tokens taken whole."""
    own = {"edgebit.tokenizer.normalizer": "none", "edgebit.tokenizer.ignore_merges": whole}
    read, _ = read_gguf_tokenizer(byte_level_fields(pre="qwen2") | own, "model.gguf")
    assert (read.pre_tokenizer, read.normalizer) == (PreTokenizer.QWEN2, Normalizer.NONE)
    assert read.ignore_merges == whole


@pytest.mark.parametrize(("key", "value"), [("normalizer", "nfd"), ("normalizer", 1), ("ignore_merges", "yes")])
def test_a_value_that_no_key_of_ours_has_is_refused(key, value):
    with pytest.raises(TokenizerError, match=rf"^odd\.gguf: edgebit\.tokenizer\.{key} is {value!r}"):
        read_gguf_tokenizer(byte_level_fields() | {f"edgebit.tokenizer.{key}": value}, "odd.gguf")


def test_more_stop_tokens_than_there_is_room_for_are_refused():
    """None is left out without a word: an answer would not end there."""
    fields = byte_level_fields(eot_token_id=502, eom_token_id=503)
    for token, name in zip(range(504, 510), TURN_ENDERS, strict=False):
        fields["tokenizer.ggml.tokens"][token] = name
    with pytest.raises(TokenizerError, match=r"^odd\.gguf: 9 stop tokens \(501, 502, 503, 504, .* has room for 8"):
        read_gguf_tokenizer(fields, "odd.gguf")


GGUF_REFUSED = [
    ({"model": "bert"}, "tokenizer.ggml.model is 'bert'"),
    ({"model": None}, "tokenizer.ggml.model is missing"),
    ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
    ({"merges": None}, "tokenizer.ggml.merges is missing"),
    ({"pre": None}, "tokenizer.ggml.pre is missing"),
    ({"pre": "default"}, "tokenizer.ggml.pre is missing"),
    ({"pre": "tekken"}, "'tekken' is not supported"),
    ({"token_type": [1]}, "token_type has 1"),
    ({"token_type": [9] * 512}, "type 9"),
    ({"bos_token_id": 5000}, "bos_token_id is 5000"),
    ({"merges": ["a"]}, "merge 0"),
    ({"tokens": ["a"] * 512}, "are both 'a'"),
    ({"tokens": 7}, "not as GGUF has them"),
    ({"model": "llama"}, "byte 0x00 has no token"),
]


@pytest.mark.parametrize(("changes", "promised"), GGUF_REFUSED, ids=[words for _, words in GGUF_REFUSED])
def test_what_a_gguf_file_cannot_mean_is_refused(changes, promised):
    with pytest.raises(TokenizerError) as refused:
        read_gguf_tokenizer(byte_level_fields(**changes), "odd.gguf")
    assert promised in str(refused.value)
    assert "odd.gguf" in str(refused.value)
