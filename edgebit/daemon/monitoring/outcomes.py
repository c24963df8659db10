"""How requests have ended: counts since the start, and speed, delay and errors over a sliding window.

Bounded: the window holds the last requests only, so on a busy device it is shorter than its seconds.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgebit.daemon.serving.outcome import Outcome

WINDOW_S = 300.0
WINDOW_MAX = 512  # requests
RATE_LEAST = 5  # ended requests before their share of errors says anything
DEVICE_FAULTS = (500, 507)
CANCELLED = 499


@dataclass(frozen=True, slots=True)
class _Ended:
    at: float
    outcome: Outcome


class Outcomes:
    """Takes note of every job's end; read from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: deque[_Ended] = deque(maxlen=WINDOW_MAX)
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._totals = {"answer_s": 0.0, "answer_s_count": 0.0, "first_token_s": 0.0, "first_token_s_count": 0.0}

    def job_ended(self, outcome: Outcome) -> None:
        """Count it, and put it into the window."""
        with self._lock:
            self._recent.append(_Ended(self._clock(), outcome))
            self._counts[_kind(outcome.status)] += 1
            if outcome.code:
                self._errors[outcome.code] += 1
            self._counts["prompt_tokens"] += outcome.prompt_tokens
            self._counts["reused_tokens"] += outcome.reused_tokens
            self._counts["answer_tokens"] += outcome.completion_tokens
            if outcome.status == 200:
                self._counts["cache_hits"] += outcome.from_cache
                self._counts["cache_misses"] += outcome.cacheable and not outcome.from_cache
                self._sum("answer_s", outcome.total_s)
                self._sum("first_token_s", outcome.first_token_s)

    def refused(self, status: int, code: str) -> None:
        """Count a request that became no job."""
        with self._lock:
            self._counts[_kind(status)] += 1
            self._errors[code] += 1

    def counts(self) -> dict[str, int]:
        """Since the start: requests by how they ended, and tokens."""
        with self._lock:
            return dict(self._counts)

    def errors(self) -> dict[str, int]:
        """Since the start: requests by the code of their error."""
        with self._lock:
            return dict(self._errors)

    def totals(self) -> dict[str, float]:
        """Since the start: seconds of answered requests, whole and to the first token, with how many they were."""
        with self._lock:
            return {name: round(value, 3) for name, value in self._totals.items()}

    def window(self) -> dict[str, float | None]:
        """Speeds, delays and the share of errors of the last WINDOW_S; None where there was nothing to tell it from."""
        with self._lock:
            self._forget()
            ended = [item.outcome for item in self._recent]
        answered = [outcome for outcome in ended if outcome.status == 200]
        failed = sum(1 for outcome in ended if outcome.status in DEVICE_FAULTS)
        judged = len(answered) + failed
        computed = [outcome for outcome in answered if not outcome.from_cache]
        first = sorted(outcome.first_token_s for outcome in answered if outcome.first_token_s is not None)
        whole = sorted(outcome.total_s for outcome in answered)
        metered = [outcome for outcome in computed if outcome.energy.joules is not None]
        return {
            "error_rate": failed / judged if judged >= RATE_LEAST else None,
            "tok_s": _rate((outcome.completion_tokens, outcome.decode_s) for outcome in computed),
            "prompt_tok_s": _rate(
                (outcome.prompt_tokens - outcome.reused_tokens, outcome.prompt_s) for outcome in computed
            ),
            "latency_p50_ms": percentile(whole, 50, 1000),
            "latency_p95_ms": percentile(whole, 95, 1000),
            "latency_p99_ms": percentile(whole, 99, 1000),
            "first_token_p50_ms": percentile(first, 50, 1000),
            "first_token_p95_ms": percentile(first, 95, 1000),
            "joules_per_token": _rate(
                (outcome.energy.joules or 0.0, float(outcome.completion_tokens)) for outcome in metered
            ),
        }

    def _sum(self, name: str, seconds: float | None) -> None:
        if seconds is not None:
            self._totals[name] += seconds
            self._totals[f"{name}_count"] += 1

    def _forget(self) -> None:
        oldest = self._clock() - WINDOW_S
        while self._recent and self._recent[0].at < oldest:
            self._recent.popleft()


def percentile(ordered: Sequence[float], percent: float, scale: float = 1.0) -> float | None:
    """The nearest-rank percentile of values in rising order, times `scale`; None where there are none."""
    if not ordered:
        return None
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(int(rank), 1) - 1] * scale


def _kind(status: int) -> str:
    if status == 200:
        return "answered"
    if status in DEVICE_FAULTS:
        return "failed"
    return "cancelled" if status == CANCELLED else "refused"


def _rate(pairs: Iterable[tuple[float, float]]) -> float | None:
    """The sum of the first ones for each of the second ones; None where those come to nothing."""
    above, below = 0.0, 0.0
    for first, second in pairs:
        above += first
        below += second
    return above / below if below > 0 and above > 0 else None
