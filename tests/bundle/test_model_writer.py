"""A model file is written whole or not at all, as a stream, and the same input gives the same bytes."""

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgebit.bundle.model_format import Activation, Conf, Encoding, Granularity, Norms, Probe, Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.model_writer import ModelWriter
from edgebit.errors import BundleError, OutputError

CONF = Conf(
    hidden_size=64, ffn_size=100, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=32, vocab_size=20, context_max=128,
    rms_norm_eps=1e-5, activation=Activation.SILU, norms=Norms(0), head_tied=False, bos_token=-1, stop_tokens=(),
)  # fmt: skip


def write_tensors(writer: ModelWriter) -> None:
    for tensor in writer.tensors:
        writer.write_tensor([np.zeros(tensor.size, np.uint8)], np.ones(tensor.n_scales, np.float32))


def write_whole(path: Path, embedding: Encoding = Encoding.F32, front: dict[str, bytes] | None = None) -> None:
    with ModelWriter(path, CONF, front or {}, embedding=embedding, layout=Encoding.T1) as writer:
        write_tensors(writer)
        writer.finish({"name": "x"})
        writer.commit()


def test_the_same_input_gives_the_same_bytes(tmp_path):
    """No time, no path, no order of a dictionary gets in."""
    write_whole(tmp_path / "a", front={"TOKN": b"t" * 70, "PRMT": b"p"})
    write_whole(tmp_path / "b", front={"TOKN": b"t" * 70, "PRMT": b"p"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with ModelFile(tmp_path / "a") as model:
        assert (model.content("TOKN"), model.content("PRMT")) == (b"t" * 70, b"p")
        model.verify()


def test_what_no_reader_would_take_is_not_written(tmp_path):
    """The configuration is checked as its readers check it, before a weight is asked for."""
    with pytest.raises(BundleError, match=r"/m: no reader would take this model: CONF: head_dim is 2048; 1 to 1024"):
        ModelWriter(tmp_path / "m", replace(CONF, head_dim=2048), {}, embedding=Encoding.F32, layout=Encoding.T1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("embedding", [Encoding.F32, Encoding.BF16, Encoding.I8])
def test_every_encoding_of_the_embedding_is_laid_out(embedding, tmp_path):
    """int8 has a scale for each row, the exact ones have none."""
    write_whole(tmp_path / "model.ebm", embedding)
    with ModelFile(tmp_path / "model.ebm") as model:
        tensor = next(tensor for tensor in model.tensors if tensor.role == Role.TOKEN_EMBEDDING)
        assert tensor.encoding == embedding
        assert tensor.granularity == (Granularity.ROW if embedding == Encoding.I8 else Granularity.NONE)


def test_probes_are_put_in_after_the_weights(tmp_path):
    """set_probes() replaces those of before, longer or shorter, and the file stays sound."""
    probes = tuple(Probe(prompt=(i,), layer_crc=(1, 2, 3), logits_crc=i, greedy=(i, i)) for i in range(5))
    with ModelWriter(tmp_path / "model.ebm", CONF, {}, embedding=Encoding.BF16, layout=Encoding.T1) as writer:
        write_tensors(writer)
        writer.finish({})
        for chosen in (probes, probes[:1], (), probes[:2]):
            writer.set_probes(chosen)
            with ModelFile(writer.part) as model:
                assert model.probes == chosen
                model.verify()
        writer.commit()
    with ModelFile(tmp_path / "model.ebm") as model:
        assert model.probes == probes[:2]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_a_broken_off_file(fault, tmp_path):
    """And what was at OUT before stays: Ctrl-C in the middle of a tensor."""
    out = tmp_path / "model.ebm"
    out.write_bytes(b"the old one")

    def broken() -> Iterator[np.ndarray]:
        yield np.zeros(8, np.uint8)
        raise fault

    with pytest.raises(fault), ModelWriter(out, CONF, {}, embedding=Encoding.F32, layout=Encoding.T1) as writer:
        writer.write_tensor(broken())
    assert [path.name for path in tmp_path.iterdir()] == ["model.ebm"]
    assert out.read_bytes() == b"the old one"


def test_a_file_that_is_not_committed_is_no_file(tmp_path):
    """Leaving the block is not enough."""
    with ModelWriter(tmp_path / "model.ebm", CONF, {}, embedding=Encoding.F32, layout=Encoding.T1) as writer:
        write_tensors(writer)
        writer.finish({})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [100, 9_000, 20_000])
def test_a_disk_without_room_is_said(room, tmp_path):
    """With the name of the file and the system's own words; a limit on the size of files stands for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutputError, match=r"model\.ebm\.part: cannot be written: File too large"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
            write_whole(tmp_path / "model.ebm")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_said(tmp_path):
    """Before any work is done."""
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        ModelWriter(tmp_path / "none" / "model.ebm", CONF, {}, embedding=Encoding.F32, layout=Encoding.T1)


def test_wrong_sizes_are_our_own_mistake(tmp_path):
    """Too few values, too many scales, a tensor left out: ValueError, and no file."""
    path = tmp_path / "model.ebm"
    with pytest.raises(ValueError, match="token_embedding takes 5120 bytes, 8 were given"), _writer(path) as writer:
        writer.write_tensor([np.zeros(8, np.uint8)])
    with pytest.raises(ValueError, match="token_embedding has 0 scales, 1 were given"), _writer(path) as writer:
        writer.write_tensor([np.zeros(5120, np.uint8)], [1.0])
    with pytest.raises(ValueError, match="token_embedding was not written"), _writer(path) as writer:
        writer.finish({})
    assert not list(tmp_path.iterdir())


def _writer(path: Path) -> ModelWriter:
    return ModelWriter(path, CONF, {}, embedding=Encoding.F32, layout=Encoding.T1)
