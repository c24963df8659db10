"""A GGUF file that is damaged, or made to do harm, is refused with words of its own before anything is allocated."""

import itertools
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import pytest
from gguf_files import F16, F32, I2_S, File, Row, floats, pack, pack_i2_s, text, value

from edgebit.bundle.model_format import PROJECTIONS, Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.gguf_file.container import GgufFile
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.errors import CheckpointError

SIZES = {
    "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
WEIGHTS = np.random.default_rng(0).integers(-1, 2, (256, 256)).astype(np.int8)
TQ2_0 = Row(35, (256, 256), pack("TQ2_0", WEIGHTS, 1.0))
Q4_0 = pack("Q4_0", WEIGHTS, np.arange(1.0, 2049.0).reshape(256, 8))
I2S_ROW = Row(I2_S, (256, 256), pack_i2_s("x86", WEIGHTS, 1.0))
NORM = floats(np.ones(256, np.float32))
Q = "blk.0.attn_q.weight"


def sound(architecture: str = "bitnet") -> File:
    """A model of one layer that is read."""
    file = File(fields=gguf_files.keys(architecture, SIZES))
    file.tensors = {"token_embd.weight": floats(np.ones((8, 256), np.float32)), "output_norm.weight": NORM}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        file.tensors[f"blk.0.{name}.weight"] = TQ2_0
    for name in ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm"):
        file.tensors[f"blk.0.{name}.weight"] = NORM
    return file


def read_all(path: Path, hints: Hints = NO_HINTS) -> None:
    """Open a model and read all there is."""
    checkpoint: Checkpoint = open_checkpoint(path, hints)
    try:
        for role, layer in checkpoint.config.conf.roles():
            if role in PROJECTIONS:
                checkpoint.scaling(role, layer)
                checkpoint.projection(role, layer)
            elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
                for _ in checkpoint.rows(role):
                    pass
            elif role != Role.ROPE_INV_FREQ:
                checkpoint.vector(role, layer)
    finally:
        checkpoint.close()


def changed(**changes: Any) -> Callable[[], bytes]:
    """The sound file with other pieces."""

    def build() -> bytes:
        file = sound()
        for name, new in changes.items():
            setattr(file, name, new)
        return file.build()

    return build


def keyed(key: str, new: Any) -> Callable[[], bytes]:
    """The sound file with another value of a key; None: without it."""

    def build() -> bytes:
        file = sound()
        if new is None:
            del file.fields[key]
        else:
            file.fields[key] = new
        return file.build()

    return build


def tensor(name: str, row: Row | None) -> Callable[[], bytes]:
    """The sound file with another tensor; None: without it."""

    def build() -> bytes:
        file = sound()
        if row is None:
            del file.tensors[name]
        else:
            file.tensors[name] = row
        return file.build()

    return build


def spoiled(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return struct.pack("<IIQ", 9, kind, count) + items


def more(key: bytes, raw: bytes) -> Callable[[], bytes]:
    return changed(more_fields=text(key) + raw, n_more=1)


NAN, HUGE = float("nan"), 2**60
F16_NAN, F32_NAN = struct.pack("<e", NAN), struct.pack("<f", NAN)
F16_INFINITY, EYE = struct.pack("<e", float("inf")), np.eye(256)
BIG = np.full((8, 256), np.inf)
NO_CODE = "holds code 3, which is no ternary weight,"


def q(type_id: int, data: bytes) -> Callable[[], bytes]:
    """The sound file with the first projection in another type."""
    return tensor(Q, Row(type_id, (256, 256), data))


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    # header
    "empty": (lambda: b"", "the header ends at byte 4, the file has 0"),
    "no magic": (changed(magic=b"GGML"), "begins with b'GGML'"),
    "header cut": (lambda: sound().build()[:15], "the header ends at byte 16, the file has 15"),
    "version 1": (changed(version=struct.pack("<I", 1)), "GGUF version 1; known are 2 and 3"),
    "big-endian": (changed(version=struct.pack(">I", 3)), "for big-endian machines"),
    "huge count of keys": (changed(n_fields=HUGE), f"has {HUGE} keys; 65536 are the limit"),
    "huge count of tensors": (changed(n_tensors=HUGE), f"has {HUGE} tensors; 65536 are the limit"),
    "one key too many": (changed(n_fields=99), "key 11 has"),
    "no tensors": (lambda: File(fields=sound().fields).build(), "a vocabulary alone is no model"),
    # keys
    "key twice": (more(b"general.name", value("x")), "key 'general.name' stands twice"),
    "key of unknown type": (more(b"k", struct.pack("<I", 13)), "key 'k' is of type 13"),
    "key too long": (more(b"k" * 70000, value(1)), "key 10 has 70000 bytes; 65535 are the limit"),
    "key no UTF-8": (more(b"\xff\xfe", value(1)), "key 10 is no UTF-8: invalid start byte at its byte 0"),
    "text past the end": (more(b"k", struct.pack("<IQ", 8, 1 << 20)), "a copy cut short"),
    "string bomb": (more(b"k", struct.pack("<IQ", 8, HUGE)), f"key 'k' has {HUGE} bytes; 16777216 are the limit"),
    "array bomb": (more(b"k", array(6, HUGE)), f"key 'k' has {HUGE} items"),
    "array of texts bomb": (more(b"k", array(8, 1 << 24)), "key 'k' ends at byte"),
    "array past the end": (more(b"k", array(12, 1 << 20)), "key 'k' ends at byte"),
    "array in an array": (more(b"k", array(9, 1, array(9, 1)[4:])), "key 'k' is an array of arrays"),
    "array of unknown type": (more(b"k", array(77, 1)), "key 'k' is an array of type 77"),
    "boolean 2": (more(b"k", struct.pack("<IB", 7, 2)), "key 'k' is 2, and no truth value"),
    "item no UTF-8": (more(b"k", array(8, 2, text("a") + text(b"\x80"))), "key 'k', item 1 is no UTF-8"),
    "alignment 3": (keyed("general.alignment", 3), "general.alignment is 3; a power of two"),
    "alignment text": (keyed("general.alignment", "32"), "general.alignment is '32'"),
    # tensor table
    "tensor twice": (tensor("blk.0.x", Row(0, (8,), bytes(32), name=Q.encode())), f"tensor {Q} stands twice"),
    "tensor with 5 dimensions": (tensor("x", Row(0, (1,) * 5, bytes(32))), "tensor 'x' has 5 dimensions"),
    "tensor without dimensions": (tensor("x", Row(0, (), bytes(32))), "tensor 'x' has 0 dimensions"),
    "size 0": (tensor("x", Row(0, (0, 4), bytes(32))), "tensor 'x' has shape [0, 4]"),
    "shape overflow": (tensor("x", Row(0, (2**40, 2**40), bytes(32))), "less than 2^48"),
    "name too long": (tensor("x", Row(0, (8,), bytes(32), name=b"x" * 300)), "has 300 bytes; 256 are the limit"),
    "name in two lines": (
        tensor("a\nb", Row(0, (8,), bytes(32))), "tensor 'a\\nb' has a name that cannot be printed"
    ),
    "offset not aligned": (tensor(Q, Row(35, (256, 256), TQ2_0.data, offset=4)), "no multiple of 32"),
    "offset past the end": (tensor(Q, Row(35, (256, 256), TQ2_0.data, offset=2**40)), "a copy cut short"),
    "two at one place": (tensor(Q, Row(35, (256, 256), TQ2_0.data, offset=0)), "where another one begins too"),
    "overlap": (tensor(Q, Row(35, (256, 256), TQ2_0.data, offset=64)), "tensors that overlap"),
    "hole at the start": (
        lambda: File(fields=sound().fields, tensors={"x": Row(0, (8,), bytes(64), offset=32)}).build(),
        "leaves a hole of 32 bytes",
    ),
    "file cut": (lambda: sound().build()[:-2000], "a copy cut short"),
    "bytes after the end": (lambda: sound().build() + bytes(500), "does not know by the number 0"),
    "unknown type": (q(99, TQ2_0.data), "is of type 99"),
    "wrong size": (q(34, TQ2_0.data), "TQ1_0 would take 13824 bytes: a damaged table"),
    "half a block": (tensor(Q, Row(35, (128, 128), TQ2_0.data)), "TQ2_0 has rows of whole blocks of 256"),
    # types that are not read
    "TL1": (q(38, bytes(256 * 64 + 32)), "is TL1: it is packed for the tables of one build"),
    "TL2": (q(39, bytes(13664)), "is TL2: it is packed for the tables of one build"),
    "MXFP4": (q(39, bytes(256 * 256 // 32 * 17)), "is of type MXFP4, which holds 4-bit floats"),
    "STQ1_0": (q(42, bytes(256 * 42)), "is of type STQ1_0, which takes a codebook"),
    "PTQ1_0": (q(143, bytes(512 * 28)), "is of type PTQ1_0, which goes with rotated"),
    "PQ2_0": (q(142, bytes(512 * 34)), "is of type PQ2_0, which is described nowhere"),
    "IQ2_BN_R4": (q(335, bytes(256 * 68)), "is IQ2_BN_R4, repacked for one engine"),
    "Q4_K weights": (q(12, bytes(256 * 144)), "is of type Q4_K, whose weights are not ternary"),
    "Q4_0 weights": (q(2, bytes(256 * 144)), "is of type Q4_0 and not ternary: at row 0, column 0"),
    "scales of 32 weights": (q(2, Q4_0), "has a scale of its own for 32 columns; multiples of 64"),
    "Q8_0 norm": (tensor("blk.0.attn_norm.weight", Row(8, (256,), bytes(272))), "F32, F16 or BF16 are known"),
    "I2_S embedding": (tensor("token_embd.weight", Row(I2_S, (8, 256), bytes(544))), "which an embedding or a head"),
    # what the model is
    "unknown architecture": (keyed("general.architecture", "mamba"), "is 'mamba'; known are bitnet,"),
    "architecture a list": (keyed("general.architecture", [1, 2]), "general.architecture is array([1, 2]"),
    "split count a list": (keyed("split.count", [1, 1]), "split.count is array([1, 1]"),
    "no architecture": (keyed("general.architecture", None), "general.architecture is None"),
    "key missing": (keyed("bitnet.block_count", None), "bitnet.block_count is None"),
    "heads do not divide": (keyed("bitnet.attention.head_count", 3), "kv is 4, which does not divide head_count, 3"),
    "half a head": (keyed("bitnet.embedding_length", 254), "embedding_length is 254, no multiple of"),
    "odd head": (keyed("bitnet.attention.key_length", 63), "attention.key_length is 63: an even number is needed"),
    "feed-forward by layer": (keyed("bitnet.feed_forward_length", [256, 128]), "differs from layer to layer"),
    "epsilon not finite": (keyed("bitnet.attention.layer_norm_rms_epsilon", NAN), "rms_epsilon is nan"),
    "partial rotation": (keyed("bitnet.rope.dimension_count", 32), "rope.dimension_count is 32, a head has 64"),
    "LongRoPE": (
        keyed("bitnet.rope.scaling.type", "longrope"), "scaling.type is 'longrope'; none, linear and yarn are known"
    ),
    "GELU": (keyed("bitnet.hidden_activation", "gelu"), "hidden_activation is 'gelu'; known with architecture bitnet:"),
    "activations": (keyed("bitnet.hidden_activation", [1, 2]), "hidden_activation is array([1, 2]"),
    "a RoPE of numbers": (keyed("bitnet.rope.scaling.type", [1, 2]), "rope.scaling.type is array([1, 2]"),
    "a RoPE factor that is next to nothing": (
        keyed("bitnet.rope.scaling.factor", 1e-44), "RoPE turns a pair of elements by inf a position; 0 to 1"
    ),
    "an attention factor that is huge": (
        keyed("bitnet.rope.scaling.attn_factor", 1e9), "gives attention the factor 1000000000.0; 16.0 is the most"
    ),
    "experts": (keyed("bitnet.expert_count", 8), "bitnet.expert_count is 8, which edgebit does not compute"),
    "sliding window": (keyed("bitnet.attention.sliding_window", 32), "attention.sliding_window is 32"),
    "an embedding model": (keyed("bitnet.pooling_type", 3), "bitnet.pooling_type is 3"),
    "vocabulary of another size": (keyed("bitnet.vocab_size", 9), "vocab_size is 9, token_embd.weight has 8 rows"),
    "stop token outside": (keyed("tokenizer.ggml.eos_token_id", 8), "eos_token_id is 8; ids from 0 to 7"),
    "tensor missing": (tensor("blk.0.ffn_up.weight", None), "tensor blk.0.ffn_up.weight is missing"),
    "embedding missing": (tensor("token_embd.weight", None), "tensor token_embd.weight is missing"),
    "tensor of another model": (tensor("blk.0.attn_q.bias", NORM), "architecture bitnet has no such tensor"),
    "wrong shape": (tensor("blk.0.ffn_norm.weight", floats(np.ones(32))), "has shape [32]; the keys ask for [256]"),
    "rope factors 0": (tensor("rope_freqs.weight", floats(np.zeros(32))), "holds what is not above 0"),
    # values
    "code 3": (q(35, spoiled(TQ2_0.data, 66 + 5, b"\xff")), f"{Q} {NO_CODE} at row 1, column 5"),
    "code 3 of I2_S": (q(I2_S, spoiled(I2S_ROW.data, 64 + 3, b"\xc0")), f"{NO_CODE} at row 1, column 3"),
    "code +2": (q(42, spoiled(pack("Q2_0_128", WEIGHTS, 1.0), 2, b"\x0c")), f"{NO_CODE} at row 0, column 1"),
    "no five trits": (q(34, spoiled(pack("TQ1_0", WEIGHTS, 1.0), 54, b"\x01")), f"{NO_CODE} at row 1, column 0"),
    "NaN scale": (q(35, spoiled(TQ2_0.data, 64, F16_NAN)), f"{Q} has the scale nan at row 0, block 0"),
    "infinite scale": (q(35, spoiled(TQ2_0.data, 64 + 66 * 9, F16_INFINITY)), "the scale inf at row 9, block 0"),
    "scale below 0": (q(35, spoiled(TQ2_0.data, 65, b"\xbc")), "the scale -1.0 at row 0, block 0"),
    "NaN scale of I2_S": (q(I2_S, spoiled(I2S_ROW.data, 16384, F32_NAN)), "the scale nan at its end"),
    "NaN in a scale tensor": (tensor("blk.0.attn_q.scale", floats(np.array([NAN]))), "attn_q.scale holds nan at 0"),
    "NaN norm": (tensor("output_norm.weight", floats(np.where(EYE[7], NAN, 1))), "output_norm.weight holds nan at 7"),
    "infinite embedding": (tensor("token_embd.weight", floats(np.tril(BIG, -1))), "inf at row 1, column 0"),
    "Q4_0 of floats": (q(2, (b"\x00\xbc" + bytes(16)) * 8 * 256), "is of type Q4_0 and not ternary: in row 0, block 0"),
    "floats that are not ternary": (q(F16, floats(np.where(EYE, 0.5, WEIGHTS), F16).data), "and not ternary: at row 0"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")  # numpy's: a user would see them
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused(name, tmp_path):
    """The message names the file, and says the words of the table."""
    build, words = CASES[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(build())

    with pytest.raises(CheckpointError) as refused:
        read_all(path, Hints(i2s_dialect="x86"))

    assert words in str(refused.value) and str(path) in str(refused.value)


def test_the_sound_file_is_read(tmp_path):
    """So that what is refused above is refused for what was spoiled."""
    read_all(sound().write(tmp_path / "m.gguf"))


def test_every_refusal_says_something_else(tmp_path):
    """No two of them but those of one cause: a file cut in different places."""
    said = []
    for build, _ in CASES.values():
        path = tmp_path / "m.gguf"
        path.write_bytes(build())
        with pytest.raises(CheckpointError) as refused:
            read_all(path, Hints(i2s_dialect="x86"))
        said.append(str(refused.value))

    assert len(set(said)) == len(said)


def test_every_prefix_of_the_front_is_refused(tmp_path):
    """A copy cut anywhere before the tensors: never anything but a CheckpointError."""
    path = sound().write(tmp_path / "m.gguf")
    for end in reversed(range(len(sound().front()))):
        os.truncate(path, end)
        with pytest.raises(CheckpointError):
            GgufFile(path)


def test_no_spoiled_byte_of_the_front_is_anything_but_read_or_refused(tmp_path):
    """Every second byte of the front, set to another value: a CheckpointError, or a model."""
    path, front = sound().write(tmp_path / "m.gguf"), sound().front()
    outcomes = set()
    with path.open("r+b", buffering=0) as file:
        for at, new in zip(range(0, len(front), 2), itertools.cycle(b"\x00\x7f\xff"), strict=False):
            os.pwrite(file.fileno(), bytes([new]), at)
            try:
                open_checkpoint(path).close()
                outcomes.add("read")
            except CheckpointError:
                outcomes.add("refused")
            os.pwrite(file.fileno(), front[at : at + 1], at)
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("name", ["string bomb", "array bomb", "array of texts bomb", "huge count of tensors"])
def test_a_bomb_costs_no_memory(name, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(CASES[name][0]())
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_becomes_shorter_is_an_error(tmp_path):
    """While it is read: no SIGBUS, no garbage."""
    path = sound().write(tmp_path / "m.gguf")
    checkpoint = open_checkpoint(path)
    os.truncate(path, 20_000)

    with pytest.raises(CheckpointError, match="became shorter while it was read"):
        checkpoint.projection(Role.DOWN_PROJ, 0)


def test_all_kinds_of_values_are_read_as_the_gguf_package_wrote_them(tmp_path):
    """Numbers of every width, texts beyond ASCII, arrays of each."""
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    kinds = gguf.GGUFValueType
    written = {
        "a.u8": (255, kinds.UINT8), "a.i8": (-128, kinds.INT8), "a.u16": (65535, kinds.UINT16),
        "a.i16": (-32768, kinds.INT16), "a.u32": (2**32 - 1, kinds.UINT32), "a.i32": (-(2**31), kinds.INT32),
        "a.u64": (2**64 - 1, kinds.UINT64), "a.i64": (-(2**63), kinds.INT64), "a.f32": (0.5, kinds.FLOAT32),
        "a.f64": (1e300, kinds.FLOAT64), "a.yes": (True, kinds.BOOL), "a.text": ("Grüße 🦙", kinds.STRING),
    }  # fmt: skip
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "bitnet")
    writer.add_custom_alignment(64)
    for key, (of, kind) in written.items():
        writer.add_key_value(key, of, kind)
    arrays = {"b.texts": ["", "a", "ß"], "b.ints": [1, -2, 3], "b.floats": [0.5, 1.5], "b.bools": [True, False]}
    for key, items in arrays.items():
        writer.add_array(key, items)
    writer.add_tensor("x", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with GgufFile(tmp_path / "m.gguf") as file:
        assert {key: file.fields[key] for key in written} == {key: of for key, (of, _) in written.items()}
        assert {key: list(file.fields[key]) for key in arrays} == arrays
        assert file.alignment == 64
        found = file.tensors["x"]
        assert (found.shape, found.type_id, found.offset % 64) == ((3, 4), F32, 0)
        assert file.read(found, 4, 8).view("<f4").tolist() == [1, 2]
