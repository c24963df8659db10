"""The layouts are what docs/model-format.md says, there and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.bundle.model_format import Encoding, head_parts, values_size
from edgebit.errors import CheckpointError
from edgebit.ternary.layouts import pack_h8, pack_t1, pack_t2, unpack_h8, unpack_quarter_rows, unpack_t1, unpack_t2

shapes = st.tuples(st.integers(1, 9), st.integers(1, 900), st.integers(0, 2**32 - 1))


def weights_of(rows: int, columns: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, (rows, columns)).astype(np.int8)


def quarter_rows(weights: np.ndarray) -> np.ndarray:
    """transformers' packed form, written from its description: row i * rows / 4 + r in bits 2i+1:2i of stored row r."""
    rows, columns = weights.shape
    packed = np.zeros((rows // 4, columns), np.uint8)
    for row in range(rows):
        part, stored = divmod(row, rows // 4)
        packed[stored] |= (weights[row] + 1).astype(np.uint8) << np.uint8(2 * part)
    return packed


def test_a_tile_of_t2_is_laid_out_as_the_format_document_says():
    """Byte p of a row's 16 holds columns p, 16 + p, 32 + p, 48 + p from the lowest bits up; padding is code 1."""
    weights = np.zeros((2, 70), np.int8)
    weights[1, 3], weights[1, 16 + 3], weights[1, 32 + 3], weights[1, 48 + 3] = 1, -1, 1, -1
    weights[1, 64] = -1
    packed = pack_t2(weights)
    assert packed.size == 128 == values_size(Encoding.T2, 2, 70)
    assert packed[16 + 3] == 0b00_10_00_10
    assert packed[64 + 16] == 0b01_01_01_00
    assert set(np.delete(packed, [16 + 3, 64 + 16]).tolist()) == {0b01_01_01_01}


def test_a_block_of_t1_is_laid_out_as_the_format_document_says():
    """Index j of a row's byte p has columns 48 j + p, 48 j + 16 + p, 48 j + 32 + p; 5, 6 and 7 lie in the high bits."""
    weights = np.zeros((4, 384), np.int8)  # index 13 everywhere: 0b01101
    for j, index in ((0, 26), (2, 0), (5, 0b11001), (6, 0b00110), (7, 0b10110)):
        for trit in range(3):
            weights[2, 48 * j + 16 * trit + 9] = index // 3**trit % 3 - 1
    a, b, c, d, e = (int(pack_t1(weights)[64 * vector + 2 * 16 + 9]) for vector in range(5))
    assert (a & 31, b & 31, c & 31, d & 31, e & 31) == (26, 13, 0, 13, 13)
    assert (a >> 5, b >> 5, c >> 5) == (0b110, 0b001, 0b101)
    assert (d >> 6, e >> 6) == (0b01, 0b10)
    assert (d >> 5 & 1, e >> 5 & 1) == (1, 0)


@pytest.mark.parametrize(
    ("pack", "unpack", "encoding"), [(pack_t2, unpack_t2, Encoding.T2), (pack_t1, unpack_t1, Encoding.T1)]
)
@given(shape=shapes)
def test_pack_and_unpack_are_inverse(pack, unpack, encoding, shape):
    """At any size, also where rows and columns do not fill their tiles, and in as many bytes as the format says."""
    rows, columns, seed = shape
    weights = weights_of(rows, columns, seed)
    packed = pack(weights)
    assert packed.size == values_size(encoding, rows, columns)
    assert np.array_equal(unpack(packed, rows, columns), weights)


@given(shapes)
def test_planes_of_the_head_hold_its_codes(shape):
    """There and back; and the bounds are at least the lengths that they stand for."""
    rows, columns, seed = shape
    codes = np.random.default_rng(seed).integers(-127, 128, (rows, columns)).astype(np.int8)
    planes = pack_h8(codes)
    assert (planes.high.size, planes.middle.size, planes.low.size) == head_parts(rows, columns)[:3]
    assert np.array_equal(unpack_h8(planes, columns), codes)
    rest = (codes.astype(np.int64) + 128) % 16
    for bounds, vectors in ((planes.high_bounds, 2 * rest - 15), (planes.middle_bounds, 2 * (rest % 4) - 3)):
        lengths = np.sqrt((vectors**2).sum(axis=1))
        assert (bounds.astype(np.float64) ** 2 >= (vectors**2).sum(axis=1)).all()
        assert (bounds <= lengths * 1.000001).all()


def test_a_head_in_chunks_of_whole_tiles_is_the_same():
    """The high planes of chunks follow one another."""
    codes = np.random.default_rng(1).integers(-127, 128, (22, 300)).astype(np.int8)
    parts = [pack_h8(codes[first : first + 8]) for first in range(0, 22, 8)]
    assert np.array_equal(np.concatenate([part.high for part in parts]), pack_h8(codes).high)


@given(shapes)
def test_quarter_rows_become_their_weights(shape):
    """transformers' packed form, whole tensors."""
    rows, columns, seed = shape
    weights = weights_of(4 * rows, columns, seed)
    assert np.array_equal(unpack_quarter_rows(quarter_rows(weights)), weights)


@given(st.integers(1, 5), st.integers(1, 130), st.data())
def test_code_3_is_refused_where_it_stands(quarter, columns, data):
    """The message names the output row and the column."""
    row, column = data.draw(st.integers(0, 4 * quarter - 1)), data.draw(st.integers(0, columns - 1))
    packed = quarter_rows(weights_of(4 * quarter, columns, 1))
    part, stored = divmod(row, quarter)
    packed[stored, column] |= np.uint8(3 << (2 * part))
    with pytest.raises(CheckpointError, match=f"code 3, .* at row {row}, column {column}$"):
        unpack_quarter_rows(packed)


@pytest.mark.parametrize("pack", [pack_t2, pack_t1])
def test_other_weights_than_ternary_are_refused(pack):
    """2 would become code 3."""
    with pytest.raises(ValueError, match=r"-1, 0 and \+1"):
        pack(np.array([[0, 2]], np.int8))


@pytest.mark.parametrize(
    ("pack", "unpack", "at", "value", "words"),
    [
        (pack_t2, unpack_t2, 0, 0b11, "no code 3"),
        (pack_t2, unpack_t2, 64 + 15, 0, "padding"),
        (pack_t2, unpack_t2, 16, 0, "padding"),
        (pack_t1, unpack_t1, 0, 27, "no index above 26"),
        (pack_t1, unpack_t1, 320, 0b11, "no code 3"),
        (pack_t1, unpack_t1, 16, 0, "padding"),
    ],
)
def test_damage_is_refused(pack, unpack, at, value, words):
    """Codes and indices that stand for no weights, and padding of columns or rows that is not zero weights."""
    packed = pack(np.zeros((1, 454), np.int8))
    packed[at if "padding" not in words or at == 16 else packed.size - 64 + 15] = value
    with pytest.raises(ValueError, match=words):
        unpack(packed, 1, 454)
