"""The ways of control side by side on one device, as figures and as a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgebit.daemon.governor.settings import Settings
from edgebit.line_plot import Panel, Picture, Series
from edgebit.simulate.boards import BOARDS, CASES
from edgebit.simulate.run import LIMIT_C, Control, Result, Work, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is simulated."""

    case: str
    ambient_c: float = 25.0
    work: Work = field(default_factory=Work)
    duration_s: int = 3600
    threads: int = 4
    target_c: float = Settings(threads_max=1).target_c
    stop_c: float = Settings(threads_max=1).stop_c


def controls(scene: Scene) -> list[Control]:
    """The firmware alone, the governor's two ways, and each lever of the second one by itself."""
    most, target, stop = scene.threads, scene.target_c, scene.stop_c

    def governed(name: str, *, hold: bool, threads: bool = True, pace: bool = True) -> Control:
        settings = Settings(
            threads_max=most, target_c=target, stop_c=stop, hold_target=hold, lower_threads=threads, pace=pace
        )
        return Control(name=name, threads=most, settings=settings)

    return [
        Control(name="off", threads=most),
        governed("speed", hold=False),
        governed("temperature", hold=True),
        governed("temperature, threads only", hold=True, pace=False),
        governed("temperature, pauses only", hold=True, threads=False),
        *(Control(name=f"off, {threads} threads", threads=threads) for threads in range(most - 1, 1, -1)),
    ]


def compare(scene: Scene, done: Callable[[str], None] = lambda name: None) -> list[Result]:
    """Run each of controls(); `done` hears of each."""
    results = []
    for control in controls(scene):
        results.append(run(scene.case, scene.ambient_c, scene.work, control, scene.duration_s))
        done(control.name)
    return results


def report(scene: Scene, results: Sequence[Result]) -> dict[str, Any]:
    """Figures and what they rest on, for JSON."""
    board = BOARDS[CASES[scene.case].board]
    return {
        "case": scene.case,
        "ambient_c": scene.ambient_c,
        "duration_s": scene.duration_s,
        "threads": scene.threads,
        "requests_per_hour": scene.work.per_hour,
        "tokens": scene.work.tokens,
        "target_c": scene.target_c,
        "stop_c": scene.stop_c,
        "limit_c": LIMIT_C,
        "results": [row(result) for result in results],
        "sources": {**dict(board.sources), "case": CASES[scene.case].source},
    }


def row(result: Result) -> dict[str, Any]:
    """The figures of one result."""
    return {
        "control": result.control,
        "tok_s": round(result.tok_s, 2),
        "gap_p95_ms": round(1000 * result.gap_p95_s),
        "joules_per_token": round(result.joules_per_token, 3),
        "over_limit_s": result.over_s,
        "max_c": round(result.max_c, 1),
        "answered": result.answered,
        "refused": result.refused,
        "wait_p95_s": round(result.wait_p95_s, 1),
        "moves": result.moves,
    }


def picture(scene: Scene, results: Sequence[Result], shown: int = 3) -> Picture:
    """Temperature, clock, speed and power over time, of the first `shown` results."""
    case = CASES[scene.case]
    chosen = results[:shown]

    def panel(title: str, figure: Callable[[Any], float], line: float | None = None) -> Panel:
        series = [Series(item.control, [(each.at, figure(each)) for each in item.samples]) for item in chosen]
        return Panel(title, series, line=line)

    asked = "all the time" if scene.work.per_hour is None else f"{scene.work.per_hour:g} requests an hour"
    return Picture(
        f"Simulated: {case.words}",
        f"{scene.ambient_c:g} °C around it, {asked}, {scene.threads} threads, BitNet 2B-4T; dashed: {LIMIT_C:g} °C",
        [
            panel("temperature, °C", lambda sample: sample.celsius, LIMIT_C),
            panel("clock, MHz", lambda sample: float(sample.clock_mhz)),
            panel("decode, tok/s", lambda sample: sample.tok_s),
            panel("power, W", lambda sample: sample.watts),
        ],
    )
