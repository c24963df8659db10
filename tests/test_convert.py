"""The conversion keeps what the checkpoint says: weights, tokenizer, stop tokens, source, probes."""

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from edgebit.bundle.model_format import Encoding, Role, Tensor, head_parts
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.prompt_program import PromptProgram
from edgebit.checkpoint.rope import rope_inv_freq
from edgebit.convert import compute_probes, convert
from edgebit.errors import CheckpointError, EngineError, TokenizerError
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.ternary.layouts import HeadPlanes, pack_h8, unpack_h8, unpack_t1, unpack_t2


def tensor_of(model: ModelFile, role: Role, layer: int = 0):
    return next(t for t in model.tensors if t.role == role and (not role.per_layer or t.layer == layer))


def test_weights_are_those_of_the_checkpoint(reference_checkpoint, reference_model):
    """Codes by transformers' own packing, scales, and the exact embedding; read back by the format's description."""
    folder = reference_checkpoint("bitnet-packed-odd-untied")
    stored = load_bits(folder / "model.safetensors")
    with ModelFile(reference_model("bitnet-packed-odd-untied")) as model:
        model.verify()
        up = tensor_of(model, Role.UP_PROJ, 1)
        codes = unpack_t2(np.frombuffer(bytes(model.values(up)), np.uint8), up.rows, up.columns)
        packed = stored["model.layers.1.mlp.up_proj.weight"]
        quarter = up.rows // 4
        for row in (0, 1, quarter, 2 * quarter + 5, up.rows - 1):
            part, kept = divmod(row, quarter)
            assert np.array_equal(codes[row], (packed[kept] >> (2 * part) & 3).astype(np.int8) - 1)
        scale = bf16_value(stored["model.layers.1.mlp.up_proj.weight_scale"])
        assert model.scales(up) == (float(scale[0]),)
        embedding = tensor_of(model, Role.TOKEN_EMBEDDING)
        assert embedding.encoding == Encoding.BF16
        assert bytes(model.values(embedding)) == stored["model.embed_tokens.weight"].tobytes()
        norm = tensor_of(model, Role.FFN_SUB_NORM, 0)
        wanted = bf16_value(stored["model.layers.0.mlp.ffn_sub_norm.weight"])
        assert np.array_equal(np.frombuffer(bytes(model.values(norm)), np.float32), wanted)


def test_a_float16_embedding_is_kept_as_it_is(reference_checkpoint, reference_model):
    """Neither widened nor rounded."""
    with safe_open(reference_checkpoint("trilm-f16") / "model.safetensors", "numpy") as file:
        wanted = file.get_tensor("model.embed_tokens.weight")
    with ModelFile(reference_model("trilm-f16")) as model:
        embedding = tensor_of(model, Role.TOKEN_EMBEDDING)
        assert (embedding.encoding, wanted.dtype) == (Encoding.F16, np.float16)
        assert bytes(model.values(embedding)) == wanted.tobytes()


def load_bits(path: Path) -> dict[str, np.ndarray]:
    """The stored bytes of each tensor, uint16 for bf16: the safetensors library cannot give them to numpy."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    kinds = {"U8": np.uint8, "BF16": np.uint16}
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], kinds[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def bf16_value(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_a_scale_that_divides_is_turned_round(reference_checkpoint, reference_model):
    """The model file always holds what multiplies: 1 / the stored number."""
    stored = load_bits(reference_checkpoint("llama-bitlinear-packed") / "model.safetensors")
    wanted = np.float32(1) / bf16_value(stored["model.layers.0.self_attn.q_proj.weight_scale"])[0]
    with ModelFile(reference_model("llama-bitlinear-packed")) as model:
        assert model.scales(tensor_of(model, Role.Q_PROJ)) == (float(wanted),)


def head_planes(model: ModelFile, head: Tensor) -> HeadPlanes:
    """The parts of the head, read by the format's description."""
    sizes = head_parts(head.rows, head.columns)
    values, ends = bytes(model.values(head)), np.cumsum(sizes)
    high, middle, low, *bounds = (values[end - size : end] for size, end in zip(sizes, ends, strict=True))
    return HeadPlanes(
        np.frombuffer(high, np.uint8),
        *(np.frombuffer(plane, np.uint8).reshape(head.rows, -1) for plane in (middle, low)),
        *(np.frombuffer(part, np.float32)[: head.rows] for part in bounds),
    )


