"""PyTorch files: read to the last bit, and nothing that a pickle asks for is ever done."""

import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.hugging_face.pytorch_file import PytorchFile
from edgebit.checkpoint.hugging_face.safetensors_file import SafetensorsFile
from edgebit.convert import convert
from edgebit.errors import CheckpointError
from tests.checkpoint.hugging_face.bin_file import (
    EMPTY_ORDERED,
    START,
    STOP,
    archive,
    named,
    number,
    numbers,
    state_dict,
    tensor,
    text,
    tuple_of,
    write_bin,
)

SOUND = {"w": tensor("0", "FloatStorage", 6, [2, 3])}
SIX = struct.pack("<6f", *range(6))


def with_pickle(pickled: bytes) -> bytes:
    return archive({"data.pkl": pickled, "byteorder": b"little", "data/0": SIX})


def with_tensor(made: bytes) -> bytes:
    return with_pickle(state_dict({"w": made}))


class RunsCommand:
    def __reduce__(self):
        return os.system, ("touch /tmp/edgebit-was-here",)


def laughing_pickle() -> bytes:
    """A tuple of two, of two, ... a thousand times over: 2^1000 values to whoever walks through it."""
    layers = b"".join(
        b"h" + bytes([at % 256]) + b"h" + bytes([at % 256]) + b"\x86q" + bytes([(at + 1) % 256]) for at in range(1000)
    )
    return START + b")q\x00" + layers + STOP


def self_holding_pickle() -> bytes:
    return START + b"}q\x00" + text("w") + b"h\x00s" + STOP


def overlapping_zip() -> bytes:
    """The directory's second data entry points at the first one's bytes."""
    made = archive({"data.pkl": state_dict(SOUND), "data/0": SIX, "data/1": SIX})
    first = made.index(b"PK\x03\x04", 10)
    at = made.rindex(b"PK\x01\x02")
    return made[: at + 42] + struct.pack("<I", first) + made[at + 46 :]


def with_directory_field(offset: int, layout: str, value: int) -> bytes:
    made = bytearray(with_pickle(state_dict(SOUND)))
    struct.pack_into(layout, made, made.rindex(b"PK\x01\x02") + offset, value)
    return bytes(made)


def with_end_field(offset: int, layout: str, value: int) -> bytes:
    made = bytearray(with_pickle(state_dict(SOUND)))
    struct.pack_into(layout, made, len(made) - 22 + offset, value)
    return bytes(made)


