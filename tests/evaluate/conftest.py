"""The model that most of these tests evaluate."""

import pytest

from edgebit.runtime.model import Model


@pytest.fixture
def packed(native, reference_model):
    """tests/reference/bitnet-packed: 512 tokens, with a tokenizer."""
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model
