"""The plot: well-formed SVG with a bar for every figure, whatever names are in it."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from edgebit.bench.plot import svg_of, write_plot
from edgebit.errors import EdgebitError

DOUBTS = {"prefill/128": "impossible", "decode/0": "impossible"}
SVG = "{http://www.w3.org/2000/svg}"


def figure(value: float) -> dict[str, Any]:
    return {"median": value, "min": value / 2, "max": value * 2, "samples": [value / 2, value, value * 2]}


def engine(name: str, *, peer: bool = True, counted: bool = True, speed: float = 10.0) -> dict[str, Any]:
    return {
        "name": name, "threads": 2, "peer": peer, "doubts": {} if counted else DOUBTS,
        "prefill": {"128": figure(speed)}, "decode": {"0": figure(speed)},
        "sequences": {} if peer else {"4": figure(speed)},
    }  # fmt: skip


def report(*engines: dict[str, Any]) -> dict[str, Any]:
    return {
        "settings": {"prefill": [128, 512], "contexts": [0], "sequences": [4], "rounds": 3},
        "engines": list(engines),
        "machine": {"cpu": "A <CPU> & more"}, "edgebit": {"isa": "scalar"},
        "date": "2026-01-02T03:04:05+00:00", "model": {"name": "\x1b[31mmodel</text>"},
    }  # fmt: skip


def drawn(svg: str) -> tuple[list[float], list[str]]:
    """Lengths of the bars, and all words."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    bars = [float(rect.attrib["width"]) for rect in root.iter(f"{SVG}rect") if "x" in rect.attrib]
    return bars, ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_every_figure_has_a_bar_and_its_value():
    """Nothing is drawn where nothing was measured (prefill 512)."""
    bars, words = drawn(svg_of(report(engine("edgebit", peer=False, speed=30), engine("peer", speed=15))))

    assert len(bars) == 5
    assert bars[0] == pytest.approx(2 * bars[1], abs=0.2)
    assert {"prefill, 128 tokens, tok/s", "decode, tok/s", "decode, 4 sequences in one pass, tok/s"} <= set(words)
    assert not any("512" in word for word in words)


def test_an_engine_that_is_not_counted_does_not_squeeze_the_others():
    """Its bar ends at the edge, and it is said not to count."""
    honest = drawn(svg_of(report(engine("edgebit", peer=False))))[0]
    bars, words = drawn(svg_of(report(engine("edgebit", peer=False), engine("cheat", counted=False, speed=1e9))))

    assert bars[0] == honest[0]
    assert max(bars) <= 760
    assert "1,000,000,000.0 not counted" in words


def test_names_cannot_break_the_drawing():
    """Marks of XML and control characters in a name stay text, or go."""
    words = drawn(svg_of(report(engine('<script>alert("x")</script>\x00'))))[1]

    assert '<script>alert("x")</script>, 2 threads' in words
    assert "[31mmodel</text>" in words


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """With the reason."""
    with pytest.raises(EdgebitError, match=r"nowhere/plot\.svg: cannot be written: No such file"):
        write_plot(report(), tmp_path / "nowhere" / "plot.svg")
