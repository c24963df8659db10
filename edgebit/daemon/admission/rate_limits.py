"""How much each principal may ask for: requests, tokens and joules within a window, charged when a job ends.

What a job may take at most is charged when it is admitted, and what it has not taken is given back when it ends, so
that many jobs at once do not pass a limit together. Tables are of a fixed size: names that an attacker makes up share
one bucket once it is full of names that count.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgebit.daemon.admission.principals import UNITS, Principals
from edgebit.daemon.admission.sliding_window import SlidingWindow
from edgebit.daemon.config.safeguards import RateLimitsConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.privacy.hashed_names import SHARED, HashedNames
from edgebit.daemon.serving.outcome import Outcome

BYTES_A_TOKEN = 3  # of a prompt, for what is charged until its tokens are counted: few texts have shorter tokens
OTHERS = "others"  # the bucket of those who found no place in the table
TOP = 20  # principals in the metrics


@dataclass(frozen=True, slots=True)
class Totals:
    """What a principal has had since the daemon's start."""

    requests: int = 0
    tokens: int = 0
    joules: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.requests + other.requests, self.tokens + other.tokens, self.joules + other.joules)

    def to_json(self) -> dict[str, Any]:
        """For metrics."""
        return {"requests": self.requests, "tokens": self.tokens, "joules": round(self.joules, 3)}


@dataclass(slots=True)
class _Account:
    """One principal, or those who share a bucket."""

    touched: float
    windows: dict[str, SlidingWindow] = field(default_factory=dict)  # of the units that are limited
    totals: Totals = field(default_factory=Totals)


@dataclass(frozen=True, slots=True)
class _Charge:
    """What a job in flight was charged with."""

    name: str  # of the account
    at: float
    amounts: Mapping[str, float]


