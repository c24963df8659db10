"""Adapter files that are damaged, or lie about themselves: refused by the engine and by the Python reader, in words."""

import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgebit.adapters import low_rank_pair, stored_pair
from edgebit.bundle.adapter_format import AdapterFile, parse_adapter
from edgebit.bundle.model_format import Encoding, Role
from edgebit.checkpoint.hugging_face.peft_folder import LowRankPair
from edgebit.errors import BundleError
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from tests.kernels.conftest import CheckBuild
from tests.kernels.random_adapter import random_adapter
from tests.kernels.tiny_model import TinyModel, tiny_conf

CONF = tiny_conf()
ROLES = (Role.Q_PROJ, Role.DOWN_PROJ)
TABLE, PAIR = 128, 32
DATA = TABLE + 4 * PAIR  # of two layers with two pairs each

Damage = Callable[[bytearray], None]


def corrected(file: bytearray) -> bytes:
    """The file with its size and sums set right: damage goes on beneath them."""
    struct.pack_into("<Q", file, 16, len(file))
    struct.pack_into("<I", file, 120, zlib.crc32(file[128:]))
    struct.pack_into("<I", file, 124, zlib.crc32(file[:124]))
    return bytes(file)


def put(form: str, offset: int, *values: float | bytes) -> Damage:
    return lambda file: struct.pack_into("<" + form, file, offset, *values)


def _drop(count: int) -> Damage:
    def drop(file: bytearray) -> None:
        del file[len(file) - count :]

    return drop


def _swap_layers(file: bytearray) -> None:
    """Of q_proj, which are of one shape."""
    first, third = file[TABLE : TABLE + PAIR], file[TABLE + 2 * PAIR : TABLE + 3 * PAIR]
    file[TABLE : TABLE + PAIR], file[TABLE + 2 * PAIR : TABLE + 3 * PAIR] = third, first


