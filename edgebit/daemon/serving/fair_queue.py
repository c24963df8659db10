"""Whose turn is next: principals get equal shares in tokens, urgent jobs go ahead a bounded step, none waits for ever.

Each principal has a count of tokens that were computed for it; the one with the least is served. Who is new, or comes
back after a pause, begins where an equal share of all that was computed would have brought it (the virtual time of
weighted fair queueing), so that nobody saves up turns, and no stream of newcomers keeps others waiting. A job's
priority moves it among its principal's own, and its principal ahead by some tokens: a principal that calls everything
urgent gains that step once and no larger share. What waits rises, level by level, to the top.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from edgebit.daemon.contract.messages import PRIORITIES
from edgebit.daemon.serving.work import Work

HIGHEST = max(PRIORITIES.values())
LEVEL_TOKENS = 512  # of a priority's level: a long answer, or two short ones
LEVEL_S = 60.0  # of waiting, until a job has risen a level

Item = TypeVar("Item")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item]):
    item: Item
    principal: str
    work: Work
    priority: int
    since: float  # monotonic seconds
    number: int  # in order of arrival

    def level(self, now: float) -> int:
        risen = int((now - self.since) / LEVEL_S)
        return self.priority if risen <= 0 else min(HIGHEST, self.priority + risen)

    def order(self, now: float) -> tuple[int, int]:
        """Among the jobs of one principal, the smallest first."""
        return -self.level(now), self.number


@dataclass(slots=True)
class _Account(Generic[Item]):
    used: float  # tokens, on the clock that all share
    jobs: list[_Waiting[Item]] = field(default_factory=list)
    running: int = 0

    @property
    def is_active(self) -> bool:
        return bool(self.jobs or self.running)

    def key(self, head: _Waiting[Item], now: float) -> float:
        """Where it stands with that job at its head: the smallest is served."""
        return self.used - LEVEL_TOKENS * head.level(now)


class FairQueue(Generic[Item]):
    """Jobs that wait. Not for several threads at once."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account[Item]] = {}
        self._clock = 0.0  # tokens, an equal share of all that was computed: where newcomers begin
        self._count = 0

    def __len__(self) -> int:
        return sum(len(account.jobs) for account in self._accounts.values())

    def __iter__(self) -> Iterator[Item]:
        return (each.item for account in self._accounts.values() for each in account.jobs)

    def push(self, item: Item, principal: str, work: Work, priority: int, now: float) -> None:
        """Let a job wait for its turn."""
        account = self._accounts.setdefault(principal, _Account(0.0))
        account.used = self._standing(account)
        self._count += 1
        account.jobs.append(_Waiting(item, principal, work, priority, now, self._count))

    def has(self, ready: Callable[[Item], bool]) -> bool:
        """Whether one of those that wait is ready."""
        return any(ready(item) for item in self)

    def pop(self, now: float, ready: Callable[[Item], bool] = lambda _: True) -> Item | None:
        """The job whose turn it is of those that are ready, and its work goes on its principal's account."""
        least: tuple[float, int] | None = None
        for account in self._with_jobs():
            jobs = [job for job in account.jobs if ready(job.item)]
            if jobs:
                first = jobs[0] if len(jobs) == 1 else min(jobs, key=lambda job: job.order(now))
                turn = account.key(first, now), first.number
                if least is None or turn < least:
                    least, head, head_account = turn, first, account
        if least is None:
            return None
        head_account.jobs.remove(head)
        head_account.running += 1
        head_account.used += head.work.tokens
        return head.item

    def remove(self, item: Item) -> None:
        """Take a waiting job out, at no cost."""
        for account in self._accounts.values():
            account.jobs = [each for each in account.jobs if each.item is not item]
        self._forget_idle()

    def settle(self, principal: str, expected: Work, tokens: int) -> None:
        """Once for each job that pop() gave: its principal is charged for what was computed, not what was expected."""
        account = self._accounts[principal]
        self._clock += tokens / sum(each.is_active for each in self._accounts.values())
        account.used += tokens - expected.tokens
        account.running -= 1
        self._forget_idle()

    def before_new(self, principal: str, work: Work, priority: int, now: float) -> list[Item]:
        """The waiting jobs whose turn would come before that of a job that came now."""
        return self._before(_Waiting(None, principal, work, priority, now, self._count + 1), now)

    def before(self, item: Item, now: float) -> list[Item]:
        """The waiting jobs whose turn comes before that of another, as they are now."""
        mine = next(job for account in self._with_jobs() for job in account.jobs if job.item is item)
        return self._before(mine, now)

    def _before(self, mine: "_Waiting[Item] | _Waiting[None]", now: float) -> list[Item]:
        own = self._accounts.get(mine.principal, _Account(0.0))
        ahead = [each for each in own.jobs if each.order(now) < mine.order(now)]
        standing = self._standing(own) + sum(each.work.tokens for each in ahead) - LEVEL_TOKENS * mine.level(now)
        for account in self._with_jobs():
            if account is not own:
                ahead += _served_before(account, (standing, mine.number), now)
        return [each.item for each in ahead]

    def _with_jobs(self) -> Iterator[_Account[Item]]:
        return (account for account in self._accounts.values() if account.jobs)

    def _standing(self, account: _Account[Item]) -> float:
        """Where an account counts from: a pause earns nothing, and nobody begins behind all who wait."""
        if account.is_active:
            return account.used
        last = max((each.used for each in self._with_jobs()), default=self._clock)
        return max(account.used, min(self._clock, last))

    def _forget_idle(self) -> None:
        """Whoever has used no more than newcomers begin with need not be known any longer; nobody, while none waits."""
        if not any(account.is_active for account in self._accounts.values()):
            self._accounts.clear()
            self._clock = 0.0
        for principal, account in list(self._accounts.items()):
            if not account.is_active and account.used <= self._clock:
                del self._accounts[principal]


def _served_before(account: _Account[Item], turn: tuple[float, int], now: float) -> list[_Waiting[Item]]:
    """The account's jobs whose turn, where an account stands and a job's number, comes first."""
    ahead: list[_Waiting[Item]] = []
    tokens = 0
    for each in sorted(account.jobs, key=lambda job: job.order(now)):
        if (account.key(each, now) + tokens, each.number) > turn:
            break
        ahead.append(each)
        tokens += each.work.tokens
    return ahead
