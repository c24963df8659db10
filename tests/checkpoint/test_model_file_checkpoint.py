"""A model file answers as the checkpoint does that it was converted from."""

import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from model_file_sums import set_sums_right

from edgebit.bundle.model_format import (
    HEADER,
    NO_LAYER,
    SECTION,
    Activation,
    Conf,
    Encoding,
    Granularity,
    Norms,
    Role,
    Scaling,
)
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.model_writer import ModelWriter
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.convert import convert
from edgebit.errors import CheckpointError
from edgebit.ternary.absmean import row_int8
from edgebit.ternary.layouts import pack_t2
from tests.kernels.tiny_model import TinyModel, tiny_conf

MODELS = ("bitnet-packed", "bitnet-bf16", "bitnet-packed-odd-untied", "legacy-1bitllm-f32", "llama-bitlinear-packed")


@contextmanager
def opened(path: Path) -> Iterator[Checkpoint]:
    with closing(open_checkpoint(path)) as checkpoint:
        yield checkpoint


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layout", ["t2", "t1"])
def test_every_tensor_is_the_checkpoints(name, layout, reference_checkpoint, tmp_path):
    """Codes, scales, norms, frequencies and an exact embedding: all of them, and a tied head with it."""
    model = tmp_path / "model.ebm"
    convert(reference_checkpoint(name), model, layout=layout, probes=False)
    with opened(reference_checkpoint(name)) as wanted, opened(model) as found:
        assert found.config.conf.roles() == wanted.config.conf.roles()
        assert np.array_equal(found.config.rope_inv_freq, wanted.config.rope_inv_freq)
        assert found.embedding_encoding() == wanted.embedding_encoding()
        for role, layer in wanted.config.conf.roles():
            if role.is_projection:
                ours, theirs = found.projection(role, layer), wanted.projection(role, layer)
                assert np.array_equal(ours.weights, theirs.weights)
                assert ours.scales.tobytes() == theirs.scales.tobytes()
                assert found.scaling(role, layer) == wanted.scaling(role, layer)
            elif role == Role.TOKEN_EMBEDDING or (role == Role.HEAD and wanted.config.conf.head_tied):
                assert all_rows(found, role).tobytes() == all_rows(wanted, role).tobytes()
            elif role not in (Role.HEAD, Role.ROPE_INV_FREQ):
                assert found.vector(role, layer).tobytes() == wanted.vector(role, layer).tobytes()


def all_rows(checkpoint: Checkpoint, role: Role) -> np.ndarray:
    return np.concatenate([stored for stored, _ in checkpoint.rows(role)])


def test_a_head_of_its_own_is_its_int8_rows(reference_checkpoint, reference_model):
    """Code x scale of each row, to the bit, and a note says that this is not what was trained."""
    with (
        opened(reference_checkpoint("bitnet-packed-odd-untied")) as wanted,
        opened(reference_model("bitnet-packed-odd-untied")) as found,
    ):
        codes, scales = row_int8(np.concatenate([values for _, values in wanted.rows(Role.HEAD)]))
        assert all_rows(found, Role.HEAD).tobytes() == (codes.astype(np.float32) * scales[:, None]).tobytes()
        assert "int8 rows" in found.notes[0]


def test_an_int8_embedding_comes_as_float32(reference_checkpoint, tmp_path):
    model = tmp_path / "model.ebm"
    convert(reference_checkpoint("bitnet-packed"), model, embedding="int8", probes=False)
    with opened(reference_checkpoint("bitnet-packed")) as wanted, opened(model) as found:
        exact = np.concatenate([values for _, values in wanted.rows(Role.TOKEN_EMBEDDING)])
        codes, scales = row_int8(exact)
        assert found.embedding_encoding() == Encoding.F32
        assert np.array_equal(all_rows(found, Role.TOKEN_EMBEDDING), codes.astype(np.float32) * scales[:, None])
        assert "--embedding int8" in found.notes[0]


