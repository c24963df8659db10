"""Ternary weights stored as floats are told from others, and split into codes and scales without loss."""

import numpy as np
import pytest

from edgebit.bundle import model_format
from edgebit.errors import CheckpointError
from edgebit.ternary.ternary_floats import GROUP_STEP, find_group, split_ternary


def test_groups_are_those_that_a_model_file_has():
    """The device's reader has no numpy, and this package no model files: each has the number."""
    assert GROUP_STEP == model_format.GROUP_STEP


def ternary_rows(rng: np.random.Generator, rows: int, columns: int, group: int, dtype: str = "f2") -> np.ndarray:
    """Codes times a scale of each group, in the stored type."""
    codes = rng.integers(-1, 2, (rows, columns // group, group))
    scales = rng.uniform(0.01, 3, (rows, columns // group, 1)).astype(dtype)
    return (codes * scales).astype(dtype).reshape(rows, columns).astype(np.float32)


def numbers_of(rows: np.ndarray) -> np.ndarray:
    return np.arange(len(rows))


@pytest.mark.parametrize(
    ("columns", "group"), [(384, 384), (768, 384), (512, 256), (512, 128), (640, 320), (384, 64), (100, 100)]
)
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_the_group_is_found_and_the_split_is_exact(columns, group, dtype):
    """The widest group that fits, and every value equal to its code times its scale, bit for bit."""
    rows = ternary_rows(np.random.default_rng(columns + group), 16, columns, group, dtype)
    assert find_group(rows, numbers_of(rows)) == group
    codes, scales = split_ternary(rows, group)
    assert set(np.unique(codes)) == {-1, 0, 1}
    assert scales.shape == (16, columns // group)
    again = (codes.reshape(16, -1, group) * scales[:, :, None]).reshape(16, columns)
    assert again.tobytes() == (rows + 0.0).tobytes()


def test_one_bit_weights_have_no_zeros():
    """-d and +d are ternary weights too."""
    rows = np.where(np.random.default_rng(1).random((8, 256)) < 0.5, -0.25, 0.25).astype(np.float32)
    assert find_group(rows, numbers_of(rows)) == 256
    codes, scales = split_ternary(rows, 256)
    assert (codes != 0).all() and (scales == 0.25).all()


def test_zeros_say_nothing_and_have_scale_zero():
    """A row or group of zeros goes with any scale of others."""
    rows = ternary_rows(np.random.default_rng(2), 8, 256, 128)
    rows[3] = 0
    rows[5, :128] = -0.0
    assert find_group(rows, numbers_of(rows)) == 128
    codes, scales = split_ternary(rows, 128)
    assert not codes[3].any() and not scales[3].any()
    assert not codes[5, :128].any() and scales[5, 0] == 0 < scales[5, 1]


def test_one_value_beside_its_scale_is_found():
    """A magnitude that differs in the last place of f16 is another magnitude; row and columns are named."""
    rows = ternary_rows(np.random.default_rng(3), 8, 128, 128)
    at = int(np.nonzero(rows[6])[0][-1])
    half = rows[6, at : at + 1].astype(np.float16)
    rows[6, at] = (half.view(np.uint16) ^ 1).view(np.float16)[0]
    with pytest.raises(CheckpointError, match="is not ternary: row 106 holds 2 different magnitudes"):
        find_group(rows, 100 + numbers_of(rows))
    with pytest.raises(
        CheckpointError, match="is not ternary: row 1006 holds 2 different magnitudes in the 128 columns"
    ):
        split_ternary(rows, 128, 1000)


def test_ordinary_floats_are_no_ternary_weights():
    """A float model's row has as many magnitudes as values."""
    rows = np.random.default_rng(4).standard_normal((8, 256)).astype(np.float32)
    with pytest.raises(CheckpointError, match=r"row 0 holds 256 different magnitudes, 64 of them in the 64 columns"):
        find_group(rows, numbers_of(rows))
