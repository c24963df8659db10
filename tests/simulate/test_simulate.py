"""The simulated device and what the governor's modes come to on it: the claims of docs/decisions/governor.md."""

import functools
import json

import pytest
from click.testing import CliRunner

from edgebit.cli.simulate import command
from edgebit.simulate.boards import BOARDS, CASES
from edgebit.simulate.compare import Scene, controls
from edgebit.simulate.device import Device, decode_speed
from edgebit.simulate.pool import Pool, compare_pools, pool_row
from edgebit.simulate.run import LIMIT_C, Control, Work, run

_run = functools.cache(run)


def results(names, case, ambient=25.0, **fields):
    """The results of the controls of these names."""
    scene = Scene(case=case, ambient_c=ambient, **fields)
    chosen = [control for control in controls(scene) if control.name in names]
    return {control.name: _run(case, ambient, scene.work, control, scene.duration_s) for control in chosen}


@pytest.mark.parametrize("case", CASES)
def test_a_device_at_rest_stays_as_it_is(case):
    """It begins in balance: idle power x resistance above the air, with the fan where there is one."""
    device = Device(case, 22.0)
    before = device.die_c
    for _ in range(2000):
        device.step(0.25, threads=0, duty=0.0)
    assert device.die_c == pytest.approx(before, abs=0.5)
    assert 22.0 < device.die_c < 70.0 and not device.throttled


def test_the_firmware_slows_between_80_and_85():
    """Full clock below, least at the upper end, in steps between, never back up as it warms."""
    device = Device("rpi5-bare", 22.0)
    clocks = []
    for tenth in range(780, 870):
        device.die_c = tenth / 10
        clocks.append(device.clock_mhz)
    assert clocks[0] == 2400 and clocks[-1] == 1500
    assert clocks == sorted(clocks, reverse=True) and len(set(clocks)) == 10


def test_the_fan_has_a_hysteresis():
    """It runs from 50 C on, faster with each step, and stops 5 C below where it began."""
    device = Device("rpi5-fan", 22.0)
    steps = []
    for celsius in (49, 51, 46, 44.9, 68, 63, 62, 76, 40):
        device.die_c = float(celsius)
        device.step(1e-9, threads=0, duty=0.0)
        steps.append(device.fan_step)
    assert steps == [0, 1, 1, 0, 3, 3, 2, 4, 0]


def test_the_pi_500_does_as_was_published():
    """80 to 85 C and 2.0 to 2.4 GHz after some minutes of work, about 10 W (geerlingguy/sbc-reviews issue 60)."""
    result = run("rpi500", 22.0, Work(), Control(name="off", threads=4), 3600)
    warm = result.samples[1800:]
    reached = next(sample.at for sample in result.samples if sample.celsius >= 80)
    assert 180 < reached < 420
    assert all(80 <= sample.celsius <= 85 for sample in warm)
    assert 2000 <= sum(sample.clock_mhz for sample in warm) / len(warm) <= 2400
    assert 9.0 < sum(sample.watts for sample in warm) / len(warm) < 10.8


@pytest.mark.parametrize("board", BOARDS)
def test_decode_is_bound_by_memory(board):
    """A second thread helps, a fourth one at full clock brings nothing: that is what makes threads a surplus."""
    full = BOARDS[board].clock_mhz[1]
    speeds = [decode_speed(board, threads, full) for threads in (1, 2, 4)]
    assert speeds[0].tok_s < 0.8 * speeds[1].tok_s
    assert speeds[2].tok_s < 1.02 * speeds[1].tok_s
    assert speeds[2].computing < speeds[1].computing < 1


@pytest.mark.parametrize(
    ("case", "ambient"), [("rpi5-bare", 25), ("rpi500", 25), ("rpi500", 35), ("rpi5-heatsink", 30), ("rpi4-bare", 25),
                          ("rpi4-closed", 25), ("rpi4-closed", 35), ("rpi5-fan", 30)]
)  # fmt: skip
def test_mode_speed_loses_nothing(case, ambient):
    """Shedding threads keeps 99 % of the speed and the gaps, and takes no more energy: why it is the default."""
    found = results(("off", "speed"), case, ambient)
    assert found["speed"].tok_s >= 0.99 * found["off"].tok_s
    assert found["speed"].joules_per_token <= 1.01 * found["off"].joules_per_token
    assert found["speed"].gap_p95_s <= 1.1 * found["off"].gap_p95_s
    assert found["speed"].over_s <= found["off"].over_s and found["speed"].max_c <= found["off"].max_c


