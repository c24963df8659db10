"""Vocabularies in GGUF files beside llama.cpp: the same file, the same ids."""

import json
from pathlib import Path

import pytest
from tokenizer_texts import SCRIPTS, mixed_text

from edgebit.checkpoint.tokenizer import read_gguf_tokenizer
from edgebit.runtime.tokenizer import Tokenizer

pytestmark = pytest.mark.reference

TINY = Path(__file__).resolve().parent.parent / "reference" / "bitnet-packed" / "tokenizer.json"


def byte_level_fields():
    data = json.loads(TINY.read_text())
    ids = dict(data["model"]["vocab"]) | {entry["content"]: entry["id"] for entry in data["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": sorted(ids, key=ids.__getitem__),
        "tokenizer.ggml.token_type": [3 if token >= 500 else 1 for token in range(len(ids))],
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 500,
        "tokenizer.ggml.eos_token_id": 501,
    }


def sentencepiece_fields():
    """Pieces of one and more characters, with a token for each byte, and ties among the scores."""
    words = [" ", *"abcdehilnorstu.,", "th", "he", " the", " a", " t", "an", "and", " and", "aa", "aaa", "  ", "    "]
    pieces = [word.replace(" ", "\u2581") for word in words]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces)],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(place // 2) for place in range(len(pieces))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def write_vocabulary(gguf, fields, path):
    """A GGUF file of a vocabulary and no weights, by the gguf package."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in fields.items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint32
        (writer.add_array if isinstance(value, list) else add)(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("pre", ["llama-bpe", "gpt-2", "qwen2", "llama"])
def test_llama_cpp_gives_the_same_ids(native, tmp_path, pre):
    """On text in NFC and without what no two of its releases agree on: code points of no assigned character."""
    gguf = pytest.importorskip("gguf", reason="writes the file")
    llama_cpp = pytest.importorskip("llama_cpp", reason="the reference")
    fields = sentencepiece_fields() if pre == "llama" else {**byte_level_fields(), "tokenizer.ggml.pre": pre}
    write_vocabulary(gguf, fields, tmp_path / "vocabulary.gguf")
    llama = llama_cpp.Llama(str(tmp_path / "vocabulary.gguf"), vocab_only=True, verbose=False)
    read, _ = read_gguf_tokenizer(fields, "vocabulary.gguf")
    texts = [*SCRIPTS.splitlines(), *"".join(mixed_text()[1:20]).splitlines()[:3000], " a", "the  and    aaaaa</s>"]
    with Tokenizer.from_section(native, read.section()) as ours:
        for text in filter(None, texts):
            theirs = llama.tokenize(text.encode(), add_bos=False, special=False)
            assert ours.encode(text) == theirs, text
