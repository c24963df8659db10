"""The tokenizer of a GGUF file, and what is put right in it."""

from typing import Any

import numpy as np
import pytest

from edgebit.checkpoint.chat_template.compiler import compile_chat_template
from edgebit.checkpoint.gguf_file.container import GgufFile
from edgebit.checkpoint.gguf_file.tokenizer import read_tokenizer
from edgebit.checkpoint.hints import PRE_TOKENIZERS
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, PreTokenizer
from edgebit.checkpoint.tokenizer import read_tokenizer as read_hugging_face
from edgebit.checkpoint.tokenizer.byte_alphabet import BYTE_OF
from edgebit.errors import TokenizerError
from edgebit.export.to_gguf import export_gguf

# In essence what microsoft/bitnet-b1.58-2B-4T-gguf holds.
WRONG_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ 'Human: ' + message['content'] + '\n\nBITNETAssistant: ' + eos_token }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
CONTROL, NORMAL = 3, 1


@pytest.fixture(scope="module")
def fields(reference_checkpoint, tmp_path_factory) -> dict[str, Any]:
    """Those of a small model with Llama 3's form of tokenizer, 512 tokens."""
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    export_gguf(reference_checkpoint("bitnet-packed"), path)
    with GgufFile(path) as file:
        return file.fields


@pytest.fixture(scope="module")
def original(reference_checkpoint) -> CheckpointTokenizer:
    return read_hugging_face(reference_checkpoint("bitnet-packed"))


def changed(fields: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Fields with others under tokenizer.ggml; None takes one away."""
    new = fields | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    return {key: value for key, value in new.items() if value is not None}


def test_it_is_the_tokenizer_of_the_checkpoint(fields, original):
    """Section and prompt program alike, and nothing to note."""
    tokenizer, notes = read_tokenizer(fields, None, "m.gguf")

    assert tokenizer is not None and notes == []
    assert tokenizer.section() == original.section()
    assert (tokenizer.bos_token, tokenizer.stop_tokens) == (original.bos_token, original.stop_tokens)
    assert tokenizer.chat_template == original.chat_template


@pytest.mark.parametrize("model", [None, "none", "no_vocab"])
def test_a_file_without_a_tokenizer_has_none(model, fields):
    assert read_tokenizer(changed(fields, model=model), None, "m.gguf") == (None, [])


def test_the_wrong_template_of_bitnets_file_is_replaced(fields, original):
    """By what gives the prompts of the Hugging Face checkpoint, with a note."""
    tokenizer, notes = read_tokenizer(fields | {"tokenizer.chat_template": WRONG_TEMPLATE}, None, "m.gguf")

    assert tokenizer is not None and tokenizer.chat_template is not None and original.chat_template is not None
    program = compile_chat_template(tokenizer.chat_template, tokenizer)
    assert program == compile_chat_template(original.chat_template, original)
    assert len(notes) == 1 and "BITNETAssistant" in notes[0]


def test_that_template_stays_where_the_vocabulary_is_anothers(fields):
    """Without <|eot_id|>, a model was not trained as bitnet-b1.58-2B-4T."""
    tokens = ["<|other|>" if token == "<|eot_id|>" else token for token in fields["tokenizer.ggml.tokens"]]
    tokenizer, notes = read_tokenizer(
        changed(fields, tokens=tokens) | {"tokenizer.chat_template": WRONG_TEMPLATE}, None, "m.gguf"
    )

    assert tokenizer is not None and tokenizer.chat_template == WRONG_TEMPLATE and notes == []


def test_a_missing_pre_tokenizer_is_refused_until_it_is_named(fields, original):
    """512 tokens are not Llama 3's."""
    missing = changed(fields, pre=None)
    with pytest.raises(TokenizerError, match=r"m\.gguf: tokenizer\.ggml\.pre is missing.*--pre-tokenizer"):
        read_tokenizer(missing, None, "m.gguf")

    tokenizer, notes = read_tokenizer(missing, "llama-bpe", "m.gguf")

    assert tokenizer is not None and tokenizer.section() == original.section()
    assert notes == ["the pre-tokenizer is llama-bpe, as --pre-tokenizer says; the file does not say"]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_each_name_of_a_pre_tokenizer_is_known(name, fields):
    """And overrules the file."""
    tokenizer, notes = read_tokenizer(changed(fields, pre="tekken"), name, "m.gguf")

    wanted = {
        "llama-bpe": PreTokenizer.LLAMA3, "gpt-2": PreTokenizer.GPT2, "qwen2": PreTokenizer.QWEN2,
        "falcon": PreTokenizer.FALCON,
    }  # fmt: skip
    assert tokenizer is not None and tokenizer.pre_tokenizer == wanted[name]
    assert notes[0].endswith("the file says tekken")
    tokenizer, _ = read_tokenizer(changed(fields, pre=np.array([1, 2])), name, "m.gguf")
    assert tokenizer is not None and tokenizer.pre_tokenizer == wanted[name]


def test_the_vocabulary_of_llama_3_needs_no_pre_tokenizer(fields):
    """Its size and its special tokens tell it; the official BitNet file lacks that field, and names one stop token."""
    specials = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 9: "<|eot_id|>"}
    tokens = [*BYTE_OF, *(f"t{i}" for i in range(128000 - 256))]
    tokens += [specials.get(i, f"<|reserved_special_token_{i}|>") for i in range(256)]
    ids = {"bos_token_id": 128000, "eos_token_id": 128001, "padding_token_id": 128001}
    official = changed(
        fields, pre=None, tokens=tokens, token_type=[NORMAL] * 128000 + [CONTROL] * 256, merges=[], eot_token_id=None,
        add_bos_token=None, **ids,
    )  # fmt: skip

    tokenizer, notes = read_tokenizer(official, None, "m.gguf")

    assert tokenizer is not None and tokenizer.pre_tokenizer == PreTokenizer.LLAMA3
    assert (tokenizer.bos_token, tokenizer.stop_tokens) == (128000, (128001, 128009))
    assert any("llama-bpe is taken" in note for note in notes) and any("<|eot_id|>" in note for note in notes)


