"""The loss of each step, as lines of JSON and as a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from edgebit.bundle.part_file import PartFile
from edgebit.errors import EdgebitError, TrainError
from edgebit.line_plot import Panel, Picture, Series, write_picture
from edgebit.train.records import Listener, Record

RECORDS = "loss.jsonl"
_PICTURES = ("loss.svg", "loss.png")
_SMOOTHED = 20  # steps that count for about two thirds of a smoothed loss


def curve_kept(listener: Listener, title: str, folder: Path) -> Listener:
    """The listener, and with each save the curve so far in `folder`: it can be watched while the training goes on."""

    def saved(records: Sequence[Record]) -> None:
        write_records(records, folder / RECORDS)
        draw_curve(records, title, folder)
        listener.saved(records)

    return replace(listener, saved=saved)


def drawn(folder: Path) -> list[Path]:
    """The pictures in `folder`."""
    return [path for name in _PICTURES if (path := folder / name).is_file()]


def write_records(records: Sequence[Record], path: Path) -> None:
    """A line of JSON for each step, without what a step does not have. Raises TrainError, as on a full disk."""
    with PartFile(path, TrainError) as part:
        for record in records:
            known = {name: value for name, value in asdict(record).items() if value is not None}
            part.write((json.dumps(known) + "\n").encode())
        part.commit()


def draw_curve(records: Sequence[Record], title: str, folder: Path) -> None:
    """Write loss.svg into `folder`, and loss.png where cairosvg is installed."""
    for name in _PICTURES:
        try:
            write_picture(picture_of(records, title), folder / name)
        except EdgebitError as error:
            if name.endswith(".svg"):
                raise TrainError(str(error)) from error


def picture_of(records: Sequence[Record], title: str) -> Picture:
    """Losses on the rows that were learnt from and on those held out, accuracy on these, and the learning rate."""
    panels = [Panel("loss, nats a token", [Series("learnt", _smoothed(records)), *_held_out(records, "held_out_loss")])]
    accuracy = _held_out(records, "held_out_accuracy")
    if accuracy and len(accuracy[0].points) > 1:
        panels.append(Panel("share of tokens predicted", accuracy))
    rates = [(record.step, record.learning_rate) for record in records]
    panels.append(Panel("learning rate", [Series("learnt", rates)]))
    last = f"{records[-1].step} steps, {records[-1].tokens:,} tokens learnt" if records else "no step"
    return Picture(title, f"{last}; the loss of learnt rows is smoothed over {_SMOOTHED} steps", panels, axis="steps")


def _held_out(records: Sequence[Record], name: str) -> list[Series]:
    points = [(record.step, value) for record in records if (value := getattr(record, name)) is not None]
    return [Series("held out", points)] if points else []


def _smoothed(records: Sequence[Record]) -> list[tuple[float, float | None]]:
    points: list[tuple[float, float | None]] = []
    mean = 0.0
    for place, record in enumerate(records):
        mean += (record.loss - mean) / min(place + 1, _SMOOTHED)
        points.append((record.step, mean))
    return points
