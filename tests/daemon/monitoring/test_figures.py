"""Figures of a snapshot: how requests ended, what the process takes, what sensors say; unknown is never 0."""

from pathlib import Path

import pytest

from edgebit.daemon.monitoring.outcomes import WINDOW_MAX, WINDOW_S, Outcomes, percentile
from edgebit.daemon.monitoring.own_process import OwnProcess
from edgebit.daemon.monitoring.quantities import NAMES, QUANTITIES
from edgebit.daemon.monitoring.snapshot import LostSensors, since, snapshot_of, to_json
from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.sensors.reading import Reading
from edgebit.daemon.serving.outcome import Outcome

UNMETERED = Energy(joules=None, absent="no power sensor")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def ended(status=200, code="", *, tokens=10, seconds=2.0, energy=UNMETERED, **named):
    return Outcome(
        principal="alice", job_id="1", op="generate", status=status, code=code, prompt_tokens=20, reused_tokens=5,
        completion_tokens=tokens, first_token_s=0.5, prompt_s=0.5, decode_s=seconds - 0.5, total_s=seconds,
        energy=energy, **named,
    )  # fmt: skip


def test_ends_are_counted_by_kind_and_code():
    """A device's fault is something else than a refusal, and a cancel neither."""
    outcomes = Outcomes()
    for status, code in (
        (200, ""),
        (500, "engine"),
        (507, "memory"),
        (503, "queue_full"),
        (408, "expired"),
        (499, "cancelled"),
    ):
        outcomes.job_ended(ended(status, code))
    counts = outcomes.counts()
    assert {name: counts[name] for name in ("answered", "failed", "refused", "cancelled")} == {
        "answered": 1, "failed": 2, "refused": 2, "cancelled": 1,
    }  # fmt: skip
    assert outcomes.errors() == {"engine": 1, "memory": 1, "queue_full": 1, "expired": 1, "cancelled": 1}
    assert counts["prompt_tokens"] == 120


def test_a_request_that_became_no_job_is_counted_too():
    """By its kind and code; the window of answers does not know it."""
    outcomes = Outcomes()
    for status, code in ((400, "bad_field"), (503, "queue_full"), (500, "interrupted")):
        outcomes.refused(status, code)
    assert outcomes.counts() == {"refused": 2, "failed": 1}
    assert outcomes.errors() == {"bad_field": 1, "queue_full": 1, "interrupted": 1}
    assert set(outcomes.window().values()) == {None}


def test_a_miss_is_an_answer_that_the_cache_could_have_had():
    """One that is drawn at random is neither hit nor miss."""
    outcomes = Outcomes()
    for named in ({}, {"cacheable": True}, {"cacheable": True, "from_cache": True}, {"cacheable": True}):
        outcomes.job_ended(ended(**named))
    counts = outcomes.counts()
    assert (counts["cache_hits"], counts["cache_misses"]) == (1, 2)


def test_nothing_is_known_before_the_first():
    """No speed, no delay, no share of errors."""
    assert set(Outcomes().window().values()) == {None}


def test_speed_and_delay_over_the_window():
    """Tokens over the time they took, and percentiles of the delay; what is older than the window is forgotten."""
    clock = Clock()
    outcomes = Outcomes(clock)
    outcomes.job_ended(ended(seconds=1000.0))
    clock.now += WINDOW_S + 1
    for seconds in (1.5, 2.5):
        outcomes.job_ended(ended(seconds=seconds))
    found = outcomes.window()
    assert found["tok_s"] == pytest.approx(20 / 3.0)
    assert found["prompt_tok_s"] == pytest.approx(30.0)
    assert (found["latency_p50_ms"], found["latency_p99_ms"]) == (1500.0, 2500.0)
    assert found["error_rate"] is None  # of two requests nobody makes a rate
    assert outcomes.totals()["answer_s_count"] == 3


def test_an_answer_from_the_cache_says_nothing_of_the_engine():
    """Its speed is no decode speed."""
    outcomes = Outcomes()
    outcomes.job_ended(ended(from_cache=True))
    assert outcomes.window()["tok_s"] is None
    assert outcomes.counts()["cache_hits"] == 1


def test_energy_counts_where_it_was_measured():
    """Answers that nobody metered make no token cheaper."""
    outcomes = Outcomes()
    outcomes.job_ended(ended(energy=Energy(joules=5.0, source="ina219")))
    outcomes.job_ended(ended())
    assert outcomes.window()["joules_per_token"] == pytest.approx(0.5)


def test_errors_are_a_share_of_what_was_tried():
    """Refused and cancelled requests aside."""
    outcomes = Outcomes()
    for status in (200, 200, 200, 500, 503, 499):
        outcomes.job_ended(ended(status, "" if status == 200 else "x"))
    assert outcomes.window()["error_rate"] is None
    outcomes.job_ended(ended(200))
    assert outcomes.window()["error_rate"] == pytest.approx(0.2)


