"""A number that was said and another one that was understood."""

import pytest

from edgebit.daemon.assistant.said_numbers import misheard


@pytest.mark.parametrize(
    ("line", "call", "found"),
    [
        ("set the desk lamp to 250 percent", {"name": "desk lamp", "percent": 25}, ("250", "25")),
        ("lamp to 633%", {"name": "lamp", "percent": 63}, ("633", "63")),
        ("set a timer for 100000 minutes", {"duration": "100 minutes"}, ("100000", "100")),
        ("set a timer for 5min", {"duration": "50 minutes"}, ("5", "50")),
        ("set the kitchen to -5 degrees", {"area": "kitchen", "degrees": 5}, ("-5", "5")),
        ("set the kitchen to \u22125 degrees", {"area": "kitchen", "degrees": 5}, ("-5", "5")),
        ("set the kitchen to 21.5 degrees", {"area": "kitchen", "degrees": 2}, ("21.5", "2")),
        ("set the kitchen to 0.5 degrees", {"area": "kitchen", "degrees": 0}, ("0.5", "0")),
        ("a timer for 2.5 hours", {"duration": "2 hours"}, ("2.5", "2")),
        ("lamp 3 to 40 percent", {"name": "lamp 3", "percent": 4}, ("40", "4")),
        ("dim it to 250", {"of": [{"percent": 25.0}]}, ("250", "25.0")),
    ],
)
def test_another_number_is_found(line, call, found):
    """In values and in texts, however deep."""
    assert misheard(line, call) == found


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("set the lamp to 40 percent.", {"name": "lamp", "percent": 40}),
        ("set the lamp to forty percent", {"name": "lamp", "percent": 40}),
        ("set lamp 2 to forty percent", {"name": "lamp 2", "percent": 40}),
        ("set the lamps, all 3, to full", {"name": "all lamps", "percent": 100, "fading": True}),
        ("wake me at 7:30 pm", {"time": "19:30"}),
        ("wake me at 7", {"time": "07:00"}),
        ("set radio 4 volume to forty", {"percent": 40}),
        ("set zone 2 to twenty two degrees", {"area": "zone 2", "degrees": 22}),
        ("set the 2nd lamp to Half", {"name": "2nd lamp", "percent": 50}),
        ("set the kitchen to 21.5 degrees", {"area": "kitchen", "degrees": 21}),
        ("set the kitchen to 21,5 degrees", {"area": "kitchen", "degrees": 22}),
        ("set the kitchen to 21,5 degrees", {"area": "kitchen", "degrees": 21.5}),
        ("set the freezer to minus 18 degrees", {"area": "freezer", "degrees": -18}),
        ("timer minus 5 minutes", {"duration": "5 minutes"}),
        ("set the freezer to \u221218 degrees", {"area": "freezer", "degrees": -18}),
        ("a timer for 1.5 hours", {"duration": "1 hour 30 minutes"}),
        ("dim it by 10-20 percent", {"percent": 20}),
        ("a timer for 1/2 an hour", {"duration": "30 minutes"}),
        ("a timer for 1 and a half hours", {"duration": "1 hour 30 minutes"}),
        ("a timer for 1,200 seconds", {"duration": "1200 seconds"}),
        ("a timer for 90s", {"duration": "90 seconds"}),
        ("heat it to 20.0", {"degrees": 20}),
        ("turn on lamp 2", {"name": "lamp"}),
        ("add 2 apples", {"item": "apples"}),
        ("set tv2 to half", {"name": "tv2", "percent": 50}),
        ("9" * 40_000, {"percent": 9}),
        ("1" + " 1" * 40_000, {"text": "10 " * 40_000}),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_may_well_be_meant_is_let_through(line, call):
    """Words, fractions and times of day among it, and a number that the call has no place for."""
    assert misheard(line, call) is None
