"""`edgebit export gguf`: what independent code reads from the file is the model that went in."""

import json
from contextlib import closing

import numpy as np
import pytest
from click.testing import CliRunner

gguf = pytest.importorskip("gguf", reason="the gguf package reads what we write")

from export.gguf_oracle import I2_S, GgufOracle  # noqa: E402

from edgebit.bundle.model_format import Role  # noqa: E402
from edgebit.checkpoint.gguf_file.tensor_names import TENSOR_NAMES  # noqa: E402
from edgebit.checkpoint.opening import open_checkpoint  # noqa: E402
from edgebit.cli import cli  # noqa: E402
from edgebit.errors import ExportError  # noqa: E402
from edgebit.export.to_gguf import export_gguf  # noqa: E402
from edgebit.runtime.engine import Engine  # noqa: E402
from edgebit.runtime.model import Model  # noqa: E402

MODELS = ("bitnet-packed", "bitnet-bf16", "bitnet-packed-odd-untied", "legacy-1bitllm-f32", "llama-bitlinear-packed")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("source", "exact"), [("checkpoint", False), ("model file", True)])
def test_a_model_computed_from_the_file_is_the_model(
    name, exact, source, reference_checkpoint, reference_model, native, tmp_path
):
    """Logits by the measures of tests/parity: mean difference 0.03 of their deviation, 95 % the same argmax."""
    model = reference_model(name)
    path = reference_checkpoint(name) if source == "checkpoint" else model
    export_gguf(path, tmp_path / "model.gguf", exact_scales=exact)
    ids = np.random.default_rng(1).integers(0, 250, 40).tolist()
    with Model.open(native, model) as opened, Engine(opened, ctx_len=40, logits_rows=40, kv="f32") as engine:
        engine.eval_batch(ids, [0] * 40, [True] * 40)
        wanted = np.stack([np.frombuffer(engine.logits(row), np.float32) for row in range(40)])
    found = GgufOracle(tmp_path / "model.gguf").logits(ids)
    assert np.abs(found - wanted).mean() <= 0.03 * wanted.std()
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.95


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0"])
def test_every_code_and_scale_is_in_the_file(kind, reference_checkpoint, tmp_path):
    """Weight = code x scale, all of them, as the gguf package dequantises: these scales are f16 numbers."""
    report = export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "model.gguf", kind=kind)
    oracle = GgufOracle(tmp_path / "model.gguf")
    with closing(open_checkpoint(reference_checkpoint("bitnet-packed"))) as checkpoint:
        for role, layer in checkpoint.config.conf.roles():
            name = TENSOR_NAMES.get(role, "").format(layer) + ".weight"
            if role.is_projection:
                projection = checkpoint.projection(role, layer)
                assert np.array_equal(oracle.tensor(name), projection.weights * projection.scales)
            elif role == Role.TOKEN_EMBEDDING:
                rows = np.concatenate([values for _, values in checkpoint.rows(role)])
                assert oracle.tensor(name).tobytes() == rows.tobytes()
                assert oracle.tensors[name].tensor_type == gguf.GGMLQuantizationType.BF16
            elif role not in (Role.ROPE_INV_FREQ, Role.HEAD):
                assert oracle.tensor(name).tobytes() == checkpoint.vector(role, layer).tobytes()
    assert "output.weight" not in oracle.tensors, "a tied head is the embedding"
    assert report.types[kind] == 21 and report.scales_rounded == 0


def test_exact_scales_stand_apart(reference_checkpoint, tmp_path):
    """Blocks of scale 1, and the f32 scale beside them, bit for bit; also where blocks do not fit."""
    export_gguf(reference_checkpoint("legacy-1bitllm-f32"), tmp_path / "model.gguf", exact_scales=True)
    oracle = GgufOracle(tmp_path / "model.gguf")
    with closing(open_checkpoint(reference_checkpoint("legacy-1bitllm-f32"))) as checkpoint:
        for role in (Role.Q_PROJ, Role.DOWN_PROJ):
            projection = checkpoint.projection(role, 1)
            name = TENSOR_NAMES[role].format(1)
            assert np.array_equal(oracle.tensor(name + ".weight"), projection.weights)
            assert oracle.tensor(name + ".scale").tobytes() == projection.scales.tobytes()


