"""Layout t2 is what docs/model-format.md says, there and back, from either source."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.errors import CheckpointError
from edgebit.ternary.layouts import pack_t2, t2_from_quarter_rows, t2_row_bytes, unpack_quarter_rows, unpack_t2

shapes = st.tuples(st.integers(1, 9), st.integers(1, 200), st.integers(0, 2**32 - 1))


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


def test_a_block_is_laid_out_as_the_format_document_says():
    """Byte p holds weight p in bits 1:0, 16 + p in 3:2, 32 + p in 5:4, 48 + p in 7:6; padding is code 1."""
    weights = np.zeros((1, 70), np.int8)
    weights[0, 3], weights[0, 16 + 3], weights[0, 32 + 3], weights[0, 48 + 3] = 1, -1, 1, -1
    weights[0, 64] = -1
    packed = pack_t2(weights)
    assert packed.shape == (1, 32) == (1, t2_row_bytes(70))
    assert packed[0, 3] == 0b00_10_00_10
    assert packed[0, 16] == 0b01_01_01_00
    assert set(packed[0, [0, 1, 2, 4, 15, 17, 31]].tolist()) == {0b01_01_01_01}


@given(shapes)
def test_pack_and_unpack_are_inverse(shape):
    """At any size, also where a row is no multiple of 64."""
    rows, columns, seed = shape
    weights = weights_of(rows, columns, seed)
    assert np.array_equal(unpack_t2(pack_t2(weights), columns), weights)


@given(shapes)
def test_quarter_rows_become_the_same_t2_bytes_as_their_weights(shape):
    """The transposition on packed bytes is the long way round, byte for byte."""
    rows, columns, seed = shape
    weights = weights_of(4 * rows, columns, seed)
    packed = quarter_rows(weights)
    assert np.array_equal(unpack_quarter_rows(packed), weights)
    assert np.array_equal(t2_from_quarter_rows(packed), pack_t2(weights))


@given(st.integers(1, 5), st.integers(1, 130), st.data())
def test_code_3_is_refused_where_it_stands(quarter, columns, data):
    """The message names the output row and the column."""
    row, column = data.draw(st.integers(0, 4 * quarter - 1)), data.draw(st.integers(0, columns - 1))
    packed = quarter_rows(weights_of(4 * quarter, columns, 1))
    part, stored = divmod(row, quarter)
    packed[stored, column] |= np.uint8(3 << (2 * part))
    with pytest.raises(CheckpointError, match=f"code 3, .* at row {row}, column {column}$"):
        t2_from_quarter_rows(packed)


def test_other_weights_than_ternary_are_refused():
    """2 would become code 3."""
    with pytest.raises(ValueError, match=r"-1, 0 and \+1"):
        pack_t2(np.array([[0, 2]], np.int8))


@pytest.mark.parametrize(("at", "value", "words"), [(0, 0b11, "no code 3"), (31, 0, "padding")])
def test_damaged_t2_is_refused(at, value, words):
    """Code 3, and padding that is not zero weights."""
    packed = pack_t2(np.zeros((1, 70), np.int8))
    packed[0, at] = value
    with pytest.raises(ValueError, match=words):
        unpack_t2(packed, 70)