def test_minus_one_is_no_token(fields, original):
    """As llama.cpp's converters write it."""
    tokenizer, _ = read_tokenizer(changed(fields, padding_token_id=0xFFFFFFFF), None, "m.gguf")

    assert tokenizer is not None
    assert tokenizer.named_tokens == {k: v for k, v in original.named_tokens.items() if k != "pad_token"}


def test_the_tokenizer_is_read_once(reference_checkpoint, tmp_path):
    """Its notes stand among the checkpoint's, once, however often it is asked for."""
    path = tmp_path / "m.gguf"
    export_gguf(reference_checkpoint("bitnet-packed"), path)
    content = path.read_bytes()
    part, sign = b"{% set loop_messages = messages %}", b"{# BITNETAssistant, 34 letters.. #}"
    assert content.count(part) == 1
    path.write_bytes(content.replace(part, sign[: len(part) - 2] + b"#}"))
    checkpoint = open_checkpoint(path)
    assert checkpoint.notes == []

    assert checkpoint.tokenizer() is checkpoint.tokenizer()

    assert len(checkpoint.notes) == 1 and "BITNETAssistant" in checkpoint.notes[0]


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"model": "t5"}, "tokenizer.ggml.model is 't5'"),
    "model is numbers": ({"model": np.array([1, 2])}, "tokenizer.ggml"),
    "no tokens": ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
    "tokens are a number": ({"tokens": 7}, "tokenizer.ggml"),
    "tokens are numbers": ({"tokens": np.arange(512)}, "which is not in the vocabulary"),
    "too few types": ({"token_type": np.ones(3, np.int32)}, "512 tokens, and tokenizer.ggml.token_type has 3"),
    "types of no kind": ({"token_type": np.full(512, 9, np.int32)}, "types go from 1 to 6"),
    "no merges": ({"merges": None}, "tokenizer.ggml.merges is missing"),
    "a merge of nothing": ({"merges": ["a"]}, "merge 0 is 'a', not two tokens"),
    "a merge of strangers": ({"merges": ["zq xj"]}, "which is not in the vocabulary"),
    "merges are numbers": ({"merges": np.arange(4)}, "tokenizer.ggml"),
    "begin-of-text outside": ({"bos_token_id": 512}, "bos_token_id is 512, the vocabulary has 512 tokens"),
    "begin-of-text is a text": ({"bos_token_id": "<s>"}, "tokenizer.ggml"),
    "a pre-tokenizer of its own": ({"pre": "tekken"}, "pre-tokenizer 'tekken' is not supported.*--pre-tokenizer"),
    "pre-tokenizers": ({"pre": ["llama-bpe"]}, "tokenizer.ggml"),
    "the same token twice": ({"tokens": ["a"] * 512}, "are both 'a'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tokenizer_is_refused(name, fields):
    """In words that name the file and what is wrong."""
    changes, words = HOSTILE[name]

    with pytest.raises(TokenizerError, match=f"^m\\.gguf: .*({words})"):
        read_tokenizer(changed(fields, **changes), None, "m.gguf")
