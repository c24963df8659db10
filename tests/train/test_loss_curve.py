"""The loss curve as lines of JSON and as a picture."""

import json
import math
from xml.etree import ElementTree

import pytest

from edgebit.errors import TrainError
from edgebit.line_plot import svg_of
from edgebit.train.loss_curve import draw_curve, drawn, picture_of, write_records
from edgebit.train.records import Record


def records(count, every=10):
    return [
        Record(
            step=step, loss=6 / step, learning_rate=1e-3, tokens=100 * step,
            held_out_loss=7 / step if step % every == 0 else None,
            held_out_accuracy=1 - 1 / step if step % every == 0 else None,
        )
        for step in range(1, count + 1)
    ]  # fmt: skip


def test_a_line_of_json_for_each_step(tmp_path):
    """With what is known of it, and the exact numbers."""
    given = records(12)
    write_records(given, tmp_path / "loss.jsonl")

    lines = [json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines()]
    assert [Record(**line) for line in lines] == given
    assert "held_out_loss" in lines[9] and "held_out_loss" not in lines[0]


def test_the_picture_has_steps_below_and_all_panels():
    """Loss, share of tokens, learning rate; the axis counts steps, not seconds."""
    picture = picture_of(records(200), "Training")
    texts = [each.text for each in ElementTree.fromstring(svg_of(picture)).iter() if each.tag.endswith("text")]

    assert [panel.title for panel in picture.panels] == [
        "loss, nats a token", "share of tokens predicted", "learning rate",
    ]  # fmt: skip
    assert {"50", "100", "150", "200"} <= set(texts)
    assert not any(text.endswith((" s", " min")) for text in texts)


def test_losses_are_smoothed_from_the_first_on():
    """The first as it is, the last near the mean of the last ones."""
    points = picture_of(records(100), "Training").panels[0].series[0].points

    assert points[0] == (1, 6.0)
    assert points[-1][1] == pytest.approx(6 / 100, abs=0.05)
    assert not any(math.isnan(value) for _, value in points)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_short_training_has_a_picture_too(count, tmp_path):
    """Of few steps, or none."""
    draw_curve(records(count), "Training", tmp_path)
    written = drawn(tmp_path)

    assert written[0].name == "loss.svg"
    ElementTree.parse(written[0])


def test_a_folder_that_is_gone_is_said(tmp_path):
    """With its name."""
    with pytest.raises(TrainError, match=r"loss\.svg"):
        draw_curve(records(3), "Training", tmp_path / "gone")