def test_what_f16_scales_lose_is_said(reference_checkpoint, tmp_path):
    """How many, and by how much at most: never more than half a unit of f16's eleven bits."""
    report = export_gguf(reference_checkpoint("legacy-1bitllm-f32"), tmp_path / "model.gguf")
    oracle = GgufOracle(tmp_path / "model.gguf")
    with closing(open_checkpoint(reference_checkpoint("legacy-1bitllm-f32"))) as checkpoint:
        errors = []
        for role, layer in checkpoint.config.conf.roles():
            if role.is_projection:
                scale = checkpoint.projection(role, layer).scales[0]
                kept = np.abs(oracle.tensor(TENSOR_NAMES[role].format(layer) + ".weight")).max()
                errors.append(abs(kept - scale) / scale)
    assert report.scales_rounded == sum(error > 0 for error in errors) > 0
    assert report.scale_error == pytest.approx(max(errors), rel=1e-3) and report.scale_error < 2**-11
    assert any("are no f16 numbers" in note for note in report.notes)


def test_i2_s_is_the_hubs_layout(reference_checkpoint, tmp_path):
    """128 weights in 32 bytes, the first of each quarter in the high bits; the f32 scale behind, 32 bytes for it."""
    export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "model.gguf", kind="i2_s")
    data = (tmp_path / "model.gguf").read_bytes()
    with closing(open_checkpoint(reference_checkpoint("bitnet-packed"))) as checkpoint:
        projection = checkpoint.projection(Role.UP_PROJ, 1)
    rows, columns = projection.weights.shape
    codes = bytearray()
    for block in projection.weights.reshape(-1, 128):
        codes += bytes(
            sum(int(block[32 * quarter + i] + 1) << (6 - 2 * quarter) for quarter in range(4)) for i in range(32)
        )
    at = data.index(bytes(codes))
    assert at % 32 == 0
    assert data[at + rows * columns // 4 :][:32] == projection.scales.tobytes() + bytes(28)
    assert table_of(data)["blk.1.ffn_up.weight"] == ((columns, rows), I2_S)


def table_of(data: bytes) -> dict[str, tuple[tuple[int, ...], int]]:
    """name -> (shape, type) of the tensors, read by hand: the gguf package refuses types it does not know."""
    found, at = {}, data.index(b"token_embd.weight") - 8
    for _ in range(int.from_bytes(data[8:16], "little")):
        size = int.from_bytes(data[at : at + 8], "little")
        name, at = data[at + 8 : at + 8 + size].decode(), at + 8 + size
        n_dims = int.from_bytes(data[at : at + 4], "little")
        dims = tuple(int.from_bytes(data[at + 4 + 8 * i : at + 12 + 8 * i], "little") for i in range(n_dims))
        at += 4 + 8 * n_dims
        found[name] = dims, int.from_bytes(data[at : at + 4], "little")
        at += 12
    return found


def test_metadata_says_what_to_compute(reference_checkpoint, tmp_path):
    export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "model.gguf")
    oracle = GgufOracle(tmp_path / "model.gguf")
    with closing(open_checkpoint(reference_checkpoint("bitnet-packed"))) as checkpoint:
        config, tokenizer = checkpoint.config, checkpoint.tokenizer()
    conf = config.conf
    wanted = {
        "general.architecture": "bitnet-b1.58",
        "general.name": "bitnet-packed",
        "general.file_type": 37,
        "bitnet-b1.58.hidden_activation": "relu2",
        "bitnet-b1.58.context_length": conf.context_max,
        "bitnet-b1.58.feed_forward_length": conf.ffn_size,
        "bitnet-b1.58.attention.head_count_kv": conf.n_kv_heads,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token,
        "tokenizer.ggml.eos_token_id": tokenizer.stop_tokens[0],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    assert {key: oracle.field(key) for key in wanted} == wanted
    assert oracle.field("bitnet-b1.58.rope.freq_base") == pytest.approx(500000)
    assert oracle.field("bitnet-b1.58.attention.layer_norm_rms_epsilon") == pytest.approx(conf.rms_norm_eps)
    assert len(oracle.field("tokenizer.ggml.tokens")) == conf.vocab_size
    vocabulary = json.loads((reference_checkpoint("bitnet-packed") / "tokenizer.json").read_text())
    tokens = oracle.field("tokenizer.ggml.tokens")
    assert all(tokens[token] == name for name, token in vocabulary["model"]["vocab"].items())
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in vocabulary["model"]["merges"]]
    assert oracle.field("tokenizer.ggml.merges") == merges
    special = {entry["id"] for entry in vocabulary["added_tokens"] if entry["special"]}
    types = oracle.field("tokenizer.ggml.token_type")
    assert {token for token, kind in enumerate(types) if kind == gguf.TokenType.CONTROL} == special


