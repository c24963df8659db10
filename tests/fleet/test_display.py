"""What a roll-out shows: a table that fits the terminal, and plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from edgebit.cli.rollout_display import RolloutDisplay
from edgebit.deploy.install import LOG_HEADING
from edgebit.deploy.plan import Step
from edgebit.fleet.journal import DeviceReport
from edgebit.fleet.rollout import plan_waves

NAMES = [f"room-{number:02}" for number in range(30)]
WHY = "bundle 0123456789abcdef was taken back: the daemon did not answer\x1b[2J\n  its log\n  goes on"


@pytest.fixture
def screen():
    """A console of 80 columns and 20 lines, a display on it, and what stands there."""
    console = Console(width=80, height=20, file=io.StringIO(), force_terminal=False, highlight=False)
    display = RolloutDisplay(console, plan_waves(NAMES, 1, 10), max_failures=2)

    def lines():
        with console.capture() as capture:
            console.print(display)
        return [line.rstrip() for line in capture.get().splitlines()]

    return display, lines, console


def test_the_table_fits_and_shows_what_matters(screen):
    """Those under way and failed ones are seen, however many wait; each in one line."""
    display, lines, _ = screen
    display.began("room-25", "3 of 3")
    display.step("room-25", Step("send", "send model.ebm: 2.0 MB", "model.ebm", 2_000_000))
    display.sending("room-25", 2_000_000)(500_000)
    display.ended(DeviceReport(name="room-29", result="failed", why=WHY, seconds=7.4))
    display.ended(DeviceReport(name="room-03", result="updated", sent_bytes=2_000_000, seconds=3))

    shown = lines()

    assert len(shown) <= 20 - 2 and max(map(len, shown)) <= 80
    rows = {line.split()[0]: line for line in shown}
    assert "send model.ebm  25 %" in rows["room-25"] and "0.5 MB" in rows["room-25"]
    assert "failed: was taken back: the daemon did not…" in rows["room-29"]
    assert "its log" not in "".join(shown) and "\x1b" not in "".join(shown)
    assert "answers" in rows["room-03"]
    assert shown[-2] == f"and {30 - (len(shown) - 3)} more"
    assert shown[-1].startswith("1 of 30 done, 1 failed (at most 2), 1 under way, 27 wait")


def test_notes_stand_below_the_table(screen):
    """Until the next device begins."""
    display, lines, _ = screen
    display.soaking(12.3)
    assert lines()[-2] == "the canary runs; others follow in 12 s if it still answers"
    display.began("room-01", "1 of 3")
    assert "canary runs" not in "".join(lines())


def test_without_a_terminal_there_is_a_line_for_each_event(screen):
    """Names first, so that the lines of devices side by side can be told apart."""
    display, _, console = screen
    with display:
        display.began("room-00", "canary")
        display.step("room-00", Step("check", "wait for an answer over MQTT, at most 120 s"))
        display.soaking(2)
        display.soaking(1)
        display.ended(DeviceReport(name="room-00", result="updated", answer_s=1.25))
        display.ended(DeviceReport(name="room-01", result="unreachable", why="room-01 is out of reach"))
        display.ended(DeviceReport(name="room-02", result="present", answer_s=0.1))
    assert console.file.getvalue().splitlines() == [
        "room-00: begins (canary)",
        "room-00: wait for an answer over MQTT, at most 120 s",
        "the canary runs; others follow in 2 s if it still answers",
        "room-00: answers after 1.2 s",
        "room-01: out of reach: room-01 is out of reach",
        "room-02: had it already; answered in 0.1 s",
    ]


@pytest.mark.parametrize("log", ["\n  its log\n  goes on", " nothing"])
def test_a_line_ends_before_the_log(screen, log):
    """Which stands in the report."""
    display, _, console = screen
    why = f"bundle 0123456789abcdef was taken back: no answer. There was none before it. {LOG_HEADING}{log}"
    with display:
        display.ended(DeviceReport(name="room-00", result="failed", why=why))
    assert console.file.getvalue() == "room-00: failed: was taken back: no answer. There was none before it\n"


def test_one_that_is_asked_again_is_no_second_deploy(screen):
    """One line, once it has answered, that says so; or why it has failed."""
    display, lines, console = screen
    with display:
        display.asking("room-00", "after the soak")
        assert "ask again after the soak" in "".join(lines())
        display.ended(DeviceReport(name="room-00", result="updated", answer_s=1.25))
        display.asking("room-01", "")
        display.ended(DeviceReport(name="room-01", result="present", answer_s=1.25))
        display.asking("room-02", "")
        display.ended(DeviceReport(name="room-02", result="failed", why="asked again: no answer", answer_s=1.25))
        display.began("room-02", "1 of 3")
        display.ended(DeviceReport(name="room-02", result="updated"))
    assert console.file.getvalue().splitlines() == [
        "room-00: asked again after the soak: answers",
        "room-01: asked again: answers",
        "room-02: failed: asked again: no answer",
        "room-02: begins (1 of 3)",
        "room-02: answers",
    ]
