"""A tokenizer of every form through section TOKN, tokenizer.json and GGUF's fields: the same ids each time."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import tokenizers
from tokenizer_folders import FORMS, TEXT_FILE, write_tokenizer

from edgebit.checkpoint.tokenizer import CheckpointTokenizer, read_gguf_tokenizer, read_tokenizer
from edgebit.checkpoint.tokenizer.section_reader import read_tokenizer_section
from edgebit.errors import TokenizerError
from edgebit.export.gguf_file import GgufWriter
from edgebit.export.gguf_file import text as text_value
from edgebit.export.gguf_tokenizer import tokenizer_metadata
from edgebit.export.tokenizer_files import write_tokenizer_files
from edgebit.runtime.tokenizer import Tokenizer

TEXTS = [
    "",
    " ",
    "Hello, world! 1234567 12½3456",
    "naïve — 東京\n\n\tx  y   z    ",
    "<s>a</s> b<tool>  c <|mark|>d",
    "I'LL it's 'S can't\u0301 e\u0301\u0323a中 \u1100\u1161\u11a8",
    "\u2581a \u2581 b🙂\u200d\u3000é",
    TEXT_FILE.read_text(encoding="utf-8"),
    Path(__file__).read_text(encoding="utf-8"),
]


@dataclass
class Case:
    """A tokenizer as its own file has it, and as a model file gives it back."""

    form: str
    hf: tokenizers.Tokenizer
    read: CheckpointTokenizer
    kept: CheckpointTokenizer


def back(tokenizer: CheckpointTokenizer, rows: int) -> CheckpointTokenizer:
    return read_tokenizer_section(
        tokenizer.section(rows),
        bos_token=tokenizer.bos_token,
        stop_tokens=tokenizer.stop_tokens,
        named_tokens=tokenizer.named_tokens,
        chat_template=tokenizer.chat_template,
    )


@pytest.fixture(scope="module", params=FORMS)
def case(request, tmp_path_factory):
    folder = write_tokenizer(tmp_path_factory.mktemp(request.param), request.param, size=900)
    read = read_tokenizer(folder)
    hf = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Case(request.param, hf, read, back(read, len(read.tokens) + 3))


def test_a_section_read_back_is_written_the_same(case):
    """With the rows of a model that has more of them than the tokenizer; all that the section keeps is equal."""
    rows = len(case.read.tokens) + 3
    assert case.kept.section() == case.read.section(rows)
    for name in ("kind", "pre_tokenizer", "normalizer", "space_prefix", "strip_leading_space", "unknown_token"):
        assert getattr(case.kept, name) == getattr(case.read, name), name
    assert case.kept.flags[:-3] == case.read.flags and case.kept.merges == case.read.merges


def test_tokenizer_json_gives_the_same_ids(case, tmp_path):
    """By Hugging Face's own code, there and back; and edgebit reads the same tokenizer from it again."""
    write_tokenizer_files(tmp_path, case.kept, context_max=64)
    found = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        ids = case.hf.encode(text, add_special_tokens=False).ids
        assert found.encode(text, add_special_tokens=False).ids == ids
        assert found.decode(ids, skip_special_tokens=False) == case.hf.decode(ids, skip_special_tokens=False)
    assert found.encode("a").ids == [case.read.bos_token, *case.hf.encode("a", add_special_tokens=False).ids]
    assert read_tokenizer(tmp_path).section() == case.read.section()


def test_gguf_gives_the_same_ids(case, native, tmp_path):
    """By the gguf package: our own keys say what GGUF has no word for, and a note what llama.cpp does."""
    gguf = pytest.importorskip("gguf", reason="the gguf package reads what we write")
    metadata, notes = tokenizer_metadata(case.kept, len(case.kept.tokens))
    with GgufWriter(tmp_path / "vocabulary.gguf", metadata, []) as writer:
        writer.commit()
    fields = gguf.GGUFReader(tmp_path / "vocabulary.gguf").fields
    found, _ = read_gguf_tokenizer({key: field.contents() for key, field in fields.items()}, "the file")
    assert (found.bos_token, found.stop_tokens) == (case.read.bos_token, case.read.stop_tokens)
    if case.form in ("metaspace-always", "metaspace-first"):
        assert "a space before every text" in notes[0]
    else:
        assert [note for note in notes if "NFC" not in note] == []
    for name in ("normalizer", "ignore_merges", "space_prefix", "strip_leading_space"):
        assert getattr(found, name) == getattr(case.read, name), name
    with (
        Tokenizer.from_section(native, found.section()) as ours,
        Tokenizer.from_section(native, case.kept.section()) as kept,
    ):
        for text in TEXTS:
            ids = ours.encode(text, parse_special=True)
            assert ids == kept.encode(text, parse_special=True)
            assert ids == case.hf.encode(text, add_special_tokens=False).ids
    again = back(found, len(found.tokens))
    assert again.section() == found.section(), "also with merges that share a rank"


@pytest.mark.reference
def test_llama_cpp_gives_the_same_ids(case, tmp_path):
    """Of its own code, for every form that needs no note."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp reads the vocabulary (pip install llama-cpp-python)")
    metadata, notes = tokenizer_metadata(case.kept, len(case.kept.tokens))
    if notes:
        pytest.skip(notes[0])
    metadata = {"general.architecture": text_value("llama")} | metadata
    with GgufWriter(tmp_path / "vocabulary.gguf", metadata, []) as writer:
        writer.commit()
    model = llama_cpp.Llama(str(tmp_path / "vocabulary.gguf"), vocab_only=True, verbose=False)
    for text in TEXTS:
        wanted = case.hf.encode(text, add_special_tokens=False).ids
        assert model.tokenize(text.encode(), add_bos=False, special=True) == wanted


@pytest.mark.parametrize("at", [0, 8, 12, 32, 36, 40, 44, 60])
def test_a_form_that_is_not_known_is_refused(case, at):
    section = bytearray(case.read.section())
    section[at : at + 4] = (77).to_bytes(4, "little")
    with pytest.raises(TokenizerError, match="not all known"):
        read_tokenizer_section(bytes(section), bos_token=None, stop_tokens=(), named_tokens=None, chat_template=None)


def test_a_damaged_section_is_refused_or_read(case):
    """Nothing but TokenizerError comes of other bytes, in the header and the tables alike."""
    section, rng = case.read.section(), random.Random(5)
    refused = 0
    for _ in range(60):
        damaged, at = bytearray(section), rng.choice((rng.randrange(64), rng.randrange(len(section))))
        damaged[at : at + 4] = rng.randbytes(len(damaged[at : at + 4]))
        try:
            read_tokenizer_section(
                bytes(damaged), bos_token=500, stop_tokens=(10_000,), named_tokens=None, chat_template=None
            )
        except TokenizerError:
            refused += 1
    assert refused >= 30