@pytest.mark.parametrize("name", ["bitnet-packed", "bitnet-packed-odd-untied", "legacy-1bitllm-f32"])
def test_both_layouts_hold_the_same_model(name, reference_checkpoint, reference_model, tmp_path):
    """t1 is smaller, and its golden probes are those of t2: the same logits, to the last bit."""
    convert(reference_checkpoint(name), tmp_path / "t1.ebm", layout="t1")
    with ModelFile(reference_model(name)) as t2, ModelFile(tmp_path / "t1.ebm") as t1:
        assert (t2.meta["quantisation"]["layout"], t1.meta["quantisation"]["layout"]) == ("t2", "t1")
        up2, up1 = tensor_of(t2, Role.UP_PROJ), tensor_of(t1, Role.UP_PROJ)
        weights = unpack_t1(np.frombuffer(bytes(t1.values(up1)), np.uint8), up1.rows, up1.columns)
        assert np.array_equal(weights, unpack_t2(np.frombuffer(bytes(t2.values(up2)), np.uint8), up2.rows, up2.columns))
        assert t1.probes == t2.probes


def test_the_head_is_within_half_a_step(reference_checkpoint, reference_model):
    """int8 with row scales, from lm_head where the head is untied."""
    stored = load_bits(reference_checkpoint("bitnet-packed-odd-untied") / "model.safetensors")
    wanted = bf16_value(stored["lm_head.weight"])
    with ModelFile(reference_model("bitnet-packed-odd-untied")) as model:
        head = tensor_of(model, Role.HEAD)
        codes = unpack_h8(head_planes(model, head), head.columns)
        assert np.array_equal(pack_h8(codes).high_bounds, head_planes(model, head).high_bounds)
        scales = np.array(model.scales(head), np.float32)[:, None]
        assert np.abs(codes).max(axis=1).min() == 127
        assert (np.abs(codes * scales - wanted) <= 0.5001 * scales).all()


def test_the_int8_embedding_is_the_named_option(reference_checkpoint, tmp_path):
    """It is stored in int8 and META says so; the default says bf16."""
    convert(reference_checkpoint("bitnet-packed"), tmp_path / "model.ebm", embedding="int8", probes=False)
    with ModelFile(tmp_path / "model.ebm") as model:
        assert tensor_of(model, Role.TOKEN_EMBEDDING).encoding == Encoding.I8
        assert model.meta["quantisation"] == {"embedding": "int8", "head": "int8", "layout": "t2"}


def test_what_people_need_is_inside(reference_checkpoint, reference_model):
    """Sums of the sources, all stop tokens, advice, chat template, and three probes."""
    folder = reference_checkpoint("bitnet-packed")
    with ModelFile(reference_model("bitnet-packed")) as model:
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        assert model.meta["source"]["format"] == "safetensors"
        (source,) = model.meta["source"]["files"]
        assert (source["name"], source["sha256"]) == ("model.safetensors", digest)
        assert model.meta["generation"] == {"temperature": 0.6, "top_p": 0.9}
        assert "capitalize" in model.meta["chat_template"]
        assert model.meta["parameters"] == 1_904_640
        assert (model.conf.bos_token, model.conf.stop_tokens) == (500, (501, 509))
        assert [len(probe.prompt) for probe in model.probes] == [1, 8, 72]
        assert model.content("TOKN")
        assert model.content("PRMT")


