"""ggml's layouts are read back to the weights that another route wrote, and to what the gguf package reads."""

import numpy as np
import pytest
from gguf_files import TYPES, pack, pack_i2_s

from edgebit.ternary.ggml import blocks, floats
from edgebit.ternary.ggml.i2_s import i2_s_codes, why_not

LAYOUTS = {
    "TQ1_0": blocks.TQ1_0, "TQ2_0": blocks.TQ2_0, "Q2_0_64": blocks.Q2_0_64, "Q2_0_128": blocks.Q2_0_128,
    "Q4_0": blocks.Q4_0, "Q1_0": blocks.Q1_0, "IQ1_BN": blocks.IQ1_BN, "IQ2_BN": blocks.IQ2_BN,
}  # fmt: skip


def random_weights(rows: int, columns: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, (rows, columns)).astype(np.int8)


def raw_rows(packed: bytes, rows: int) -> np.ndarray:
    return np.frombuffer(packed, np.uint8).reshape(rows, -1)


@pytest.mark.parametrize("name", TYPES)
def test_codes_and_scales_are_read_back(name):
    """Of every type, with other scales in each block (in each row, where a row has one)."""
    layout, weights = LAYOUTS[name], random_weights(5, 768)
    if name == "Q1_0":
        weights[weights == 0] = 1
    n_scales = 1 if TYPES[name].row_scale else 768 // layout.block
    scales = np.random.default_rng(1).uniform(0.1, 3, (5, n_scales)).astype(np.float16).astype(np.float32)

    rows = raw_rows(pack(name, weights, scales if n_scales > 1 else scales[:, 0]), 5)

    assert layout.row_bytes(768) == rows.shape[1]
    assert np.array_equal(layout.codes(rows), (weights + 1).astype(np.uint8))
    assert np.array_equal(layout.scales(rows), scales)


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
def test_the_gguf_package_packs_the_same_bytes(name):
    """Its own quantiser, on weights that are ternary already."""
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    weights = random_weights(4, 1024)

    packed = gguf.quants.quantize((weights * np.float32(0.625)), gguf.GGMLQuantizationType[name])

    assert packed.tobytes() == pack(name, weights, 0.625)
    assert np.array_equal(LAYOUTS[name].codes(packed), (weights + 1).astype(np.uint8))
    assert (LAYOUTS[name].scales(packed) == 0.625).all()


def test_a_byte_that_no_quantiser_makes_is_no_code():
    """243 of 256 bytes hold five trits; the last four bytes of TQ1_0, and of IQ1_BN, hold four."""
    made = {-(-number * 256 // 243) for number in range(243)}
    for byte in range(256):
        raw = np.frombuffer(pack("TQ1_0", random_weights(1, 256), 1.0), np.uint8).copy().reshape(1, -1)
        raw[0, 7] = byte
        assert ((blocks.TQ1_0.codes(raw) == 3).any()) == (byte not in made)
        raw[0, 7], raw[0, 50] = 0, byte
        four = {-(-number * 3 * 256 // 243) for number in range(81)}
        assert ((blocks.TQ1_0.codes(raw) == 3).any()) == (byte not in four)
        row = np.frombuffer(pack("IQ1_BN", random_weights(1, 64), 1.0), np.uint8).copy().reshape(1, -1)
        row[0, 2 + 12] = byte
        assert ((blocks.IQ1_BN.codes(row) == 3).any()) == (byte not in {-(-n * 256 // 243) for n in range(81)})


@pytest.mark.parametrize("dialect", ["x86", "arm", "rows4"])
def test_i2_s_is_read_back_in_each_dialect(dialect):
    weights = random_weights(8, 384)

    packed = np.frombuffer(pack_i2_s(dialect, weights, 1.5), np.uint8)

    assert np.array_equal(i2_s_codes(packed[:-32], 384, dialect), (weights + 1).astype(np.uint8))
    others = [other for other in ("x86", "arm", "rows4") if other != dialect]
    assert not any(np.array_equal(i2_s_codes(packed[:-32], 384, other), weights + 1) for other in others)


def test_a_shape_may_rule_a_dialect_of_i2_s_out():
    assert why_not("x86", 7, 192) == "192 columns are no multiple of 128"
    assert why_not("arm", 7, 192) is None and why_not("arm", 7, 96) == "96 columns are no multiple of 64"
    assert why_not("rows4", 8, 5) is None and why_not("rows4", 7, 128) == "7 rows are no multiple of 4"


@pytest.mark.parametrize(("layout", "dtype"), [(floats.F32, "<f4"), (floats.F16, "<f2")])
def test_floats_that_are_ternary_are_codes_and_a_scale_a_row(layout, dtype):
    weights, scales = random_weights(6, 40), np.array([0.5, 1, 2, 0.75, 3, 0.25], dtype)
    weights[2] = 0

    rows = (weights * scales[:, None]).astype(dtype).view(np.uint8)

    assert np.array_equal(layout.codes(rows), (weights + 1).astype(np.uint8))
    assert layout.scales(rows)[:, 0].tolist() == [0.5, 1, 0, 0.75, 3, 0.25]


def test_floats_that_are_not_ternary_are_no_codes():
    """Another magnitude in a row, in bf16."""
    values = np.array([[1, -1, 0, 0.5]], np.float32)

    rows = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)

    assert floats.BF16.codes(rows).tolist() == [[2, 0, 1, 3]]
