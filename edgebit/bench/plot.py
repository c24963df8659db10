"""A report as an SVG of bars, which looks the same in a browser, a README and a printed page."""

from pathlib import Path
from typing import Any

from edgebit.bundle.part_file import PartFile
from edgebit.errors import OutputError
from edgebit.line_plot import svg_text

_WIDTH, _LABEL, _VALUE = 760, 190, 110
_BAR, _GAP, _TITLE = 18, 6, 34
_OURS, _THEIRS, _DOUBTED, _INK, _FAINT = "#1f6f5c", "#9aa7b1", "#d9dee2", "#1c2329", "#68737c"


def write_plot(report: dict[str, Any], path: Path) -> None:
    """Write the report's speeds, and its curve over sequences, to `path`. OutputError where that cannot be written."""
    with PartFile(path, OutputError) as part:
        part.write(svg_of(report).encode())
        part.commit()


def svg_of(report: dict[str, Any]) -> str:
    """A panel for each speed that was measured: a bar for each engine and thread count, a line from least to most."""
    settings = report["settings"]
    panels = [(f"prefill, {size} tokens", "prefill", str(size)) for size in settings["prefill"]]
    panels += [
        (f"decode behind {size:,} tokens" if size else "decode", "decode", str(size)) for size in settings["contexts"]
    ]
    panels += [(f"decode, {count} sequences in one pass", "sequences", str(count)) for count in settings["sequences"]]
    parts, top = [], 58.0
    for title, kind, size in panels:
        bars = [(engine, engine[kind][size]) for engine in report["engines"] if size in engine[kind]]
        if bars:
            drawn, top = _panel(f"{title}, tok/s", f"{kind}/{size}", bars, top)
            parts += drawn
    machine = f"{report['machine']['cpu']}, {report['edgebit']['isa']}, {report['date'][:10]}"
    head = [
        svg_text(16, 26, report["model"]["name"], 16, weight="bold"),
        svg_text(16, 44, f"{machine}; medians of {settings['rounds']} rounds, line: least to most", 11, _FAINT),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:.0f}" width="{_WIDTH}" '
            f'height="{top:.0f}" font-family="Helvetica, Arial, sans-serif">',
            f'<rect width="{_WIDTH}" height="{top:.0f}" fill="#ffffff"/>',
            *head,
            *parts,
            "</svg>\n",
        ]
    )


def _panel(
    title: str, figure: str, bars: list[tuple[dict[str, Any], dict[str, Any]]], top: float
) -> tuple[list[str], float]:
    """The drawing, and where it ends."""
    parts = [svg_text(16, top + 16, title, 13, weight="bold")]
    top += _TITLE - 8
    longest = (
        max((value["max"] for engine, value in bars if figure not in engine["doubts"]), default=0)
        or max(value["max"] for _, value in bars)
        or 1
    )
    scale = (_WIDTH - _LABEL - _VALUE) / longest
    for engine, value in bars:
        threads, counted = engine["threads"], figure not in engine["doubts"]
        label = f"{engine['name']}, {threads} thread{'s' if threads > 1 else ''}"
        colour = (_THEIRS if engine["peer"] else _OURS) if counted else _DOUBTED
        length = min(value["median"], longest) * scale
        middle = top + _BAR / 2
        parts += [
            svg_text(_LABEL - 8, middle + 4, label, 11, anchor="end"),
            f'<rect x="{_LABEL}" y="{top:.1f}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
        ]
        end = length
        if counted:
            low, end = value["min"] * scale, value["max"] * scale
            parts.append(
                f'<line x1="{_LABEL + low:.1f}" x2="{_LABEL + end:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" '
                f'stroke="{_INK}"/>'
            )
        words = f"{value['median']:,.1f}" + ("" if counted else " not counted")
        parts.append(svg_text(_LABEL + max(end, length) + 6, middle + 4, words, 11))
        top += _BAR + _GAP
    return parts, top + 10