class RateLimits:
    """Accounts by principal. From any thread."""

    def __init__(
        self,
        config: RateLimitsConfig,
        principals: Principals,
        names: HashedNames,
        *,
        shared: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`shared`: nobody can be told from another (auth = "open"), so all callers have one bucket together."""
        self._shared = shared
        self._config = config
        self._principals = principals
        self._names = names
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()  # by hashed name, the longest untouched first
        self._others = _Account(clock())  # with the totals of accounts that were given up
        # By principal and job, oldest first: a job's end may be told after another of the same id was admitted.
        self._charges: dict[tuple[str, str], list[_Charge]] = {}
        self._joules_a_token = 0.0  # smoothed, for what is charged before it is known

    def admit(self, principal: str, job_id: str, *, prompt_bytes: int, max_tokens: int) -> None:
        """Charge `principal` for a job, or raise Refusal 429; release() or job_ended() settles it.

        retry_after_ms is true: after so long the same request passes, unless other jobs of the principal are admitted
        meanwhile or cost more than they were charged with. A request that no wait lets pass is not `retryable`.
        """
        tokens = max_tokens + math.ceil(prompt_bytes / BYTES_A_TOKEN)
        with self._lock:
            amounts = {"requests": 1.0, "tokens": float(tokens), "joules": tokens * self._joules_a_token}
            now = self._clock()
            limits = self._limits(principal)
            name, account = self._account(principal, now)
            waits = {unit: self._wait_s(account, unit, limits[unit], amounts[unit], now) for unit in limits}
            if any(waits.values()):
                unit = max(waits, key=lambda unit: waits[unit])
                used = _window(account, unit, self._config.window_s).total(now)
                raise self._over(unit, limits[unit], amounts[unit], used, waits[unit])
            for unit in limits:
                _window(account, unit, self._config.window_s).add(now, amounts[unit])
            charge = _Charge(name, now, {unit: amounts[unit] for unit in limits})
            self._charges.setdefault((principal, job_id), []).append(charge)

    def release(self, principal: str, job_id: str) -> None:
        """A job that was charged and then not taken: it costs nothing."""
        with self._lock:
            charge = self._take_charge(principal, job_id, newest=True)
            account = None if charge is None else self._charged(charge)
            if charge is not None and account is not None:
                for unit, amount in charge.amounts.items():
                    _window(account, unit, self._config.window_s).give_back(charge.at, amount)

    def job_ended(self, outcome: Outcome) -> None:
        """Charge what the job has taken instead of what it might have: see OutcomeListener.

        A job that was not charged, since it comes from before a restart, is charged now.
        """
        tokens = 0 if outcome.from_cache else outcome.prompt_tokens - outcome.reused_tokens + outcome.completion_tokens
        joules = outcome.energy.joules or 0.0
        taken = {"requests": 1.0, "tokens": float(tokens), "joules": joules}
        with self._lock:
            if joules and tokens:
                self._learn(joules / tokens)
            now = self._clock()
            charge = self._take_charge(outcome.principal, outcome.job_id, newest=False)
            if charge is None:
                name, _ = self._account(outcome.principal, now)
                charge = _Charge(name, now, dict.fromkeys(self._limits(outcome.principal), 0.0))
            account = self._charged(charge)
            if account is None:
                self._others.totals += Totals(1, tokens, joules)
                return
            account.totals += Totals(1, tokens, joules)
            account.touched = now
            for unit, amount in charge.amounts.items():
                window = _window(account, unit, self._config.window_s)
                if taken[unit] <= amount:
                    window.give_back(charge.at, amount - taken[unit])
                else:
                    window.add(now, taken[unit] - amount)

    def totals(self) -> dict[str, dict[str, Any]]:
        """Requests, tokens and joules by hashed name: the TOP by tokens, and `others` for the rest."""
        with self._lock:
            ranked = sorted(self._accounts.items(), key=lambda item: item[1].totals.tokens, reverse=True)
            rest = self._others.totals
        for _, account in ranked[TOP:]:
            rest += account.totals
        shown = {name: account.totals.to_json() for name, account in ranked[:TOP] if account.totals.requests}
        return {**shown, OTHERS: rest.to_json()} if rest.requests else shown

    def describe(self) -> dict[str, Any] | None:
        """The limits that hold for principals without limits of their own, for `info`; None where there is none."""
        limits = {unit: getattr(self._config, unit) for unit in UNITS if getattr(self._config, unit)}
        if not limits and (self._shared or not len(self._principals)):
            return None
        return {"window_s": self._config.window_s, "per_principal": not self._shared, **limits}

    def _limits(self, principal: str) -> dict[str, float]:
        own: Mapping[str, float | None] = {} if self._shared else self._principals.get(principal).limits
        limits = {}
        for unit in UNITS:
            limit = own.get(unit)
            limits[unit] = float(getattr(self._config, unit)) if limit is None else limit
        return {unit: limit for unit, limit in limits.items() if limit > 0}

    def _account(self, principal: str, now: float) -> tuple[str, _Account]:
        """The principal's account, its own or the shared one. An account is given up only once nothing counts in it."""
        name = self._names.of(SHARED if self._shared else principal)
        account = self._accounts.get(name)
        if account is None:
            if len(self._accounts) >= self._config.principals_max:
                oldest, idle = next(iter(self._accounts.items()))
                if now - idle.touched <= 2 * self._config.window_s:
                    self._others.touched = now
                    return OTHERS, self._others
                self._others.totals += idle.totals
                del self._accounts[oldest]
            account = self._accounts[name] = _Account(now)
        account.touched = now
        self._accounts.move_to_end(name)
        return name, account

    def _wait_s(self, account: _Account, unit: str, limit: float, amount: float, now: float) -> float:
        """Seconds until `amount` more passes; infinite where it never does."""
        if amount > limit:
            return math.inf
        return _window(account, unit, self._config.window_s).wait_s(now, limit - amount)

    def _over(self, unit: str, limit: float, amount: float, used: float, wait_s: float) -> Refusal:
        window = f"within {self._config.window_s:g} s"
        if math.isinf(wait_s):
            words = f"this request may take {amount:.0f} {unit}, {limit:g} are allowed {window}: ask for fewer tokens"
            return Refusal(429, "rate_limit", words)
        words = f"{used:.0f} of {limit:g} {unit} {window} are used{' by all callers together' if self._shared else ''}"
        return Refusal(429, "rate_limit", words, retryable=True, retry_after_ms=math.ceil(1000 * wait_s) + 1)

    def _learn(self, joules_a_token: float) -> None:
        known = self._joules_a_token
        self._joules_a_token = joules_a_token if not known else known + 0.1 * (joules_a_token - known)

    def _take_charge(self, principal: str, job_id: str, *, newest: bool) -> _Charge | None:
        charges = self._charges.get((principal, job_id))
        if charges is None:
            return None
        charge = charges.pop(-1 if newest else 0)
        if not charges:
            del self._charges[principal, job_id]
        return charge

    def _charged(self, charge: _Charge) -> _Account | None:
        """The account that a charge stands in; None where it was given up meanwhile."""
        return self._others if charge.name == OTHERS else self._accounts.get(charge.name)


def _window(account: _Account, unit: str, window_s: float) -> SlidingWindow:
    window = account.windows.get(unit)
    if window is None:
        window = account.windows[unit] = SlidingWindow(window_s)
    return window
