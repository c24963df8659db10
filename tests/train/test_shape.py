"""Sizes of a model, and what of them does not go together."""

from importlib.util import find_spec

import pytest

from edgebit.errors import TrainError
from edgebit.train.requirements import require_packages
from edgebit.train.shape import ModelShape


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"hidden_size": 100, "num_attention_heads": 6}, "a multiple of 12"),
        ({"num_attention_heads": 6, "num_key_value_heads": 4}, "a divisor"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"hidden_act": "gelu"}, "relu2, silu"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(sizes, said):
    """With the way out."""
    with pytest.raises(TrainError, match=said):
        ModelShape(**sizes)


@pytest.mark.parametrize("config", [{"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}}])
def test_a_config_of_either_transformers_is_read(config):
    """New ones have rope_theta in a table of its own."""
    assert ModelShape.from_config({"hidden_size": 96, **config}) == ModelShape(hidden_size=96, rope_theta=5e5)


@pytest.mark.parametrize(
    ("names", "remedy"),
    [(("json", "no_such_package"), "no_such_package"), (("json", "torch", "no_such_package"), "'edgebit[train]'")],
)
def test_missing_packages_are_said_with_the_command(names, remedy, monkeypatch):
    """That installs them: what is missing, or all where PyTorch is among it."""
    monkeypatch.setattr(
        "edgebit.train.requirements.find_spec", lambda name: find_spec(name) if name == "json" else None
    )
    with pytest.raises(TrainError, match=r"needs .*no_such_package.*pip install ") as refused:
        require_packages(names)
    assert str(refused.value).endswith(f"pip install {remedy}")
