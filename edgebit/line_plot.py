"""Figures over time or steps as a picture: panels one above the other, a line a series, spans shaded; SVG or PNG."""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from edgebit.errors import EdgebitError

COLOURS = ("#1f6f5c", "#c0603a", "#4a6fa5", "#8a6db1", "#a08a2e", "#68737c")
_INK, _FAINT, _GRID, _SPAN = "#1c2329", "#68737c", "#e3e7ea", "#f6ddd2"
_WIDTH, _LEFT, _RIGHT, _TOP = 760.0, 52.0, 16.0, 76.0
_PANEL, _GAP = 120.0, 38.0
_POINTS_MAX = 700  # of a line: more than there are pixels tell nothing
_DAY_S = 86400
_STEPS_S = (
    *(1, 5, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200),
    *(days * _DAY_S for days in (1, 2, 7, 14, 30, 60, 365)),
)

Point = tuple[float, float | None]  # seconds or steps, and the figure; None breaks the line


@dataclass(frozen=True, slots=True)
class Series:
    """One line."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share a scale."""

    title: str  # with the unit
    series: Sequence[Series]
    spans: Sequence[tuple[float, float]] = ()  # seconds from and to, shaded
    line: float | None = None  # a level to mark


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it; series of one name have one colour in all panels."""

    title: str
    subtitle: str
    panels: Sequence[Panel]
    axis: Literal["time", "steps"] = "time"  # what the points lie at


def write_picture(picture: Picture, path: Path) -> None:
    """Write `picture` to a .svg or .png. Raises EdgebitError where that cannot be done, saying how it could."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise EdgebitError(f"{path}: a picture is written as .svg or .png. Give --plot such a name")
    svg = svg_of(picture)
    try:
        if path.suffix.lower() == ".svg":
            path.write_text(svg, encoding="utf-8")
        else:
            path.write_bytes(_png(svg, path))
    except OSError as error:
        raise EdgebitError(f"{path} cannot be written: {error.strerror}. Give --plot another place") from error


def svg_of(picture: Picture) -> str:
    """The picture as SVG."""
    names = list(dict.fromkeys(series.name for panel in picture.panels for series in panel.series))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    times = [at for panel in picture.panels for series in panel.series for at, _ in series.points]
    begin, end = (min(times), max(times)) if times else (0.0, 1.0)
    end = max(end, begin + 1)
    parts = [svg_text(16, 26, picture.title, 16, weight="bold"), svg_text(16, 44, picture.subtitle, 11, _FAINT)]
    parts += _legend(names, colours)
    top = _TOP + 14
    for panel in picture.panels:
        parts += _drawn(panel, colours, top, begin, end)
        top += _PANEL + _GAP
    axis = _time_axis if picture.axis == "time" else _step_axis
    parts += axis(top - _GAP + 14, begin, end)
    height = top + 2
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" width="{_WIDTH:.0f}" '
        f'height="{height:.0f}" font-family="Helvetica, Arial, sans-serif">'
    )
    return "\n".join([head, f'<rect width="{_WIDTH:.0f}" height="{height:.0f}" fill="#ffffff"/>', *parts, "</svg>\n"])


def _png(svg: str, path: Path) -> bytes:
    try:
        cairosvg = importlib.import_module("cairosvg")
    except (ImportError, OSError) as error:  # OSError: it is there, its native library is not
        raise EdgebitError(f"{path}: PNG needs cairosvg (pip install 'edgebit[png]'). SVG needs nothing") from error
    return bytes(cairosvg.svg2png(bytestring=svg.encode(), scale=2))


def _legend(names: Sequence[str], colours: dict[str, str]) -> list[str]:
    parts, left = [], 16.0
    for name in names if len(names) > 1 else ():
        parts.append(f'<rect x="{left:.1f}" y="56" width="14" height="4" fill="{colours[name]}"/>')
        parts.append(svg_text(left + 18, 62, name, 11))
        left += 34 + 6.2 * len(name)
    return parts


