"""Pictures of figures over time."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from edgebit.errors import EdgebitError
from edgebit.line_plot import Panel, Picture, Series, _scale, svg_of, write_picture


def picture(points, **panel):
    return Picture("a <title>\x07", "sub & title", [Panel("figure, unit", [Series("one", points)], **panel)])


def lines(svg):
    """The points of each line."""
    found = re.findall(r'<polyline points="([^"]*)"', svg)
    return [[tuple(map(float, dot.split(","))) for dot in line.split()] for line in found]


def test_a_line_goes_from_left_to_right_and_up():
    """Within the picture, the first point at the left edge, the last at the right, more is higher."""
    svg = svg_of(picture([(10.0, 1.0), (20.0, 2.0), (30.0, 4.0)]))
    ElementTree.fromstring(svg)
    ((first, middle, last),) = lines(svg)
    assert first[0] == 52 and last[0] == 744 and first[1] > middle[1] > last[1] > 76


def test_what_is_missing_breaks_the_line():
    """A gap is shown as one, not bridged."""
    points = [(float(at), None if at in (4, 5) else 1.0) for at in range(10)]
    assert [(line[0][0], line[-1][0]) for line in lines(svg_of(picture(points)))] == [(52, 282.7), (513.3, 744)]


def test_a_long_series_keeps_its_peaks():
    """100,000 points become some hundreds, with the highest among them."""
    points = [(float(at), 100.0 if at == 54_321 else 0.0) for at in range(100_000)]
    svg = svg_of(picture(points))
    (line,) = lines(svg)
    assert len(line) < 10 and len(svg) < 5000
    assert min(y for _, y in line) < max(y for _, y in line) - 90


def test_a_restless_series_is_thinned():
    """No more points than a screen can show."""
    (line,) = lines(svg_of(picture([(float(at), float(at * 7919 % 1000)) for at in range(100_000)])))
    assert len(line) < 1000


def test_spans_and_the_marked_level_are_drawn():
    """Shaded from one second to another; the level belongs to the scale."""
    svg = svg_of(picture([(0.0, 1.0), (100.0, 2.0)], spans=[(25.0, 50.0)], line=80.0))
    assert 'x="225.0"' in svg and 'width="173.0"' in svg and "stroke-dasharray" in svg and ">80<" in svg


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        (50, ["0 s", "15 s", "30 s", "45 s"]),
        (86_400, ["0 s", "4 h", "8 h", "12 h", "16 h", "20 h", "1 d"]),
        (30 * 86_400, ["0 s", "7 d", "14 d", "21 d", "28 d"]),
        (366 * 86_400, ["0 s", "60 d", "120 d", "180 d", "240 d", "300 d", "360 d"]),
    ],
)
def test_the_time_axis_has_room_for_its_marks(seconds, marks):
    """However long the time is, as far back as --since goes."""
    svg = svg_of(picture([(0.0, 1.0), (float(seconds), 2.0)]))
    assert [word for word in re.findall(r">([^<]*)</text>", svg) if re.fullmatch(r"[0-9.]+ (s|min|h|d)", word)] == marks


def test_words_of_others_are_no_markup():
    """Names are escaped, control characters left out."""
    svg = svg_of(picture([(0.0, 1.0)]))
    assert "a &lt;title&gt;" in svg and "sub &amp; title" in svg and "\x07" not in svg


@pytest.mark.parametrize(
    "points", [[], [(0.0, None)], [(5.0, 3.0)], [(0.0, 0.0), (1.0, 0.0)], [(0.0, -1e9), (1e7, 1e9)]]
)
def test_whatever_the_figures_are_it_is_a_picture(points):
    """Nothing, one point, no span, a huge one."""
    svg = svg_of(picture(points))
    ElementTree.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg


@pytest.mark.parametrize("values", [(0, 1), (20, 88.6), (1500, 2400), (3, 3), (-5, 5), (0.001, 0.0011), (1e6, 1e6 + 1)])
def test_scales_have_round_marks_that_hold_all_values(values):
    """Two to seven marks, from a multiple of the step at or below the least."""
    low, high, step = _scale(values)
    assert low <= min(values) and high >= max(values) - 1e-9
    assert 1 <= round((high - low) / step) <= 6
    assert float(f"{step:.3g}") == pytest.approx(step) and step / 10 ** math.floor(math.log10(step)) < 5.01


def test_pictures_are_written_as_named(tmp_path):
    """SVG always, PNG where cairosvg is there; other names and places are refused with a way out."""
    drawn = picture([(0.0, 1.0), (1.0, 2.0)])
    write_picture(drawn, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == svg_of(drawn)
    with pytest.raises(EdgebitError, match=r"as \.svg or \.png"):
        write_picture(drawn, tmp_path / "a.pdf")
    with pytest.raises(EdgebitError, match="another place"):
        write_picture(drawn, tmp_path / "none" / "a.svg")


def test_png(tmp_path):
    """A PNG of twice the size."""
    pytest.importorskip("cairosvg", exc_type=(ImportError, OSError))
    write_picture(picture([(0.0, 1.0), (1.0, 2.0)]), tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20], "big") == 1520


def test_png_without_cairosvg(tmp_path, monkeypatch):
    """The message names the package and what needs none."""
    monkeypatch.setattr("edgebit.line_plot.importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError()))
    with pytest.raises(EdgebitError, match=r"edgebit\[png\].*SVG needs nothing"):
        write_picture(picture([(0.0, 1.0)]), tmp_path / "a.png")