def test_two_conversions_give_the_same_bytes(reference_checkpoint, tmp_path):
    """Apart from the folder's name nothing of the machine gets in."""
    folder = tmp_path / "bitnet-packed"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    for name in ("a", "b"):
        convert(folder, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_progress_names_every_tensor_in_order(reference_checkpoint, tmp_path):
    """From 0 up to all of them."""
    seen = []
    progress = lambda what, done, total: seen.append((what, done, total))  # noqa: E731
    convert(reference_checkpoint("llama-bitlinear-packed"), tmp_path / "m", probes=False, progress=progress)
    tensors = [(what, done) for what, done, total in seen if done < total]
    assert tensors[0] == ("token_embedding", 0)
    assert [done for _, done in tensors] == list(range(len(tensors)))
    assert seen[-1][1] == seen[-1][2] == len(tensors)


def test_a_model_without_a_tokenizer_says_so(reference_checkpoint, tmp_path):
    """The report tells, so that a command can."""
    report = convert(reference_checkpoint("legacy-1bitllm-f32"), tmp_path / "m", probes=False)
    assert (report.has_tokenizer, report.has_chat_template, report.n_probes) == (False, False, 0)
    assert "has no tokenizer" in report.notes[0]


def test_a_base_model_is_told_from_one_to_chat_with(reference_checkpoint, tmp_path):
    """Without a chat template; a note names those that can be given."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    report = convert(folder, tmp_path / "m", probes=False)

    assert not report.has_chat_template
    assert [note for note in report.notes if "no chat is possible. Choose one with --template: alpaca" in note]


@pytest.mark.parametrize(
    ("name", "words"), [("model.safetensors", "Give its folder: "), ("x.txt", "x.txt: is no model. Known are")]
)
def test_a_file_that_is_no_checkpoint(name, words, reference_checkpoint, tmp_path):
    file = reference_checkpoint("bitnet-packed") / name
    if not file.exists():
        file = tmp_path / name
        file.touch()
    with pytest.raises(CheckpointError, match=words):
        convert(file, tmp_path / "m", probes=False)


@pytest.fixture
def odd_template(reference_checkpoint, tmp_path):
    """A checkpoint whose chat template no prompt program can follow."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ messages | length }} {{ messages[0].content }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_chat_template_that_does_not_fit_is_refused_with_the_way_out(odd_template, tmp_path):
    """Nobody gets a template that is nearly right, and nobody loses one without a word."""
    with pytest.raises(
        TokenizerError, match=r"once each, in order, as they are: .* Choose one with --template: alpaca, .* or none"
    ):
        convert(odd_template, tmp_path / "m", probes=False)
    assert not (tmp_path / "m").exists()


def test_another_template_can_be_chosen(odd_template, tmp_path):
    """One of ours: its prompts, its Jinja for who exports, its stop token; "none": plain text. The report says so."""
    report = convert(odd_template, tmp_path / "m", template="bitnet", probes=False)
    assert report.has_chat_template
    assert "chat template bitnet, as asked for: the checkpoint's own is left out" in report.notes
    with ModelFile(tmp_path / "m") as model:
        assert PromptProgram.from_bytes(model.content("PRMT")).user == ("User: ", "<|eot_id|>")
        assert "capitalize" in model.meta["chat_template"]
        assert model.conf.stop_tokens == (501, 509)

    plain = convert(odd_template, tmp_path / "n", template="none", probes=False)
    assert (plain.has_tokenizer, plain.has_chat_template) == (True, False)
    assert "no chat template: prompts are plain text" in plain.notes[0]


def test_a_template_needs_a_tokenizer(reference_checkpoint, tmp_path):
    with pytest.raises(TokenizerError, match=r"--template chatml: .* has no tokenizer"):
        convert(reference_checkpoint("legacy-1bitllm-f32"), tmp_path / "m", template="chatml", probes=False)


def test_frequencies_above_one_are_refused_before_anything_is_written(reference_checkpoint, tmp_path):
    """A base below 1: no reader would take the file, and without golden probes nobody had looked."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(reference_checkpoint("legacy-1bitllm-f32"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 0.25}))
    with pytest.raises(CheckpointError, match=r"RoPE turns a pair of elements by .* a position; 0 to 1 are possible"):
        convert(folder, tmp_path / "m", probes=False)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_an_engine_that_computes_wrongly_writes_no_model(reference_checkpoint, native, tmp_path, monkeypatch):
    """Where the best ISA level and the lowest part in one bit, the conversion stops and leaves nothing."""
    right = Engine.run_probe
    results = []

    def wrong_the_second_time(self, prompt, n_greedy):
        probe = right(self, prompt, n_greedy)
        results.append(probe)
        return replace(probe, logits_crc=probe.logits_crc ^ 1) if len(results) == 2 else probe

    monkeypatch.setattr(Engine, "run_probe", wrong_the_second_time)
    with pytest.raises(EngineError, match=f"other numbers at ISA level {native.isa} than at {native.isa_names[0]}"):
        convert(reference_checkpoint("bitnet-packed"), tmp_path / "model.ebm")
    assert not list(tmp_path.iterdir())


def test_a_conversion_that_is_broken_off_does_not_wait_for_the_hashes(reference_checkpoint, tmp_path, monkeypatch):
    """Ctrl-C at the second tensor: the hashing of the sources ends too, and nothing is left."""

    def endless(path, check):
        while True:
            check(1)
            time.sleep(0.01)

    def interrupt(what, done, total):
        if done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("edgebit.convert.hash_file", endless)
    with pytest.raises(KeyboardInterrupt):
        convert(reference_checkpoint("bitnet-packed"), tmp_path / "model.ebm", probes=False, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_probes_are_what_any_engine_computes(native, reference_model):
    """The probes in the file are those that a second computation gives."""
    path = reference_model("bitnet-bf16")
    with ModelFile(path) as model:
        written = model.probes
    assert compute_probes(path) == written
    with Model.open(native, path) as model, Engine(model, ctx_len=128, threads=2) as engine:
        assert engine.check_probes() == len(written)


def test_inv_freq_is_the_reference_formula():
    """theta^(-2i/d), rounded once to float32; the first is 1."""
    found = rope_inv_freq(500000.0, 128)
    assert found[0] == 1.0
    assert found.dtype == np.float32
    assert np.allclose(found, [500000.0 ** (-2 * i / 128) for i in range(64)], rtol=6e-8, atol=0)
