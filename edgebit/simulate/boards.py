"""The boards and cases that are simulated, each figure with where it comes from.

What nobody has published is an ASSUMPTION and says so here and in docs/heat.md: a simulation compares ways of control
on one and the same device, it does not tell how warm yours gets.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Power and firmware of a board; speeds come from its target (edgebit/roofline.py)."""

    target: str  # whose targets/<name>.toml
    clock_mhz: tuple[int, int]  # least that the firmware slows to, and full
    volts: tuple[float, float]  # of the core at these
    clock_step_mhz: int
    idle_w: float  # of the whole board, at 50 C
    core_w: float  # of one core that computes at full clock
    stalled: float  # share of that for a core that waits for memory
    byte_j: float  # J a byte read from memory
    leak_w: float  # of idle_w, what grows with temperature: by e each 30 C
    throttle_c: tuple[float, float] = (80.0, 85.0)  # the clock falls from full to least between these
    sources: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How heat leaves the board."""

    board: str
    words: str
    resistance: float  # K/W from the board's mass to the air, without a fan
    capacity: float  # J/K of the board's mass and what is bolted to it
    fan: tuple[tuple[float, float, float], ...] = ()  # from C; K/W then; W of the fan
    source: str


_FIRMWARE = (
    "throttle_c",
    "Raspberry Pi documentation, Frequency management and thermal control: progressively from 80 C, all at 85 C; "
    "that the clock falls evenly between them is an assumption",
)
_DIE = (
    "die",
    "1.5 K/W and 3 s from the die to the board: ASSUMPTION",
)
_LEAK = ("leak_w", "ASSUMPTION")
_MEMORY = (
    "byte_j, stalled",
    "ASSUMPTION: 0.1 J/GB and 0.6, with which four threads of decode at full clock draw some 10 W: between the 7.0 to "
    "8.2 W of github.com/ggml-org/llama.cpp issue 26484 (5.6 to 6.7 W at the PMIC; input power by the fit 1.1327 x + "
    "0.6444) and the 10.9 to 11.9 W at the wall of github.com/geerlingguy/ai-benchmarks issue 7",
)

BOARDS = {
    "rpi5": Board(
        target="rpi5",
        clock_mhz=(1500, 2400),
        volts=(0.72, 0.91),
        clock_step_mhz=100,
        idle_w=3.3,
        core_w=1.93,
        stalled=0.6,
        byte_j=0.1e-9,
        leak_w=0.3,
        sources=(
            _FIRMWARE,
            ("clock_mhz", "Raspberry Pi documentation, BCM2712"),
            ("volts", "sbc-bench on a Pi 5: 0.91 V at 2400 MHz, 0.72 V at 1500 (geerlingguy/sbc-reviews issue 21)"),
            ("idle_w", "targets/rpi5.toml"),
            ("core_w", "a quarter of 11.0 W under Linpack less idle_w (targets/rpi5.toml)"),
            _MEMORY,
            _LEAK,
            _DIE,
        ),
    ),
    "rpi4": Board(
        target="rpi4",
        clock_mhz=(600, 1500),
        volts=(0.80, 0.88),
        clock_step_mhz=50,
        idle_w=3.1,
        core_w=0.75,
        stalled=0.6,
        byte_j=0.1e-9,
        leak_w=0.2,
        sources=(
            _FIRMWARE,
            ("clock_mhz", "Raspberry Pi documentation, BCM2711"),
            ("volts", "ASSUMPTION: typical of what `vcgencmd measure_volts core` says"),
            ("idle_w", "targets/rpi4.toml"),
            ("core_w", "a quarter of 6.1 W under stress less idle_w (targets/rpi4.toml)"),
            ("byte_j, stalled", "ASSUMPTION, as for rpi5"),
            _LEAK,
            _DIE,
        ),
    ),
}

CASES = {
    "rpi5-bare": Case(
        board="rpi5",
        words="Pi 5, bare board on a desk",
        resistance=7.0,
        capacity=17.0,
        source="idles at about 50 C (beamostore.com, Raspberry Pi 5 overheating), the room taken as 22, at 3.3 W: "
        "8.5 K/W with the die's 1.5; reaches 80 C under stress within a few minutes (pidiylab.com): 120 s",
    ),
    "rpi5-closed": Case(
        board="rpi5",
        words="Pi 5 in a closed plastic case without a fan",
        resistance=8.5,
        capacity=17.0,
        source="ASSUMPTION: 1.5 K/W more than the bare board",
    ),
    "rpi500": Case(
        board="rpi5",
        words="Pi 500: passive, a metal plate under the keys",
        resistance=4.7,
        capacity=36.0,
        source="10.5 to 10.7 W for about 5 minutes, then 9.8 W at 80 to 85 C and 2.2 to 2.4 GHz "
        "(geerlingguy/sbc-reviews issue 60), the room taken as 22 C: 6.2 K/W with the die's 1.5, 168 s",
    ),
    "rpi5-heatsink": Case(
        board="rpi5",
        words="Pi 5 in an aluminium case, passive",
        resistance=3.3,
        capacity=120.0,
        source="63 C after a long time under stress (nschloe/stressberry issue 138), taken as 8.5 W in a room of 22 C: "
        "4.8 K/W with the die's 1.5; the capacity, with which it takes 400 s, is an ASSUMPTION",
    ),
    "rpi5-fan": Case(
        board="rpi5",
        words="Pi 5 with the Active Cooler",
        resistance=5.5,
        capacity=40.0,
        fan=((50.0, 4.0, 0.2), (60.0, 3.1, 0.4), (67.5, 2.5, 0.7), (75.0, 2.0, 1.0)),
        source="fan steps: Raspberry Pi documentation, 50/60/67.5/75 C, 5 C hysteresis; about 61 C under stress "
        "(nschloe/stressberry issue 139) gives the resistance of the second step, the other ones, the fan's power and "
        "the capacity are ASSUMPTIONS",
    ),
    "rpi4-bare": Case(
        board="rpi4",
        words="Pi 4, bare board on a desk",
        resistance=7.5,
        capacity=16.0,
        source="54.7 C at rest in air of 27.3 (pi-plates.com, THERMOplate on a Pi 4) at 3.1 W: 9 K/W with the die's "
        "1.5; the capacity is an ASSUMPTION: 120 s",
    ),
    "rpi4-closed": Case(
        board="rpi4",
        words="Pi 4 in a closed plastic case",
        resistance=9.0,
        capacity=16.0,
        source="ASSUMPTION: 1.5 K/W more than the bare board",
    ),
}
DIE_RESISTANCE, DIE_S = 1.5, 3.0  # K/W and seconds from the die, where the sensor sits, to the board
