"""Pictures of the card, as SVG: shares by test set, calls that are taken for others, the losses of both trainings."""

from collections.abc import Mapping, Sequence

from edgebit.line_plot import COLOURS, Panel, Picture, Series, svg_of, svg_text

INK, FAINT, GRID = "#1c2329", "#68737c", "#e3e7ea"
CURVE_POINTS = 200


def svg(width: float, height: float, parts: Sequence[str]) -> str:
    """A picture of parts on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="Helvetica, Arial, sans-serif">'
    )
    return "\n".join([head, f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>', *parts, "</svg>\n"])


def bars(title: str, subtitle: str, groups: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """Bars of {group: {system: (share, low, high)}}, all in [0, 1]."""
    systems = list(dict.fromkeys(system for group in groups.values() for system in group))
    left, width, top, height, bar = 44.0, 44.0 + 16 + 100 * len(groups), 88.0, 220.0, 76 / max(len(systems), 1)
    parts = [svg_text(16, 26, title, 16, weight="bold"), svg_text(16, 44, subtitle, 11, FAINT)]
    at = 16.0
    for place, system in enumerate(systems):
        parts.append(f'<rect x="{at:.0f}" y="57" width="12" height="8" fill="{COLOURS[place]}"/>')
        parts.append(svg_text(at + 16, 65, system, 11))
        at += 36 + 6.4 * len(system)
    for level in range(0, 101, 20):
        y = top + height * (1 - level / 100)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - 8:.0f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(svg_text(left - 6, y + 4, f"{level}", 10, FAINT, anchor="end"))
    for number, (name, group) in enumerate(groups.items()):
        x = left + 12 + 100 * number
        parts.append(svg_text(x + 38, top + height + 18, name, 11, anchor="middle"))
        for place, system in enumerate(systems):
            if system in group:
                share, low, high = group[system]
                begin, middle = x + bar * place, x + bar * (place + 0.5) - 1
                parts.append(
                    f'<rect x="{begin:.1f}" y="{top + height * (1 - share):.1f}" width="{bar - 2:.1f}" '
                    f'height="{height * share:.1f}" fill="{COLOURS[place]}"/>'
                    f'<line x1="{middle:.1f}" y1="{top + height * (1 - high):.1f}" x2="{middle:.1f}" '
                    f'y2="{top + height * (1 - low):.1f}" stroke="{INK}"/>'
                )
    return svg(width, top + height + 32, parts)


def confusion_matrix(title: str, subtitle: str, counts: Mapping[tuple[str, str], int]) -> str:
    """How often a call was asked for (row) and answered (column); right ones in the diagonal."""
    names = sorted({name for pair in counts for name in pair})
    places = {name: place for place, name in enumerate(names)}
    cell, left, top = 11.0, 132.0, 160.0
    size = cell * len(names)
    parts = [svg_text(16, 26, title, 16, weight="bold"), svg_text(16, 44, subtitle, 11, FAINT)]
    asked = {name: sum(count for (wanted, _), count in counts.items() if wanted == name) for name in names}
    for name, place in places.items():
        middle = cell * place + 8.5
        parts.append(svg_text(left - 4, top + middle, name, 8, anchor="end"))
        parts.append(
            f'<text transform="translate({left + middle:.1f} {top - 4:.0f}) rotate(-90)" font-size="8" '
            f'fill="{INK}">{name}</text>'
        )
    parts.append(f'<rect x="{left}" y="{top}" width="{size:.0f}" height="{size:.0f}" fill="none" stroke="{GRID}"/>')
    for (wanted, answered), count in sorted(counts.items()):
        colour = COLOURS[0] if wanted == answered else COLOURS[1]
        opacity = 0.15 + 0.85 * count / asked[wanted] if wanted == answered else min(1, 0.35 + 0.2 * count)
        x, y = left + cell * places[answered], top + cell * places[wanted]
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="10" height="10" fill="{colour}" opacity="{opacity:.2f}">'
            f"<title>{wanted} as {answered}: {count}</title></rect>"
        )
    return svg(left + size + 16, top + size + 16, parts)


def loss_curves(title: str, losses: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """The mean loss of stretches of steps, a line for each training; the first stretch is left out."""
    series = []
    for form, points in losses.items():
        size = max(1, len(points) // CURVE_POINTS)
        means: list[tuple[float, float | None]] = []
        for begin in range(size, len(points) - size + 1, size):
            stretch = points[begin : begin + size]
            means.append((stretch[-1][0], sum(loss for _, loss in stretch) / len(stretch)))
        series.append(Series(form, means))
    last = max((points[-1][0] for points in losses.values() if points), default=0)
    late = [Series(each.name, [point for point in each.points if point[0] > last / 4]) for each in series]
    panels = [Panel("loss, nats a token learnt", series), Panel("the same from a quarter of the steps on", late)]
    return svg_of(Picture(title, f"{last:,} steps; each point is a mean of steps", panels, axis="steps"))
