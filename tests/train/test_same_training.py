"""What differs from the training that is gone on from is said as its options are typed."""

import pytest

from edgebit.cli import distill, train
from edgebit.errors import TrainError
from edgebit.train.same_training import OPTIONS, check_same

BEGUN = {
    "steps": 10, "warmup": None, "batch_rows": 4, "accumulate": 2, "clip": 1.0, "hidden_size": 32, "row_length": 64,
    "seed": 1, "data": "aa", "from": "00ff", "ternary": True, "bf16_products": False, "targets": "q_proj,v_proj",
}  # fmt: skip


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"steps": 77}, "begun with --steps 10, and now it is with --steps 77"),
        ({"warmup": 3}, "begun without --warmup, and now it is with --warmup 3"),
        ({"batch_rows": 8}, "begun with --batch-tokens 256, and now it is with --batch-tokens 512"),
        ({"batch_rows": 8, "row_length": 32, "data": "bb"}, "begun with --row-length 64"),
        ({"ternary": False}, "begun without --float, and now it is with --float"),
        ({"bf16_products": True}, "begun without --bf16, and now it is with --bf16"),
        ({"hidden_size": 64}, "begun with --hidden-size 32"),
        ({"data": "bb"}, "the data are not those"),
        ({"data": "bb", "steps": 12}, "the data are not those"),  # of which --epochs makes other steps
        ({"from": "11ee", "hidden_size": 64}, "the model of --from has other weights"),
        ({"from": None, "base": "00ff", "rank": 4}, "begun without --lora, and now it is with --lora 4"),
        ({"from": None}, "begun with --from, and now it is without --from"),
        ({"targets": "q_proj"}, "begun with --lora-targets q_proj,v_proj"),
        ({"clip": 2.0}, "begun with clip 1.0, and now it is with clip 2.0"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_in_the_words_of_their_options(other, said):
    """The one that others follow from before these."""
    check_same(BEGUN, dict(BEGUN))

    with pytest.raises(TrainError) as refused:
        check_same(BEGUN, {**BEGUN, **other})
    assert said in str(refused.value)


def test_a_state_from_before_there_was_bf16():
    """It was trained without."""
    before = {name: value for name, value in BEGUN.items() if name != "bf16_products"}

    check_same(before, BEGUN)
    with pytest.raises(TrainError, match="begun without --bf16, and now it is with --bf16"):
        check_same(before, {**BEGUN, "bf16_products": True})


def test_every_option_that_is_named_is_there():
    """Of one of both commands; TEACHER is an argument."""
    there = {option for each in (train, distill) for parameter in each.command.params for option in parameter.opts}
    assert set(OPTIONS.values()) - there == {"TEACHER"}
