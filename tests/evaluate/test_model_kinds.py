"""Evaluation of models whose tokens are SentencePiece's, and of those that come from GGUF files."""

import json
import shutil

import pytest
import tokenizers
from tokenizers import decoders, normalizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from edgebit.convert import convert
from edgebit.evaluate.divergence import measure_divergence, side_by_side
from edgebit.evaluate.likelihood import PairEncoder
from edgebit.evaluate.perplexity import measure_perplexity
from edgebit.evaluate.text import encode_text
from edgebit.evaluate.windows import Windows, open_engine
from edgebit.export.to_gguf import export_gguf
from edgebit.resources import evaluation_text
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer

SPACE = "\u2581"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WINDOWS = Windows(128, 64)


@pytest.fixture(scope="module")
def sentencepiece_folder(reference_checkpoint, tmp_path_factory):
    """bitnet-packed's weights with a tokenizer of 512 tokens as that of Llama 2 is: byte fallback, a space before."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(reference_checkpoint("bitnet-packed") / name, folder)
    tokenizer = tokenizers.Tokenizer(BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *BYTES]
    text = evaluation_text().read_text().split("\n")
    tokenizer.train_from_iterator(text, BpeTrainer(vocab_size=512, special_tokens=special, show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "add_bos_token": True}))
    return folder


@pytest.fixture(scope="module")
def sentencepiece_model(native, sentencepiece_folder):
    convert(sentencepiece_folder, sentencepiece_folder / "model.ebm", probes=False)
    with Model.open(native, sentencepiece_folder / "model.ebm") as model:
        yield model


def test_a_text_of_sentencepiece_s_tokens(sentencepiece_folder, sentencepiece_model):
    """The ids of `tokenizers`; the bytes are those of the text and the space before it, also outside the vocabulary."""
    hf = tokenizers.Tokenizer.from_file(str(sentencepiece_folder / "tokenizer.json"))
    for data in ("A sad tale's best for winter.", "größe 日本語 \N{GRINNING FACE}\n\tx", "  two spaces "):
        text = encode_text(sentencepiece_model, data.encode(), name="text")
        assert text.ids[1:] == hf.encode(data, add_special_tokens=False).ids
        with open_engine(sentencepiece_model, WINDOWS, threads=1, kv="f32") as engine:
            result = measure_perplexity(engine, text, WINDOWS)
        assert result.tokens == len(text.ids) - 1 and result.bytes == len(data.encode()) + 1


@pytest.mark.parametrize(
    ("context", "continuation"),
    [("Question: why?\nAnswer:", " a bear"), ("pursued by a ", "bear"), ("", " so"), ("größe", "日")],
)
def test_the_boundary_between_sentencepiece_s_tokens(context, continuation, sentencepiece_folder, sentencepiece_model):
    """As lm-evaluation-harness cuts it: what the context alone has as tokens is context."""
    hf = tokenizers.Tokenizer.from_file(str(sentencepiece_folder / "tokenizer.json"))
    ids = hf.encode(context.rstrip(), add_special_tokens=False).ids if context else []
    whole = hf.encode(context + continuation, add_special_tokens=False).ids
    with Tokenizer.from_model(sentencepiece_model) as tokenizer:
        pair = PairEncoder(sentencepiece_model, tokenizer).encode(context, continuation)
    assert pair.context == [1, *ids] and pair.continuation == whole[len(ids) :]


def test_a_model_from_a_gguf_file_is_0_from_its_own(native, reference_model, reference_checkpoint, tmp_path):
    """Codes, scales and the head are the same; its rows of logits too."""
    export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "model.ebm", probes=False)
    with Model.open(native, reference_model("bitnet-packed")) as own, Model.open(native, tmp_path / "model.ebm") as its:
        text = encode_text(own, evaluation_text().read_bytes(), name="text", limit=300)
        with (
            open_engine(own, WINDOWS, threads=1, kv="f16") as reference,
            open_engine(its, WINDOWS, threads=1, kv="f16") as engine,
        ):
            result = measure_divergence(side_by_side(engine, reference, text.ids, WINDOWS), text)
    assert (result.kl_max, result.same_best, result.tokens) == (0, 1, 300)