def _drawn(panel: Panel, colours: dict[str, str], top: float, begin: float, end: float) -> list[str]:
    values = [value for series in panel.series for _, value in series.points if value is not None]
    values += [panel.line] if panel.line is not None else []
    low, high, step = _scale(values)

    def x(at: float) -> float:
        return _LEFT + (min(max(at, begin), end) - begin) / (end - begin) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return top + 8 + (high - value) / (high - low) * (_PANEL - 16)

    parts = [svg_text(16, top, panel.title, 12, weight="bold")]
    for first, last in panel.spans:
        place = f'x="{x(first):.1f}" y="{top + 8:.1f}"'
        size = f'width="{max(x(last) - x(first), 0.5):.1f}" height="{_PANEL - 16:.1f}"'
        parts.append(f'<rect {place} {size} fill="{_SPAN}"/>')
    for number in range(round((high - low) / step) + 1):
        level = low + number * step
        parts.append(_line(_LEFT, y(level), _WIDTH - _RIGHT, y(level), _GRID))
        parts.append(svg_text(_LEFT - 6, y(level) + 4, f"{level:g}", 10, _FAINT, anchor="end"))
    if panel.line is not None:
        parts.append(_line(_LEFT, y(panel.line), _WIDTH - _RIGHT, y(panel.line), _FAINT, dash="4 3"))
    for series in panel.series:
        for run in _runs(_thinned(series.points)):
            dots = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)
            parts.append(
                f'<polyline points="{dots}" fill="none" stroke="{colours[series.name]}" stroke-width="1.5" '
                'stroke-linejoin="round"/>'
            )
    return parts


def _time_axis(top: float, begin: float, end: float) -> list[str]:
    step = next((step for step in _STEPS_S if (end - begin) / step <= 8), _STEPS_S[-1])
    parts = []
    for number in range(int((end - begin) // step) + 1):
        at = number * step
        x = _LEFT + at / (end - begin) * (_WIDTH - _LEFT - _RIGHT)
        parts.append(svg_text(x, top, _span_words(at), 10, _FAINT, anchor="middle" if number else "start"))
    return parts


def _step_axis(top: float, begin: float, end: float) -> list[str]:
    first, last, step = _scale((begin, end))
    marks = (first + number * step for number in range(round((last - first) / step) + 1))
    width = _WIDTH - _LEFT - _RIGHT
    return [
        svg_text(_LEFT + (at - begin) / (end - begin) * width, top, f"{at:,g}", 10, _FAINT, anchor="middle")
        for at in marks
        if begin <= at <= end
    ]


def _span_words(seconds: float) -> str:
    if seconds % _DAY_S == 0 and seconds:
        return f"{seconds / _DAY_S:g} d"
    if seconds % 3600 == 0 and seconds:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def _scale(values: Sequence[float]) -> tuple[float, float, float]:
    """Least and most of an axis, and the step between its marks: 2 to 6 of them, at round figures."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = max(high - low, abs(high) * 0.02, 1e-9)
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step) * step, math.ceil(high / step) * step
    return first, last if last > first else first + step, step


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most about _POINTS_MAX points: of each stretch the least and the most, so that no peak is lost."""
    if len(points) <= _POINTS_MAX:
        return list(points)
    size = math.ceil(2 * len(points) / _POINTS_MAX)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        known = [(value, place) for place, (_, value) in enumerate(stretch) if value is not None]
        if len(known) < len(stretch):
            kept.append((stretch[0][0], None))
        if known:
            kept += [stretch[place] for place in sorted({min(known)[1], max(known)[1]})]
    return kept


def _runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is not None:
            runs[-1].append((at, value))
        elif runs[-1]:
            runs.append([])
    return [_bent(run) for run in runs if run]


def _bent(run: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the points inside a level stretch, which a line through its ends shows as well."""
    inner = range(1, len(run) - 1)
    level = {place for place in inner if run[place - 1][1] == run[place][1] == run[place + 1][1]}
    return [point for place, point in enumerate(run) if place not in level]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'


def svg_text(
    x: float, y: float, words: str, size: int, colour: str = _INK, *, anchor: str = "start", weight: str = "normal"
) -> str:
    """An SVG element that shows words from x on, or up to it, with their base line at y."""
    shown = "".join(char for char in words if char.isprintable())  # XML 1.0 has no place for control characters
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(shown)}</text>'
    )
