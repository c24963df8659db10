"""SentencePiece's BPE models, in tokenizer.model and in GGUF files: the ids of SentencePiece itself."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from tokenizer_texts import SCRIPTS, SCRIPTS_FILE, edge_text

from edgebit.checkpoint.tokenizer import (
    Kind,
    SpacePrefix,
    has_tokenizer,
    read_gguf_tokenizer,
    read_tokenizer,
)
from edgebit.errors import TokenizerError
from edgebit.runtime.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece", reason="the reference of tokenizer.model")

TINY = Path(__file__).resolve().parent.parent / "reference" / "bitnet-packed"


def train(**settings_):
    """A SentencePiece model as Llama 2's was made, but for its size."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        **{
            "sentence_iterator": iter((SCRIPTS + Path(__file__).read_text(encoding="utf-8")).splitlines()),
            "model_writer": model,
            "model_type": "bpe",
            "vocab_size": 1050,
            "hard_vocab_limit": False,
            "character_coverage": 0.98,
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "split_digits": True,
            "allow_whitespace_only_pieces": True,
            "user_defined_symbols": ["<tool>"],
            "minloglevel": 2,
            **settings_,
        }
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def model():
    return train()


@pytest.fixture(scope="module")
def reference(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("llama2")
    (path / "tokenizer.model").write_bytes(model)
    return path


@pytest.fixture(scope="module")
def ours(native, folder):
    with Tokenizer.from_section(native, read_tokenizer(folder).section()) as tokenizer:
        yield tokenizer


def gguf_fields(reference):
    """As the converters write a SentencePiece model."""
    count = reference.get_piece_size()
    kinds = ((reference.is_unknown, 2), (reference.is_control, 3), (reference.is_unused, 5), (reference.is_byte, 6))
    types = [next((number for is_kind, number in kinds if is_kind(token)), 1) for token in range(count)]
    types[reference.piece_to_id("<tool>")] = 4
    fields = {
        "model": "llama",
        "tokens": [reference.id_to_piece(token) for token in range(count)],
        "scores": [reference.get_score(token) for token in range(count)],
        "token_type": types,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}


@settings(max_examples=400)
@given(edge_text.filter(lambda text: "<tool>" not in text and "\0" not in text))
def test_any_text_gets_sentencepieces_ids(ours, reference, text):
    """It puts a space before the whole text, as we do before each segment: here there is one."""
    ids = ours.encode(text)
    assert ids == reference.encode(text)
    assert ours.decode(ids).decode() == text.replace("\u2581", " ")


def test_many_scripts_and_source_get_sentencepieces_ids(ours, reference):
    for text in (SCRIPTS, SCRIPTS_FILE.read_text(encoding="utf-8") * 3, Path(__file__).read_text(encoding="utf-8")):
        text = text.replace("<tool>", "")
        assert ours.encode(text) == reference.encode(text)


def test_what_a_tokenizer_model_says(folder, reference):
    read = read_tokenizer(folder)
    assert (read.kind, read.space_prefix, read.strip_leading_space) == (Kind.BYTE_FALLBACK, SpacePrefix.SEGMENT, True)
    assert (read.bos_token, read.stop_tokens, read.unknown_token) == (1, (2,), 0)
    assert read.named_tokens == {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    assert len(read.tokens) == reference.get_piece_size()


def test_the_files_beside_it_count_too(folder, model, tmp_path):
    """As those of 1bitLLM: tokens behind the model's own, and what transformers' LlamaTokenizer is told."""
    (tmp_path / "tokenizer.model").write_bytes(model)
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 1050, "</line>": 1051}')
    config = {"pad_token": "<pad>", "add_bos_token": False, "legacy": False, "chat_template": "{{ bos_token }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    read = read_tokenizer(tmp_path)
    assert read.tokens[1050:] == (b"<pad>", b"</line>")
    assert (read.flags[1050], read.flags[1051]) == (3, 2)  # special, and not
    assert read.space_prefix == SpacePrefix.UNSPACED_TEXT
    assert read.bos_token == 1  # the chat template puts it there
    assert read.tokens[:1050] == read_tokenizer(folder).tokens


def test_tokenizer_json_goes_first(model, tmp_path):
    assert not has_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(model)
    assert has_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    assert read_tokenizer(tmp_path).kind == Kind.BYTE_LEVEL
    assert read_tokenizer(tmp_path / "tokenizer.model").kind == Kind.BYTE_FALLBACK


REFUSED = [
    ({"model_type": "unigram"}, "type unigram"),
    ({"byte_fallback": False}, "byte_fallback"),
    ({"normalization_rule_name": "nmt_nfkc"}, "normalization rules"),
    ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
    ({"treat_whitespace_as_suffix": True}, "suffix"),
]


@pytest.mark.parametrize(("setting", "promised"), REFUSED, ids=[words for _, words in REFUSED])
def test_other_sentencepiece_models_are_refused(tmp_path, setting, promised):
    (tmp_path / "tokenizer.model").write_bytes(train(**setting))
    with pytest.raises(TokenizerError, match=promised) as refused:
        read_tokenizer(tmp_path)
    assert "tokenizer.model" in str(refused.value)


def test_a_damaged_tokenizer_model_is_refused(model, tmp_path):
    """Cut anywhere, or another file altogether (Llama 3's tokenizer.model is a list in text)."""
    file = tmp_path / "tokenizer.model"
    damaged = [model[:size] for size in range(0, len(model) - 1, 997)]
    for data in [*damaged, b"IQ== 0\nIg== 1\n", b"\0" * 64, b"\xff" * 64, b"\x0a\x02\x08\x01", b"[" * 1000]:
        file.write_bytes(data)
        with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
            read_tokenizer(file)


def test_a_gguf_file_has_the_same_vocabulary(folder, reference):
    read, notes = read_gguf_tokenizer(gguf_fields(reference), "model.gguf")
    assert read.section() == read_tokenizer(folder).section()
    assert (read.bos_token, read.stop_tokens, read.named_tokens, notes) == (
        1, (2,), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, [],
    )  # fmt: skip
    read, _ = read_gguf_tokenizer(
        gguf_fields(reference) | {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False}, "m"
    )
    assert (read.space_prefix, read.strip_leading_space, read.bos_token) == (SpacePrefix.NONE, False, None)


def test_scores_must_be_numbers(reference):
    fields = gguf_fields(reference)
    fields["tokenizer.ggml.scores"][400] = float("nan")
    with pytest.raises(TokenizerError, match="not all finite"):
        read_gguf_tokenizer(fields, "model.gguf")
