"""Times as people write them on a command line."""

import re

import click

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_MOST_S = 366 * 86400


class Span(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A time such as 90m, 24h or 7d, as seconds."""

    name = "span"

    def __init__(self, least_s: float = 60) -> None:
        self._least_s = least_s

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(s|m|min|h|d)", str(value))
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not self._least_s <= seconds <= _MOST_S:
            least = "a minute" if self._least_s == 60 else f"{self._least_s:g} s"
            self.fail(f"{value!r} is no time of {least} to a year. Write 90m, 24h or 7d", param, ctx)
        return seconds