def test_memory_of_the_window_is_bounded():
    """However many requests come in it."""
    outcomes = Outcomes(Clock())
    for _ in range(WINDOW_MAX + 100):
        outcomes.job_ended(ended())
    assert len(outcomes._recent) == WINDOW_MAX
    assert outcomes.counts()["answered"] == WINDOW_MAX + 100


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (51, 3), (75, 3), (95, 4), (100, 4)])
def test_percentiles_are_values_that_occurred(percent, value):
    """Nearest rank."""
    assert percentile([1, 2, 3, 4], percent) == value


def test_own_memory_and_cpu(tmp_path):
    """As procfs says it, over the time since the reading before."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tx\nVmRSS:\t9 kB\nRssAnon:\t 2048 kB\nRssFile:\t 4096 kB\n")
    stat = tmp_path / "proc/stat"
    stat.write_text("cpu  100 0 50 800 50 0 0 0 30 0\ncpu0 1 2 3\n")
    clock, used = Clock(), Clock()
    process = OwnProcess(tmp_path, clock, used)
    stat.write_text("cpu  160 0 70 900 70 0 0 0 60 0\ncpu0 1 2 3\n")
    clock.now += 10
    used.now += 15
    assert process.read() == {
        "rss_mib": 2.0, "rss_mapped_mib": 4.0, "cpu_percent": 150.0, "cpu_busy_percent": pytest.approx(40.0),
    }  # fmt: skip
    clock.now += 0.1
    used.now += 5
    assert process.read()["cpu_percent"] == 150.0  # too soon to be another figure


def test_a_system_without_procfs(tmp_path):
    """Says nothing, rather than 0."""
    clock = Clock()
    process = OwnProcess(tmp_path, clock)
    clock.now += 10
    found = process.read()
    assert found["rss_mib"] is None and found["cpu_busy_percent"] is None and found["cpu_percent"] is not None


def readings(**values):
    units = {"t_soc": "C", "mem_total": "MiB", "mem_available": "MiB", "power": "W", "energy_total": "J"}
    return {name: Reading(name, units.get(name, "1"), value, "/x") for name, value in values.items()}


def snap(**named):
    given = {"readings": {}, "process": {}, "window": {}, "counts": {}, "now": {}, "sensors_lost": 0.0}
    return snapshot_of(**{**given, **named})


def test_a_snapshot_has_all_figures():
    """In the order of the table; those of absent sensors are null."""
    found = snap(
        readings=readings(t_soc=50.0, power=None, mem_total=4000.0, mem_available=1000.0), counts={"answered": 3}
    )
    assert tuple(found) == NAMES
    assert (found["t_soc"], found["power_w"], found["memory_percent"], found["answered"]) == (50.0, None, 75.0, 3.0)
    assert to_json(found)["answered"] == 3 and to_json(found)["energy_j"] is None


def test_the_present_speed_goes_before_that_of_the_window():
    """And where nothing is decoded, the window's holds."""
    assert snap(window={"tok_s": 5.0}, now={"tok_s": 7.0})["tok_s"] == 7.0
    assert snap(window={"tok_s": 5.0}, now={"tok_s": None})["tok_s"] == 5.0


def test_counts_are_recorded_as_what_has_come():
    """A meter that began anew counts from 0, and one that came later from its first value on."""
    before = snap(counts={"answered": 3}, readings=readings(energy_total=100.0))
    after = snap(counts={"answered": 5}, readings=readings(energy_total=40.0))
    assert (since(before, after)["answered"], since(before, after)["energy_j"]) == (2.0, 40.0)
    assert since({}, after)["answered"] == 5.0
    assert since(before, snap())["energy_j"] is None


def test_a_sensor_is_lost_that_was_there_before():
    """One that never was is none."""
    lost = LostSensors()
    assert lost.count(readings(t_soc=50.0, power=None)) == 0
    assert lost.count(readings(t_soc=None, power=None)) == 1
    assert lost.count(readings(power=3.0)) == 1
    assert lost.count(readings(t_soc=51.0, power=3.0)) == 0


def test_a_sensor_that_rests_is_not_lost():
    """The power of a battery that is not discharged: no alert for a device that is plugged in."""
    lost = LostSensors()
    resting = Reading("power", "W", None, "", absent="the battery is not being discharged", is_lost=False)
    assert lost.count(readings(power=3.0)) == 0
    assert lost.count({"power": resting}) == 0
    assert lost.count(readings(power=3.0)) == 0 and lost.count(readings(power=None)) == 1


def test_every_figure_is_documented():
    """docs/monitoring.md shows the table as it is."""
    text = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
    for quantity in QUANTITIES:
        assert f"| `{quantity.name}` | {quantity.unit} | {quantity.kind} | {quantity.meaning} |" in text