# What is done to a file of f16 (i8 where the name says so), sums set right after it, and words of the engine's refusal.
HOSTILE: dict[str, tuple[Damage, str]] = {
    "another-magic": (put("B", 1, 0x46), "not an adapter file"),
    "of-the-future": (put("I", 8, 2), "version 2"),
    "reserved-header": (put("B", 100, 1), "reserved bytes of the header"),
    "no-name": (put("64s", 32, b""), "its name is not"),
    "a-name-with-a-slash": (put("64s", 32, b"../a"), "its name is not"),
    "a-name-after-a-zero": (put("64s", 32, b"a\0b"), "its name is not"),
    "another-base": (put("Q", 24, 1), "made for other weights"),
    "no-pairs": (put("I", 12, 0), "0 pairs"),
    "too-many-pairs": (put("I", 12, 15), "15 pairs"),
    "as-many-pairs-as-u32": (put("I", 12, 0xFFFFFFFF), "4294967295 pairs"),
    "fewer-pairs-than-values": (put("I", 12, 2), "not zeros follow"),
    "role-of-a-norm": (put("I", TABLE, 16), "role 16 of layer 0"),
    "role-of-the-head": (put("I", TABLE, 2), "role 2 of layer 0"),
    "layer-that-is-not-there": (put("I", TABLE + 4, 2), "role 17 of layer 2"),
    "layer-of-a-tensor-without": (put("I", TABLE + 4, 0xFFFFFFFF), "role 17 of layer 4294967295"),
    "one-twice": (put("II", TABLE + PAIR, 17, 0), "stands twice or out of order"),
    "out-of-order": (_swap_layers, "stands twice or out of order"),
    "encoding-f32": (put("I", TABLE + 8, 1), "encoding 1 is neither"),
    "rank-0": (put("I", TABLE + 12, 0), "rank 0"),
    "rank-1025": (put("I", TABLE + 12, 1025), "rank 1025"),
    "rank-u32": (put("I", TABLE + 12, 0xFFFFFFFF), "rank 4294967295"),
    "rank-beyond-the-file": (put("I", TABLE + 12 + 3 * PAIR, 1024), "go past the end"),
    "another-shape": (put("II", TABLE + 16, 71, 60), "it is for 60 x 71"),
    "shape-swapped": (put("II", TABLE + 16, 60, 70), "it is for 70 x 60"),
    "scale-nan": (put("f", TABLE + 24, float("nan")), "its scale is no finite number"),
    "scale-inf": (put("f", TABLE + 24, float("-inf")), "its scale is no finite number"),
    "reserved-pair": (put("I", TABLE + 28, 1), "its scale is no finite number"),
    "value-inf": (put("H", DATA, 0x7C00), "no finite number"),
    "value-nan": (put("H", DATA + 20, 0xFE01), "no finite number"),
    "value-in-the-last-part": (lambda file: put("H", len(file) - 192, 0x7FFF)(file), "no finite number"),
    "columns-filled-up-with-a-value": (put("H", DATA + 2 * 70, 0x3C00), "not filled up with zeros"),
    "columns-filled-up-in-the-last-row": (put("H", DATA + 2 * (3 * 80 - 1), 0x8000), "not filled up with zeros"),
    "rows-filled-up-with-a-value": (put("H", DATA + 512 + 2 * (3 * 48 + 12), 0x3C00), "not filled up with zeros"),
    "i8-columns-filled-up": (put("b", DATA + 80 + 79, 1), "not filled up with zeros"),
    "i8-rows-filled-up": (put("b", DATA + 320 + 3 * 48 + 2 * 16 + 15, 1), "not filled up with zeros"),
    "not-zeros-between": (lambda file: put("B", len(file) - 1, 1)(file), "not zeros follow"),
    "cut-by-a-line": (_drop(64), "go past the end"),
    "cut-by-a-byte": (_drop(1), "go past the end"),
    "only-a-header": (lambda file: _drop(len(file) - 128)(file), "table of 4 pairs"),
    "a-line-too-long": (lambda file: file.extend(bytes(64)), "64 bytes are left over"),
    "a-byte-too-long": (lambda file: file.extend(b"\0"), "1 bytes are left over"),
    "i8-code": (put("b", DATA, -128), "a code is -128"),
    "i8-scale-nan": (lambda file: put("f", DATA + _I8_SCALES, float("nan"))(file), "no finite number"),
    "i8-scale-of-b-inf": (lambda file: put("f", len(file) - 320, float("inf"))(file), "no finite number"),
}
RANK = 3
_I8_SCALES = -(-RANK * 80 // 64) * 64  # of A, behind its codes: 80 columns to 70
# These are about what only the engine looks at: the model, and the values.
ENGINE_ALONE = {
    "another-base", "layer-that-is-not-there", "layer-of-a-tensor-without", "another-shape", "shape-swapped",
    "columns-filled-up-with-a-value", "columns-filled-up-in-the-last-row", "rows-filled-up-with-a-value",
    "i8-columns-filled-up", "i8-rows-filled-up",
    "value-inf", "value-nan", "value-in-the-last-part", "i8-code", "i8-scale-nan", "i8-scale-of-b-inf",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(native):
    with Model.from_bytes(native, TinyModel(CONF).to_bytes()) as model:
        yield model


def sound(model: Model, encoding: Encoding = Encoding.F16) -> bytes:
    return random_adapter(model, CONF, roles=ROLES, rank=RANK, encoding=encoding).pack()


def damaged(model: Model, name: str) -> bytes:
    file = bytearray(sound(model, Encoding.I8 if name.startswith("i8") else Encoding.F16))
    HOSTILE[name][0](file)
    return corrected(file)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str, model: Model, native: Library):
    """By the engine, saying what is wrong; and by the Python reader, as far as it looks."""
    file = damaged(model, name)
    with pytest.raises(BundleError, match=HOSTILE[name][1]):
        Adapter.open(native, model, file)
    if name not in ENGINE_ALONE:
        with pytest.raises(BundleError):
            parse_adapter(file, "the file")


@pytest.mark.parametrize("encoding", [Encoding.F16, Encoding.I8], ids=lambda encoding: encoding.name)
def test_a_file_with_any_byte_changed_is_refused(encoding: Encoding, model: Model, native: Library):
    """Its sums see it, in both readers; and so they do a file cut anywhere."""
    file = sound(model, encoding)
    Adapter.open(native, model, file).close()
    for at in [*range(0, DATA, 3), *range(DATA, len(file), 97)]:
        changed = bytearray(file)
        changed[at] ^= 1 << at % 8
        for refused in (bytes(changed), file[:at]):
            with pytest.raises(BundleError):
                Adapter.open(native, model, refused)
            with pytest.raises(BundleError):
                parse_adapter(refused, "the file")


@pytest.mark.parametrize("encoding", [Encoding.F16, Encoding.I8], ids=lambda encoding: encoding.name)
@pytest.mark.parametrize(("rank", "columns", "rows"), [(1, 1, 1), (3, 70, 60), (16, 64, 32), (5, 17, 33)])
def test_matrices_come_back_as_they_were_rounded(rank: int, columns: int, rows: int, encoding: Encoding):
    """f16 to half a unit in its last place; int8 to half a step of its row; a row of zeros as zeros."""
    random = np.random.default_rng(rank)
    a, b = random.standard_normal((rank, columns)).astype("<f4"), random.standard_normal((rows, rank)).astype("<f4")
    a[0] = 0
    stored = stored_pair((0, Role.Q_PROJ), LowRankPair(a, b, 0.5), encoding)
    file = AdapterFile("a", 7, (stored,))
    (read,) = parse_adapter(file.pack(), "the file").pairs
    held = low_rank_pair(read)

    for wanted, got in ((a, held.a), (b, held.b)):
        steps = np.abs(wanted) * 2**-11 if encoding == Encoding.F16 else np.abs(wanted).max(1, keepdims=True) / 254
        assert (np.abs(wanted - got) <= steps * 1.001 + 1e-7).all()
    assert not held.a[0].any()
    assert held.scale == 0.5


@pytest.mark.slow
def test_hostile_adapters_are_refused_under_sanitizers(
    check_build: Callable[[str], CheckBuild], model: Model, tmp_path: Path
):
    """By the program's own words, and by no sanitizer's; the sound ones are run."""
    program = check_build("sanitized").folder / "edgebit-run"
    (tmp_path / "tiny.ebm").write_bytes(TinyModel(CONF).to_bytes())
    files = {name: damaged(model, name) for name in HOSTILE}
    files |= {f"sound-{encoding.name}": sound(model, encoding) for encoding in (Encoding.F16, Encoding.I8)}
    for name, content in files.items():
        (tmp_path / "x.adapter").write_bytes(content)
        done = subprocess.run(
            [str(program), "tiny.ebm", "--ids", "1,2,3", "-n", "2", "--ignore-stop", "--adapter", "x.adapter"],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == (0 if name.startswith("sound") else 3), f"{name}: {done.stderr}"
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, f"{name}:\n{done.stderr}"
