"""What the governor may move: the engine's threads, its pace, and whether new work is taken."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """Where the levers stand now. The scheduler obeys threads, duty and admit; the pool obeys in_pool."""

    threads: int = 0  # that the engine may use; 0: all it was opened with
    duty: float = 1.0  # part of the time that the engine may compute, above 0 to 1
    admit: bool = True  # whether new jobs are taken
    closed_by: str = ""  # code of the refusal of new jobs: "hot", "battery_low", "memory_short"; empty: they are taken
    in_pool: bool = True  # whether the device may stand in for others
    hot: bool = False  # what `status` says while it is held back
    sustainable_tok_s: float | None = None  # decode speed that heat allows for long; None: not known
    reason: str = ""  # in words, for status and log