@pytest.mark.parametrize(("case", "ambient"), [("rpi5-bare", 25), ("rpi500", 35), ("rpi4-closed", 25)])
def test_mode_temperature_keeps_it_and_costs_speed(case, ambient):
    """Hardly a second above 80 C, but never as fast as the firmware; pauses alone cost more than threads and pauses."""
    found = results(("off", "temperature", "temperature, pauses only"), case, ambient)
    kept, off, pauses = found["temperature"], found["off"], found["temperature, pauses only"]
    assert kept.over_s < 120 < off.over_s
    assert kept.tok_s < off.tok_s
    assert pauses.tok_s < kept.tok_s and pauses.joules_per_token > off.joules_per_token


def test_the_hard_stop_holds_where_the_firmware_cannot():
    """In hot air the least clock is still too much: work is refused, and the device stays about the limit."""
    found = results(("off", "speed"), "rpi5-closed", 35.0)
    assert found["off"].max_c > 100 > 92 > found["speed"].max_c
    assert found["speed"].answered < found["off"].answered


def test_requests_come_at_random_moments_and_the_same_each_time():
    """A seed gives the same requests; all are answered where there is time, in their turn."""
    scene = {"work": Work(tokens=64, per_hour=100, seed=3), "duration_s": 1800}
    speed = next(control for control in controls(Scene(case="rpi5-fan")) if control.name == "speed")
    first, again = (run("rpi5-fan", 25.0, scene["work"], speed, scene["duration_s"]) for _ in range(2))
    assert first.samples == again.samples and 30 < first.answered < 70 and first.refused == 0
    assert first.wait_p95_s + 0.25 >= 64 / 17.9


def test_leaving_the_pool_while_hot_pays_only_where_a_temperature_is_kept():
    """With the firmware at the levers a hot device still works; held to a temperature it does not, and another can."""
    pool = Pool(cases=("rpi5-closed", "rpi5-fan"), work=Work(per_hour=120), ambient_c=35.0, duration_s=2400)
    rows = {row["control"]: row for row in map(pool_row, compare_pools(pool))}
    stays, leaves = rows["temperature"], rows["temperature, out while hot"]
    assert leaves["wait_p95_s"] < 0.5 * stays["wait_p95_s"] and leaves["answered"] >= stays["answered"]
    assert leaves["out_of_pool_s"][0] > 0 == leaves["out_of_pool_s"][1]
    assert rows["speed, out while hot"]["wait_p95_s"] > 1.2 * rows["speed"]["wait_p95_s"]


def test_a_pool_of_hot_devices_does_not_answer():
    """Where both are out nobody is left: why it is not the default."""
    pool = Pool(cases=("rpi5-closed", "rpi5-closed"), work=Work(per_hour=240), ambient_c=35.0, duration_s=1200)
    rows = {row["control"]: row for row in map(pool_row, compare_pools(pool))}
    assert rows["speed, out while hot"]["answered"] < 0.5 * rows["speed"]["answered"]


def test_the_command_prints_and_draws(tmp_path):
    """A table, JSON with the sources of its figures, and a picture."""
    runner = CliRunner()
    args = ["--case", "rpi500", "--minutes", "4", "--requests", "60"]
    table = runner.invoke(command, [*args, "--plot", str(tmp_path / "heat.svg"), "--sources"])
    assert table.exit_code == 0, table.output
    assert "Pi 500: passive" in table.output and "temperature, pauses only" in table.output
    assert "issue 60" in table.output and "ASSUMPTION" in table.output
    assert "<polyline" in (tmp_path / "heat.svg").read_text()
    pools = runner.invoke(command, [*args, "--beside", "rpi5-fan"])
    assert pools.exit_code == 0 and "temperature, out while hot" in pools.output
    body = json.loads(runner.invoke(command, [*args, "--json"]).output)
    assert [row["control"] for row in body["results"]][:3] == ["off", "speed", "temperature"]
    assert body["limit_c"] == LIMIT_C and "case" in body["sources"]


def test_a_stop_below_the_target_is_refused():
    """The hard limit lies above what is aimed at."""
    refused = CliRunner().invoke(command, ["--target", "80", "--stop", "78"])
    assert refused.exit_code == 2 and "must lie above" in refused.output