def in_folders(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in names:
            made.writestr(name, state_dict(SOUND))
    return out.getvalue()


HOSTILE = {
    "empty": (b"", "is no PyTorch file"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "before-1.6": (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", r"before PyTorch 1\.6.*p, weights_only=True"),
    "cut": (with_pickle(state_dict(SOUND))[:-9], "not at its end: a copy cut short"),
    "cut-start": (with_pickle(state_dict(SOUND))[:30], "not at its end"),
    "deflated-bomb": (archive({"data.pkl": b".", "data/0": bytes(10 << 20)}, zipfile.ZIP_DEFLATED), "compressed"),
    "overlapping": (overlapping_zip(), "lies over|is not that of the directory"),
    "size-lies": (with_directory_field(24, "<I", 7 << 20), "compressed"),
    "offset-behind": (with_directory_field(42, "<I", 0x7FFFFFFF), "cut short"),
    "offset-64-missing": (with_directory_field(42, "<I", 0xFFFFFFFF), "lacks its sizes of 64 bits"),
    "encrypted": (with_directory_field(8, "<H", 1), "encrypted"),
    "name-behind": (with_directory_field(28, "<H", 0xFFFF), "ends inside an entry"),
    "directory-huge": (with_end_field(12, "<I", 0xFFFFFFF0), "the directory ends at byte"),
    "count-lies": (with_end_field(10, "<H", 9), "several parts"),
    "many-disks": (with_end_field(4, "<H", 7), "several parts"),
    "outside": (in_folders("../../model/data.pkl"), "outside the archive's folder"),
    "root": (in_folders("/data.pkl"), "outside the archive's folder"),
    "two-folders": (in_folders("a/data.pkl", "b/data.pkl"), "2 folders"),
    "no-pickle": (archive({"data/0": SIX}), r"has no data\.pkl"),
    "torchscript": (archive({"data.pkl": state_dict(SOUND), "constants.pkl": b""}), "TorchScript"),
    "big-endian": (archive({"data.pkl": state_dict(SOUND), "byteorder": b"big"}), "big-endian"),
    "pickle-large": (with_pickle(bytes(9 << 20)), "are the limit"),
    "runs-a-command": (with_pickle(pickle.dumps({"w": RunsCommand()}, 2)), "nothing of it was run"),
    "runs-eval": (with_pickle(START + named("builtins", "eval") + text("1") + b"\x85R" + STOP), r"'builtins\.eval'"),
    "stack-global": (with_pickle(START + text("os") + text("system") + b"\x93" + STOP), r"'os\.system'"),
    "name-long": (with_pickle(START + b"c" + b"a" * 9999 + b"\nb\n" + STOP), "a name has no end"),
    "build-on-tensor": (with_pickle(START + SOUND["w"] + b"}b" + STOP), "gives a tensor attributes"),
    "calls-a-text": (with_pickle(START + text("a") + b")R" + STOP), "calls the text 'a'"),
    "calls-without": (with_pickle(START + named("torch._utils", "_rebuild_tensor_v2") + b")R" + STOP), "calls torch"),
    "inst-opcode": (with_pickle(START + b"(ios\nsystem\n" + STOP), "opcode b'i'"),
    "newobj-opcode": (with_pickle(START + EMPTY_ORDERED + b")\x81" + STOP), r"opcode b'\\x81'"),
    "extension-opcode": (with_pickle(START + b"\x82\x01" + STOP), r"opcode b'\\x82'"),
    "decimal-bomb": (with_pickle(START + b"I" + b"9" * 100_000 + b"\n" + STOP), "opcode b'I'"),
    "number-huge": (with_pickle(START + b"\x8a\xff" + b"\x7f" * 255 + STOP), "a number of 255 bytes"),
    "memo-huge": (with_pickle(START + b"}r\xff\xff\xff\xffj\xfe\xff\xff\xff" + STOP), "recalls 4294967294"),
    "laughing": (with_pickle(laughing_pickle()), "disorder|holds a tuple"),
    "holds-itself": (with_pickle(self_holding_pickle()), "'w' holds a dict of 1, no tensor"),
    "deep": (with_pickle(START + b"(" * 300_000 + STOP), "in disorder"),
    "deep-tuples": (with_pickle(START + b")" + b"\x85" * 300_000 + STOP), "holds a tuple of 1"),
    "endless": (with_pickle(START + b"N" * 2_100_000), "has more than 2000000 opcodes"),
    "mark-missing": (with_pickle(START + b"t" + STOP), "a mark that it has not set"),
    "stack-empty": (with_pickle(START + b"s" + STOP), "more from its stack"),
    "pickle-cut": (with_pickle(state_dict(SOUND)[:-2]), "cut short"),
    "text-cut": (with_pickle(START + b"X\xff\xff\xff\xff"), "cut short"),
    "text-no-utf8": (with_pickle(START + b"X\x01\x00\x00\x00\xff"), "no UTF-8"),
    "tuple-as-key": (with_pickle(START + b"})Ns" + STOP), "a key is a tuple of 0"),
    "key-twice": (with_pickle(START + b"}" + (text("w") + b"Ns") * 2 + STOP), "stands twice"),
    "tensor-alone": (with_pickle(START + SOUND["w"] + STOP), "holds a tensor, and no state dict"),
    "training-checkpoint": (with_pickle(START + b"}" + text("epoch") + number(3) + b"s" + STOP), "training checkpoint"),
    "name-in-two-lines": (with_pickle(state_dict({"w\nx": SOUND["w"]})), r"'w\\nx', a name that cannot be printed"),
    "training-loss": (
        with_pickle(START + b"}" + text("loss") + b"G" + struct.pack(">d", 2.5) + b"s" + STOP),
        "'loss' holds the number 2.5, no tensor",
    ),
    "number-as-name": (with_pickle(START + b"}" + number(3) + SOUND["w"] + b"s" + STOP), "and no name"),
    "storage-missing": (with_tensor(tensor("7", "FloatStorage", 6, [6])), "'data/7', is missing"),
    "storage-key-path": (with_tensor(tensor("../../etc/passwd", "FloatStorage", 6, [6])), "is missing"),
    "storage-small": (with_tensor(tensor("0", "FloatStorage", 7, [7])), "has 24 bytes; 7 of type F32 take 28"),
    "storage-unknown": (with_tensor(tensor("0", "ComplexFloatStorage", 3, [3])), "ComplexFloatStorage"),
    "shape-behind": (with_tensor(tensor("0", "FloatStorage", 6, [7])), "ends at 7, its storage at 6"),
    "offset-tensor-behind": (with_tensor(tensor("0", "FloatStorage", 6, [3], offset=4)), "ends at 7, its storage at 6"),
    "shape-overflow": (with_tensor(tensor("0", "FloatStorage", 6, [2**48] * 8)), "its storage at 6"),
    "shape-huge": (with_tensor(tensor("0", "FloatStorage", 6, [2**60])), "possible"),
    "shape-negative": (with_tensor(tensor("0", "FloatStorage", 6, [-1])), "shape or stride is -1"),
    "shape-long": (with_tensor(tensor("0", "FloatStorage", 6, [1] * 9)), "9 dimensions"),
    "strides-negative": (with_tensor(tensor("0", "FloatStorage", 6, [6], strides=[-1])), "shape or stride is -1"),
    "strides-missing": (with_tensor(tensor("0", "FloatStorage", 6, [2, 3], strides=[3])), "1 strides"),
    "transposed": (with_tensor(tensor("0", "FloatStorage", 6, [3, 2], strides=[1, 3])), r"view.*contiguous\(\)"),
    "expanded": (with_tensor(tensor("0", "FloatStorage", 6, [1000, 6], strides=[0, 1])), "its storage at 6"),
    "flag-as-size": (with_tensor(named("torch._utils", "_rebuild_tensor_v2") + tuple_of(
        tuple_of(text("storage"), named("torch", "FloatStorage"), text("0"), text("cpu"), number(6)) + b"Q",
        b"\x88", numbers([1]), numbers([1])) + b"R"), "stride is True"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(case, tmp_path):
    """Each with its own words, and nothing that it asks for has been done."""
    content, promised = HOSTILE[case]
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=promised) as refused:
        PytorchFile(path)

    assert str(refused.value).startswith(str(path))
    assert len(str(refused.value)) < 600
    assert not Path("/tmp/edgebit-was-here").exists()


def test_the_sound_file_of_the_table_is_read(tmp_path):
    """So each refusal is due to what its file changes."""
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(with_pickle(state_dict(SOUND)))
    file = PytorchFile(path)
    assert np.array_equal(file.read("w"), np.arange(6, dtype=np.float32).reshape(2, 3))
    file.close()


def test_a_damaged_pickle_is_found_by_its_sum(tmp_path):
    """One bit in data.pkl."""
    content = bytearray(with_pickle(state_dict(SOUND)))
    content[content.index(b"FloatStorage")] ^= 32
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the sum of data\.pkl is wrong"):
        PytorchFile(path)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", ["bitnet-packed", "bitnet-bf16", "llama-bitlinear-packed"])
def test_the_same_weights_make_the_same_model(shards, name, reference_checkpoint, tmp_path):
    """A reference checkpoint moved from safetensors to PyTorch files: every section is the same but for the origin."""
    folder = tmp_path / name
    folder.mkdir()
    source = reference_checkpoint(name)
    for path in source.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    with SafetensorsFile(source / "model.safetensors") as file:
        tensors = {key: (info.dtype, info.shape, file.read(key)) for key, info in file.tensors.items()}
    if shards == 1:
        write_bin(folder / "pytorch_model.bin", tensors, parameter=True)
    else:
        write_shards(folder, tensors, shards)
    convert(source, tmp_path / "from-safetensors.ebm", probes=False)
    convert(folder, tmp_path / "from-pytorch.ebm", probes=False)
    with ModelFile(tmp_path / "from-safetensors.ebm") as one, ModelFile(tmp_path / "from-pytorch.ebm") as other:
        assert one.conf == other.conf
        assert one.sections["DATA"].crc == other.sections["DATA"].crc
        assert one.content("TOKN") == other.content("TOKN")
        assert other.meta["source"]["format"] == "pytorch"


def write_shards(folder: Path, tensors: dict, shards: int) -> None:
    names, weight_map = sorted(tensors), {}
    for shard in range(shards):
        part = {name: tensors[name] for name in names[shard::shards]}
        file_name = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
        write_bin(folder / file_name, part, parameter=False)
        weight_map |= dict.fromkeys(part, file_name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_safetensors_come_first(reference_checkpoint, tmp_path):
    """Where a folder has both, the PyTorch file is not even opened."""
    for path in reference_checkpoint("bitnet-packed").glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"no archive")
    convert(tmp_path, tmp_path / "model.ebm", probes=False)


@pytest.mark.reference
def test_files_that_torch_writes_are_read(tmp_path):
    """Parameters, buffers, slices, shared and empty storages, every type, modules' own state dicts, both protocols."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    whole = torch.arange(24).reshape(4, 6)
    wanted = {
        "f32": torch.nn.Parameter(torch.randn(5, 3)), "f16": torch.randn(7).half(), "bf16": torch.randn(2).bfloat16(),
        "u8": whole.to(torch.uint8), "i8": (whole - 12).to(torch.int8), "rows": whole.to(torch.float32)[1:3],
        "empty": torch.zeros(0, 4), "scalar": torch.tensor(1.5), "column": torch.randn(4, 1).t().t(),
    }  # fmt: skip
    wanted["tied"] = wanted["f32"]
    cases = {
        "plain": (wanted, {}),
        "ordered": (collections.OrderedDict(wanted), {"pickle_protocol": 4}),
        "module": (torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5)).state_dict(), {}),
    }
    for name, (tensors, options) in cases.items():
        path = tmp_path / f"{name}.bin"
        torch.save(tensors, path, **options)
        file = PytorchFile(path)
        assert file.tensors.keys() == tensors.keys()
        for key, value in tensors.items():
            expected = value.detach()
            found = file.read(key)
            if value.dtype == torch.bfloat16:
                expected = expected.view(torch.int16)
                found = found.view(np.int16)
            assert np.array_equal(found, expected.numpy()), f"{name}: {key}"
        file.close()


@pytest.mark.reference
@pytest.mark.parametrize("case", ["old", "transposed", "whole-model"])
def test_what_torch_writes_otherwise_is_refused(case, tmp_path):
    """With the command that writes it anew, which is then run and makes a file that is read (but for a whole model)."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "pytorch_model.bin"
    if case == "old":
        torch.save({"w": torch.randn(2, 3)}, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"w": torch.randn(2, 3).t()} if case == "transposed" else torch.nn.Linear(2, 3), path)
    with pytest.raises(CheckpointError) as refused:
        PytorchFile(path)
    assert "save it anew" in str(refused.value)
    if case != "whole-model":
        program = str(refused.value).split('python -c "')[1].rstrip('"')
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
        assert PytorchFile(path).tensors.keys() == {"w"}
