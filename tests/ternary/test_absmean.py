"""absmean and absmax round as the reference does, and refuse what is no number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgebit.errors import CheckpointError
from edgebit.ternary.absmean import (
    absmax_int8,
    absmean,
    absmean_factor,
    borderline_codes,
    row_int8,
    ternary_codes,
)

floats = st.floats(-8, 8, width=32)
matrices = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=floats)


@given(matrices)
def test_codes_are_the_rounded_quotient(weights):
    """code = clamp(round(w / mean|w|)), ties to even, as computed here in float64 away from the ties."""
    codes, scale = absmean(weights)
    mean = max(float(np.abs(weights.astype(np.float64)).mean()), 1e-5)
    quotient = weights.astype(np.float64) / mean
    clear = np.abs(np.abs(quotient) - 0.5) > 1e-5
    assert np.array_equal(codes[clear], np.clip(np.rint(quotient), -1, 1)[clear])
    assert abs(scale - mean) <= 1e-6 * mean


def test_a_tie_goes_to_zero():
    """Half to even: 0.5 and -0.5 of the mean become 0, as torch.round does."""
    weights = np.array([[1.0, 1.0, 0.5, -0.5, 2.0, -1.0]], np.float32)
    codes, scale = absmean(weights)
    assert scale == 1.0
    assert codes.tolist() == [[1, 1, 0, 0, 1, -1]]


def test_weights_of_zero_get_the_smallest_scale():
    """transformers clamps mean|W| to 1e-5, so nothing is divided by zero."""
    codes, scale = absmean(np.zeros((2, 3), np.float32))
    assert not codes.any()
    assert scale == pytest.approx(1e-5)


def test_dead_channels_of_1e_34_become_zero():
    """Published masters hold whole channels of them; they must not disturb the rest."""
    weights = np.full((4, 4), 1e-34, np.float32)
    weights[0] = 2.0
    assert absmean(weights)[0].tolist() == [[1] * 4, [0] * 4, [0] * 4, [0] * 4]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_is_refused_where_it_stands(value):
    """Row and column, counted over all chunks."""
    weights = np.ones((6, 5), np.float32)
    weights[4, 2] = value
    with pytest.raises(CheckpointError, match=f"holds {value} at row 4, column 2"):
        absmean_factor(iter([weights[:3], weights[3:]]))


def test_the_mean_does_not_depend_on_the_chunks():
    """Summed in float64 and rounded once: 3 rows at a time or all at once."""
    weights = np.random.default_rng(3).standard_normal((999, 64)).astype(np.float32)
    whole = absmean_factor(iter([weights]))
    assert all(absmean_factor(iter(np.array_split(weights, parts))) == whole for parts in (2, 7, 333))


def test_codes_on_the_border_are_counted():
    """A weight of exactly half the mean turns with the last place of the factor; others do not."""
    weights = np.array([[0.5, 1.0, 3.0]], np.float32)
    assert borderline_codes(weights, np.float32(1.0)) == 1
    assert borderline_codes(weights * np.float32(1.01), np.float32(1.0)) == 0
    assert ternary_codes(weights, np.float32(1.0)).tolist() == [[0, 1, 1]]


@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.floats(-1e4, 1e4, width=32)))
def test_absmax_keeps_the_largest_at_127(x):
    """The largest of each token becomes 127 or -127, and the others keep within half a step."""
    codes, factor = absmax_int8(x)
    most = np.abs(x).max(axis=1)
    assert (np.abs(codes.astype(int)).max(axis=1)[most > 1e-5] == 127).all()
    assert (np.abs(codes / factor - x) <= 0.5001 / factor + 1e-6 * most[:, None]).all()


@given(matrices)
def test_row_int8_keeps_within_half_a_step(rows):
    """Codes -127 to 127; a row of zeros is zeros, whatever its scale."""
    codes, scale = row_int8(rows)
    assert codes.min() >= -127
    assert (scale > 0).all()
    assert (np.abs(codes * scale[:, None] - rows) <= 0.5001 * scale[:, None]).all()