def test_chunks_change_nothing(reference_model, monkeypatch):
    """Tensors larger than a chunk are put together from many."""
    with opened(reference_model("bitnet-packed-odd-untied")) as checkpoint:
        whole = [all_rows(checkpoint, role) for role in (Role.TOKEN_EMBEDDING, Role.HEAD)]
        weights = checkpoint.projection(Role.DOWN_PROJ, 1).weights
        monkeypatch.setattr("edgebit.checkpoint.model_file_checkpoint.CHUNK_BYTES", 1000)
        parts = [all_rows(checkpoint, role) for role in (Role.TOKEN_EMBEDDING, Role.HEAD)]
        assert sum(1 for _ in checkpoint.rows(Role.HEAD)) > 10
        assert [part.tobytes() for part in parts] == [rows.tobytes() for rows in whole]
        assert np.array_equal(checkpoint.projection(Role.DOWN_PROJ, 1).weights, weights)


def test_group_scales_and_half_precision_come_back(tmp_path):
    """What no checkpoint of tests/reference has: [columns / group][rows] scales, and an embedding of f16."""
    conf = Conf(
        hidden_size=128, ffn_size=192, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=64, vocab_size=10, context_max=64,
        rms_norm_eps=1e-6, activation=Activation.SILU, norms=Norms(0), head_tied=True, bos_token=-1, stop_tokens=(),
    )  # fmt: skip
    random = np.random.default_rng(5)
    embedding = random.normal(size=(10, 128)).astype(np.float16)
    kept: dict[Role, tuple[np.ndarray, np.ndarray]] = {}
    grouped = Scaling(Granularity.GROUP, 64)
    path = tmp_path / "model.ebm"
    with ModelWriter(
        path, conf, {}, embedding=Encoding.F16, layout=Encoding.T2, scaling=lambda role, layer: grouped
    ) as writer:
        for tensor in writer.tensors:
            if tensor.role.is_projection:
                weights = random.integers(-1, 2, (tensor.rows, tensor.columns)).astype(np.int8)
                scales = random.uniform(0.5, 2, tensor.n_scales).astype(np.float32)
                kept[tensor.role] = weights, scales
                writer.write_tensor((pack_t2(part) for part in np.split(weights, tensor.columns // 64, axis=1)), scales)
            elif tensor.role == Role.TOKEN_EMBEDDING:
                writer.write_tensor([embedding])
            else:
                writer.write_tensor([np.zeros(tensor.size, np.uint8)], np.ones(tensor.n_scales))
        writer.finish({})
        writer.commit()
    with opened(path) as checkpoint:
        for role, (weights, scales) in kept.items():
            assert checkpoint.scaling(role, 0) == grouped
            found = checkpoint.projection(role, 0)
            assert np.array_equal(found.weights, weights) and found.scales.tobytes() == scales.tobytes()
        assert all_rows(checkpoint, Role.TOKEN_EMBEDDING).tobytes() == embedding.tobytes()
        assert checkpoint.embedding_encoding() == Encoding.F16


def test_converting_a_model_file_again_gives_its_bytes(reference_checkpoint, reference_model, tmp_path):
    """In the other layout and back: all but META, which names another source."""
    other, back = tmp_path / "t1.ebm", tmp_path / "t2.ebm"
    convert(reference_model("bitnet-packed"), other, layout="t1")
    convert(other, back)
    with ModelFile(reference_model("bitnet-packed")) as wanted, ModelFile(back) as found:
        for tag in ("CONF", "TENS", "TOKN", "PRMT", "DATA", "PROB"):
            assert found.content(tag) == wanted.content(tag), tag
        assert found.meta["source"]["format"] == "edgebit"
        assert found.meta | {"source": None} == wanted.meta | {"source": None}


def test_the_tokenizer_comes_back(reference_checkpoint, reference_model):
    """The same tokens, merges and names as tokenizer.json and its companions gave."""
    with opened(reference_checkpoint("bitnet-packed")) as wanted, opened(reference_model("bitnet-packed")) as found:
        ours, theirs = found.tokenizer(), wanted.tokenizer()
        assert ours.section() == theirs.section()
        assert (ours.named_tokens, ours.bos_token, ours.chat_template) == (
            theirs.named_tokens, theirs.bos_token, theirs.chat_template,
        )  # fmt: skip
        assert ours.stop_tokens == theirs.stop_tokens


def with_bytes(model: Path, at: int, new: bytes, out: Path) -> Path:
    """Write `model` to `out` with other bytes in section DATA, and its sums as they then are."""
    with ModelFile(model) as file:
        section = file.sections["DATA"]
    data = bytearray(model.read_bytes())
    data[at : at + len(new)] = new
    set_sums_right(data, section)
    out.write_bytes(data)
    return out


def test_code_3_is_refused_with_its_place(reference_model, tmp_path):
    """A wrong weight under a right sum: which tensor it is in."""
    with ModelFile(reference_model("bitnet-packed")) as file:
        tensor = next(tensor for tensor in file.tensors if tensor.role == Role.UP_PROJ and tensor.layer == 1)
    damaged = with_bytes(reference_model("bitnet-packed"), tensor.offset + 5, b"\xff", tmp_path / "damaged.ebm")
    with (
        opened(damaged) as checkpoint,
        pytest.raises(CheckpointError, match=r"damaged\.ebm: tensor up_proj\[1\]: rows 0 to .*code 3"),
    ):
        checkpoint.projection(Role.UP_PROJ, 1)


def test_a_norm_that_is_no_number_is_refused(reference_model, tmp_path):
    with ModelFile(reference_model("bitnet-packed")) as file:
        tensor = next(tensor for tensor in file.tensors if tensor.role == Role.FINAL_NORM)
    nan = np.float32(np.nan).tobytes()
    damaged = with_bytes(reference_model("bitnet-packed"), tensor.offset, nan, tmp_path / "damaged.ebm")
    with opened(damaged) as checkpoint, pytest.raises(CheckpointError, match="tensor final_norm: holds nan"):
        checkpoint.vector(Role.FINAL_NORM, NO_LAYER)


@pytest.mark.parametrize(
    ("at", "value", "promised"),
    [(0, 9, "version 9"), (8, 77, "pre-tokenizer 77"), (16, 1, "its counts ask for"), (12, 256, "flags")],
)
def test_a_tokenizer_of_another_kind_is_refused(at, value, promised, reference_model, tmp_path):
    """Though its sum is right."""
    damaged = tmp_path / "damaged.ebm"
    data = bytearray(reference_model("bitnet-packed").read_bytes())
    with ModelFile(reference_model("bitnet-packed")) as file:
        section = file.sections["TOKN"]
        number = list(file.sections).index("TOKN")
        table = HEADER.size + number * SECTION.size
        data[section.offset + at : section.offset + at + 4] = value.to_bytes(4, "little")
        crc = zlib.crc32(data[section.offset : section.offset + section.size])
        data[table + 4 : table + 8] = crc.to_bytes(4, "little")
        end = HEADER.size + len(file.sections) * SECTION.size
    data[24:28] = zlib.crc32(data[HEADER.size : end]).to_bytes(4, "little")
    data[28:32] = zlib.crc32(data[:28]).to_bytes(4, "little")
    damaged.write_bytes(data)
    with opened(damaged) as checkpoint, pytest.raises(CheckpointError, match=promised):
        checkpoint.tokenizer()


@pytest.mark.filterwarnings("ignore:overflow")  # of the tiny model itself
def test_rows_beyond_float32_are_refused(tmp_path):
    """A scale that is finite, and a product with its codes that is not."""
    tiny = TinyModel(tiny_conf())
    tiny.set_head(np.full((77, 70), 127, np.int8), scales=np.full(77, 3e38, "<f4"))
    (tmp_path / "m.ebm").write_bytes(tiny.to_bytes())
    with (
        closing(open_checkpoint(tmp_path / "m.ebm")) as checkpoint,
        pytest.raises(CheckpointError, match="tensor head: row 0 or after: holds inf"),
    ):
        list(checkpoint.rows(Role.HEAD))
