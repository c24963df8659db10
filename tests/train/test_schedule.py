"""The two stages of learning rate and weight decay, as numbers."""

import pytest

from edgebit.errors import TrainError
from edgebit.train.schedule import Schedule

SCHEDULE = Schedule(steps=20, learning_rate=3.0, weight_decay=0.1, warmup=2)


@pytest.mark.parametrize(
    ("step", "learning_rate", "weight_decay"),
    [
        (0, 1.5, 0.1),  # warm-up: a half, then all that the first stage has there
        (1, 2.9, 0.1),
        (5, 2.5, 0.1),
        (9, 2.1, 0.1),
        (10, 2.0, 0.0),  # the second stage: from 2/3 of the highest to nothing
        (15, 1.0, 0.0),
        (19, 0.2, 0.0),
    ],
)
def test_both_stages(step, learning_rate, weight_decay):
    """High and with decay, then low, falling to 0, and without."""
    assert SCHEDULE.learning_rate_at(step) == pytest.approx(learning_rate)
    assert SCHEDULE.weight_decay_at(step) == weight_decay


def test_stages_of_other_shares():
    """A flat first stage of a quarter, and a second that begins at a half."""
    schedule = Schedule(steps=8, learning_rate=1.0, warmup=0, second_stage=0.25, first_end=1.0, second_start=0.5)

    assert [schedule.learning_rate_at(step) for step in range(8)] == pytest.approx(
        [1, 1, 0.5, 5 / 12, 4 / 12, 3 / 12, 2 / 12, 1 / 12]
    )


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (20, 2), (999, 99), (50_000, 100)])
def test_the_warm_up_is_a_tenth_but_not_long(steps, warmup):
    """Where none is given."""
    assert Schedule(steps=steps).warmup_steps == warmup


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 0}, {"weight_decay": -1}, {"second_stage": 1.1}])
def test_what_is_out_of_range_is_refused(wrong):
    """Before anything is trained."""
    with pytest.raises(TrainError):
        Schedule(**{"steps": 10, **wrong})
