"""A device that warms, slows itself down as firmware does, and decodes as the roofline says."""

import dataclasses
import math
from functools import lru_cache
from typing import NamedTuple

from edgebit.plan.model_facts import ModelFacts, facts_of
from edgebit.roofline import Part, estimate, machine_of
from edgebit.simulate.boards import BOARDS, CASES, DIE_RESISTANCE, DIE_S, Board
from edgebit.targets import Target, find_target

MODEL = "2b4t"  # the shape that is decoded, BitNet b1.58 2B-4T
SENSOR_STEP_C = 0.55  # in which a Pi's sensor counts
FAN_HYSTERESIS_C = 5.0


class Speed(NamedTuple):
    """What a number of threads does at a clock."""

    tok_s: float
    computing: float  # share of the time that a core computes rather than waits for memory


@dataclasses.dataclass(slots=True)
class Device:
    """The physical state. step() moves it on by a moment; nothing in it is random."""

    case: str
    ambient_c: float
    die_c: float = 0.0
    board_c: float = 0.0
    fan_step: int = 0  # 0: off

    def __post_init__(self) -> None:
        self.die_c = self.board_c = self.ambient_c
        for _ in range(4000):  # at rest until nothing changes: half an hour of boot and waiting
            self.step(0.5, threads=0, duty=0.0)

    @property
    def board(self) -> Board:
        """The board in the case."""
        return BOARDS[CASES[self.case].board]

    @property
    def celsius(self) -> float:
        """What the sensor says."""
        return round(self.die_c / SENSOR_STEP_C) * SENSOR_STEP_C

    @property
    def clock_mhz(self) -> int:
        """What the firmware runs the cores at."""
        board = self.board
        low, high = board.throttle_c
        least, full = board.clock_mhz
        share = min(max((self.die_c - low) / (high - low), 0.0), 1.0)
        return full - board.clock_step_mhz * math.floor(share * (full - least) / board.clock_step_mhz)

    @property
    def throttled(self) -> bool:
        """Whether the firmware slows the cores now."""
        return self.clock_mhz < self.board.clock_mhz[1]

    def step(self, seconds: float, *, threads: int, duty: float) -> tuple[float, float]:
        """Work so for a moment; gives the tokens decoded and the joules drawn."""
        case = CASES[self.case]
        clock = self.clock_mhz
        resistance, fan_w = self._fan()
        speed = decode_speed(case.board, threads, clock) if threads else Speed(0.0, 0.0)
        watts = fan_w + self._watts(threads, clock, speed, duty)
        flow = (self.die_c - self.board_c) / DIE_RESISTANCE
        self.die_c += seconds * (watts - flow) / (DIE_S / DIE_RESISTANCE)
        self.board_c += seconds * (flow - (self.board_c - self.ambient_c) / resistance) / case.capacity
        return speed.tok_s * duty * seconds, watts * seconds

    def _watts(self, threads: int, clock: int, speed: Speed, duty: float) -> float:
        board = self.board
        least, full = board.clock_mhz
        low, high = board.volts
        volts = low + (high - low) * (clock - least) / (full - least)
        core = board.core_w * (volts / high) ** 2 * clock / full
        core *= board.stalled + (1 - board.stalled) * speed.computing
        leak = board.leak_w * (volts / high) ** 2 * (math.exp(min(self.die_c - 50, 80) / 30) - 1)
        memory = board.byte_j * bytes_per_token() * speed.tok_s
        return board.idle_w + leak + duty * (threads * core + memory)

    def _fan(self) -> tuple[float, float]:
        """The resistance now, and the fan's watts."""
        case = CASES[self.case]
        while self.fan_step < len(case.fan) and self.die_c >= case.fan[self.fan_step][0]:
            self.fan_step += 1
        while self.fan_step and self.die_c < case.fan[self.fan_step - 1][0] - FAN_HYSTERESIS_C:
            self.fan_step -= 1
        return case.fan[self.fan_step - 1][1:] if self.fan_step else (case.resistance, 0.0)


@lru_cache
def _model() -> ModelFacts:
    return facts_of(MODEL)


@lru_cache
def _target(name: str) -> Target:
    return find_target(name)


@lru_cache
def _parts() -> tuple[Part, ...]:
    return tuple(_model().footprint("t2").decode_parts(0, "f16"))


@lru_cache
def bytes_per_token() -> float:
    """What a decode step reads."""
    return sum(part.n_bytes for part in _parts())


@lru_cache(maxsize=1024)
def decode_speed(board: str, threads: int, clock_mhz: int) -> Speed:
    """Decode with so many threads at that clock, in the middle of the estimate's range."""
    machine = machine_of(dataclasses.replace(_target(BOARDS[board].target), clock_ghz=clock_mhz / 1000))
    found = estimate(machine, _parts(), threads)
    assert found is not None  # a board's target has its bandwidths
    seconds = 1 / found.tokens_s.middle
    computing = sum(
        part.weights / threads / machine.weights_s[part.op].middle for part in _parts() if part.op in machine.weights_s
    )
    return Speed(1 / seconds, min(computing / seconds, 1.0))
