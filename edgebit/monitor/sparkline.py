"""Figures over time in a line of characters."""

import itertools
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
GAP = " "


def sparkline(
    points: Sequence[tuple[float, float | None]], width: int, now: float, span_s: float, least: float = 0.0
) -> str:
    """The last `span_s` seconds of (time, figure) in `width` characters: the mean of each part, from least to greatest.

    `least` is the difference that takes the full height at least, so that noise does not look like a change.
    A part without a figure takes the one before for as long as a few of them: figures come at intervals.
    """
    if width <= 0:
        return ""
    parts: list[list[float]] = [[] for _ in range(width)]
    for at, value in points:
        place = int((at - (now - span_s)) / span_s * width)
        if value is not None and 0 <= place <= width:
            parts[min(place, width - 1)].append(value)
    means = _held([sum(part) / len(part) if part else None for part in parts])
    known = [mean for mean in means if mean is not None]
    if not known:
        return GAP * width
    low, high = min(known), max(known)
    scale = (len(BARS) - 1) / max(high - low, least, 1e-9)
    return "".join(GAP if mean is None else BARS[round((mean - low) * scale)] for mean in means)


def _held(means: Sequence[float | None]) -> list[float | None]:
    """Small gaps take the figure before them: as long as the longest that is usual between two figures."""
    places = [place for place, mean in enumerate(means) if mean is not None]
    gaps = sorted(after - before for before, after in itertools.pairwise(places))
    usual = 2 * gaps[len(gaps) // 2] if gaps else 0
    held: list[float | None] = []
    last, age = None, 0
    for mean in means:
        last, age = (mean, 0) if mean is not None else (last, age + 1)
        held.append(last if age < max(usual, 1) else None)
    return held