def test_a_head_of_its_own_can_come_from_the_checkpoint(reference_checkpoint, reference_model, tmp_path):
    """To the bit what was trained; without it, the model file's int8 rows, and a note."""
    name = "bitnet-packed-odd-untied"
    lossy = export_gguf(reference_model(name), tmp_path / "lossy.gguf")
    exact = export_gguf(reference_model(name), tmp_path / "exact.gguf", head_from=reference_checkpoint(name))
    with closing(open_checkpoint(reference_checkpoint(name))) as checkpoint:
        rows = np.concatenate([values for _, values in checkpoint.rows(Role.HEAD)])
    assert GgufOracle(tmp_path / "exact.gguf").tensor("output.weight").tobytes() == rows.tobytes()
    assert not np.array_equal(GgufOracle(tmp_path / "lossy.gguf").tensor("output.weight"), rows)
    assert any("int8 rows" in note for note in lossy.notes) and not any("int8 rows" in note for note in exact.notes)


def test_chunks_change_nothing(reference_checkpoint, tmp_path, monkeypatch):
    export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "whole.gguf")
    monkeypatch.setattr("edgebit.export.dense_weights.CHUNK_BYTES", 1000)
    export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "parts.gguf")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "parts.gguf").read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "promised"),
    [
        (
            "bitnet-packed-odd-untied",
            {"kind": "i2_s"},
            r"ffn_down: i2_s has .* rows of 328\..* tq2_0, which .* f16",
        ),
        (
            "llama-bitlinear-packed",
            {"architecture": "bitnet"},
            "does not compute what this model does; llama does",
        ),
        ("bitnet-packed-odd-untied", {"architecture": "bitnet"}, "has no head of its own"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(name, options, promised, reference_checkpoint, tmp_path):
    with pytest.raises(ExportError, match=promised):
        export_gguf(reference_checkpoint(name), tmp_path / "model.gguf", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_on_the_way_leaves_nothing(reference_checkpoint, tmp_path, monkeypatch):
    """And the file that was there stays as it was, also with --force."""
    (tmp_path / "model.gguf").write_bytes(b"kept")

    def stop(what: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "model.gguf", force=True, progress=stop)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("model.gguf", b"kept")]


def test_a_full_disk_is_an_error_that_leaves_nothing(small_disk, reference_checkpoint):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(24_900_000))
    with pytest.raises(ExportError, match="No space left"):
        export_gguf(reference_checkpoint("bitnet-packed"), small_disk / "model.gguf")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_the_command_protects_what_is_there(reference_checkpoint, tmp_path):
    """Exit code 18 and the way out; --force replaces; --json tells all."""
    out = tmp_path / "model.gguf"
    call = ["export", "gguf", str(reference_checkpoint("bitnet-packed")), "--out", str(out)]
    assert CliRunner().invoke(cli, call, catch_exceptions=False).exit_code == 0
    again = CliRunner().invoke(cli, call)
    assert isinstance(again.exception, ExportError) and "--force" in str(again.exception)
    report = json.loads(CliRunner().invoke(cli, [*call, "--force", "--json"]).stdout)
    assert report["out"] == str(out) and report["size"] == out.stat().st_size
    assert report["types"] == {"bf16": 1, "f32": 13, "tq2_0": 21} and report["scales_exact"] == 21
