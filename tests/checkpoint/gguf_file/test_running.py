"""A model that comes as GGUF runs as the one that comes as its Hugging Face checkpoint: the same bits."""

import json
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import pytest
from gguf_files import F16, F32, TYPES, File, Row, floats, gguf_name, pack
from safetensors.numpy import load_file

from edgebit.bundle.model_format import ActivationQuantisation, Encoding, Granularity, Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.gguf_file.container import GgufFile
from edgebit.checkpoint.hints import Hints
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.convert import convert
from edgebit.export.to_gguf import export_gguf
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model


def sections(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    with ModelFile(path) as file:
        return {name: bytes(file.content(name) or b"") for name in names}


def logits(native, path: Path, ids: list[int]) -> np.ndarray:
    """Of each position, float32 [tokens, vocabulary]."""
    with Model.open(native, path) as model, Engine(model, ctx_len=len(ids), logits_rows=len(ids), kv="f32") as engine:
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        return np.stack([np.frombuffer(engine.logits(row), np.float32) for row in range(len(ids))])


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0", "i2_s"])
@pytest.mark.parametrize("name", ["bitnet-packed", "bitnet-bf16"])
def test_a_model_with_its_tokenizer_comes_back_whole(name, kind, native, reference_checkpoint, tmp_path):
    """Configuration, tokenizer, prompt program, tensors and golden probes, byte for byte."""
    export_gguf(reference_checkpoint(name), tmp_path / "m.gguf", kind=kind, exact_scales=True)

    hints = Hints(i2s_dialect="x86") if kind == "i2_s" else Hints()
    report = convert(tmp_path / "m.gguf", tmp_path / "a", hints=hints)

    convert(reference_checkpoint(name), tmp_path / "b")
    assert report.has_tokenizer and report.has_chat_template and report.n_probes == 3 and report.notes == ()
    whole = ("CONF", "TOKN", "PRMT", "DATA", "PROB")
    assert sections(tmp_path / "a", whole) == sections(tmp_path / "b", whole)
    with ModelFile(tmp_path / "a") as a, ModelFile(tmp_path / "b") as b:
        same = ("generation", "named_tokens", "chat_template", "parameters", "quantisation")
        assert {key: a.meta[key] for key in same} == {key: b.meta[key] for key in same}


@pytest.mark.parametrize(
    "name",
    [
        "bitnet-packed-odd-untied", "legacy-1bitllm-f32", "legacy-1bitllm-f16-head100", "llama-bitlinear-packed",
        "falcon3-packed", "llama-master", "trilm-f16", "bonsai-f16",
    ],
)  # fmt: skip
def test_a_model_without_one_gives_the_same_logits(name, native, reference_checkpoint, tmp_path):
    """Every family that GGUF has an architecture for; narrow ones in Q4_0 and F16, scales by row and by group."""
    folder = reference_checkpoint(name)
    export_gguf(folder, tmp_path / "m.gguf", exact_scales=True)

    convert(tmp_path / "m.gguf", tmp_path / "a", probes=False)

    convert(folder, tmp_path / "b", probes=False)
    ids = np.random.default_rng(1).integers(0, 66, 40).tolist()
    assert np.array_equal(logits(native, tmp_path / "a", ids), logits(native, tmp_path / "b", ids))


def bonsai(folder: Path, **more: Any) -> File:
    """A reference model as PrismML's files have it: Q2_0, here of 64 weights a block, and the embedding in F16."""
    config = json.loads((folder / "config.json").read_text())
    file = File(fields=gguf_files.keys("qwen3", config, **{"qwen3.attention.key_length": config["head_dim"]}, **more))
    for name, values in load_file(folder / "model.safetensors").items():
        if "_proj" not in name:
            file.tensors[gguf_name(name)] = floats(values, F32 if values.ndim == 1 else F16)
            continue
        scales = np.abs(values).reshape(len(values), -1, 64).max(axis=2)
        codes = np.sign(values).astype(np.int8)
        file.tensors[gguf_name(name)] = Row(TYPES["Q2_0_64"].type_id, values.shape, pack("Q2_0_64", codes, scales))
    return file


def test_a_bonsai_runs(native, reference_checkpoint, tmp_path):
    """Scales by group, 15-bit activations, an embedding that stays F16: probes and logits of its checkpoint."""
    folder = reference_checkpoint("bonsai-f16")
    named = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
    path = bonsai(folder, **named).write(tmp_path / "m.gguf")

    report = convert(path, tmp_path / "a")

    convert(folder, tmp_path / "b")
    assert report.n_probes == 3
    checkpoint = open_checkpoint(path)
    assert checkpoint.embedding_encoding() == Encoding.F16
    assert checkpoint.config.conf.activation_quantisation == ActivationQuantisation.INT15
    assert checkpoint.scaling(Role.DOWN_PROJ, 0).granularity == Granularity.GROUP
    assert sections(tmp_path / "a", ("CONF", "PROB")) == sections(tmp_path / "b", ("CONF", "PROB"))


def rewritten(path: Path, architecture: str) -> File:
    """A GGUF file of architecture bitnet-b1.58, to be spoiled and written anew under another one."""
    with GgufFile(path) as read:
        fields = {
            key.replace("bitnet-b1.58.", f"{architecture}."): value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in read.fields.items()
        }
        tensors = {
            name: Row(tensor.type_id, tensor.shape, read.read(tensor, 0, tensor.span).tobytes())
            for name, tensor in read.tensors.items()
        }
    return File(fields=fields | {"general.architecture": architecture}, tensors=tensors)


def test_the_first_upload_of_bitnet_runs(native, reference_checkpoint, tmp_path):
    """Architecture bitnet-25, the embedding in F16 and once more as the head: as with an embedding in F32 alone."""
    export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "m.gguf", kind="i2_s")
    checkpoint = open_checkpoint(tmp_path / "m.gguf", Hints(i2s_dialect="x86"))
    embedding = np.concatenate([values for _, values in checkpoint.rows(Role.TOKEN_EMBEDDING)]).astype(np.float16)
    first, wanted = rewritten(tmp_path / "m.gguf", "bitnet-25"), rewritten(tmp_path / "m.gguf", "bitnet-b1.58")
    first.tensors["token_embd.weight"] = first.tensors["output.weight"] = floats(embedding, F16)
    wanted.tensors["token_embd.weight"] = floats(embedding, F32)

    for file, out in ((first, "a"), (wanted, "b")):
        convert(file.write(tmp_path / f"{out}.gguf"), tmp_path / out, hints=Hints(i2s_dialect="x86"))

    with ModelFile(tmp_path / "a") as model:
        assert model.conf.head_tied and model.meta["quantisation"]["embedding"] == "f16"
    parts = ("CONF", "TOKN", "PRMT", "PROB")
    assert sections(tmp_path / "a", parts) == sections(tmp_path / "b", parts)
