"""Limits by principal: what is charged, when it passes again, and that nobody can make the tables grow."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.daemon.admission.principals import Principals
from edgebit.daemon.admission.rate_limits import RateLimits
from edgebit.daemon.admission.sliding_window import SLOTS, SlidingWindow
from edgebit.daemon.config.safeguards import RateLimitsConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.privacy.hashed_names import SHARED, HashedNames
from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.serving.outcome import Outcome

NO_METER = Energy(joules=None, absent="no power sensor")


class Limits:
    """RateLimits with a clock of its own, and jobs in short."""

    def __init__(self, tmp_path, *, shared: bool = False, principals: str = "", **config) -> None:
        self.now = 1000.0
        if principals:
            (tmp_path / "principals.toml").write_text(principals)
        file = str(tmp_path / "principals.toml") if principals else ""
        self.names = HashedNames(tmp_path / "name.key")
        settings = RateLimitsConfig(**config)
        self.limits = RateLimits(settings, Principals(file), self.names, shared=shared, clock=lambda: self.now)
        self._jobs = 0

    def ask(self, principal: str, *, prompt_bytes: int = 0, max_tokens: int = 1) -> str:
        self._jobs += 1
        self.limits.admit(principal, str(self._jobs), prompt_bytes=prompt_bytes, max_tokens=max_tokens)
        return str(self._jobs)

    def refused(self, principal: str, **named: int) -> Refusal:
        with pytest.raises(Refusal) as refused:
            self.ask(principal, **named)
        assert (refused.value.status, refused.value.code) == (429, "rate_limit")
        return refused.value

    def end(self, principal: str, job: str, *, tokens: int = 0, energy: Energy = NO_METER, **named) -> None:
        self.limits.job_ended(
            Outcome(
                principal=principal,
                job_id=job,
                op="generate",
                status=200,
                completion_tokens=tokens,
                energy=energy,
                **named,
            )
        )

    def wait(self, refusal: Refusal) -> None:
        assert refusal.retryable and refusal.retry_after_ms is not None
        self.now += refusal.retry_after_ms / 1000


def test_requests_are_counted_by_principal(tmp_path):
    """One at its limit does not touch another; after the time that was said it passes, and not before."""
    limits = Limits(tmp_path, requests=2, window_s=60.0)
    limits.ask("alice")
    limits.now += 10
    limits.ask("alice")
    refusal = limits.refused("alice")
    limits.ask("bob")
    assert "2 of 2 requests within 60 s" in str(refusal)
    limits.now += refusal.retry_after_ms / 1000 - 0.1
    limits.refused("alice")
    limits.now += 0.1
    limits.ask("alice")
    limits.refused("alice")


def test_tokens_are_charged_at_admission_and_settled_at_the_end(tmp_path):
    """Jobs at once do not pass the limit together; what was not taken is given back."""
    limits = Limits(tmp_path, tokens=100)
    job = limits.ask("alice", prompt_bytes=60, max_tokens=40)
    limits.refused("alice", max_tokens=41)
    limits.end("alice", job, tokens=5, prompt_tokens=18, reused_tokens=8)
    limits.ask("alice", max_tokens=85)
    limits.refused("alice", max_tokens=1)


def test_a_job_that_was_not_taken_costs_nothing(tmp_path):
    """The queue was full: asking again is no second request."""
    limits = Limits(tmp_path, requests=1, tokens=10)
    limits.limits.release("alice", limits.ask("alice", max_tokens=10))
    limits.ask("alice", max_tokens=10)


def test_a_retry_before_the_end_was_told_has_a_charge_of_its_own(tmp_path):
    """Under the same id: each end settles its own, and one that is not taken takes back its own."""
    limits = Limits(tmp_path, tokens=100)

    def ask(max_tokens):
        limits.limits.admit("alice", "job", prompt_bytes=0, max_tokens=max_tokens)

    ask(40)
    ask(30)
    ask(30)
    limits.refused("alice", max_tokens=1)
    limits.limits.release("alice", "job")  # the last one
    limits.end("alice", "job", tokens=1)  # the first one
    assert limits.refused("alice", max_tokens=70).retryable  # 31 of 100 are used
    limits.end("alice", "job", tokens=2)
    limits.ask("alice", max_tokens=97)
    limits.refused("alice", max_tokens=1)


def test_an_answer_from_the_cache_costs_no_tokens(tmp_path):
    """Nothing was computed."""
    limits = Limits(tmp_path, tokens=10)
    limits.end("alice", limits.ask("alice", max_tokens=10), tokens=10, from_cache=True)
    limits.ask("alice", max_tokens=10)


def test_joules_count_where_they_are_measured(tmp_path):
    """After the first answer has shown what a token takes, they are charged beforehand too."""
    limits = Limits(tmp_path, joules=10.0)
    limits.end("alice", limits.ask("alice", max_tokens=4), tokens=4, energy=Energy(joules=8.0, source="ina219"))
    limits.refused("alice", max_tokens=2)
    limits.ask("alice", max_tokens=1)
    unmeasured = Limits(tmp_path, joules=10.0)
    unmeasured.end("alice", unmeasured.ask("alice", max_tokens=4), tokens=4)
    unmeasured.ask("alice", max_tokens=1000)


def test_a_request_that_no_wait_lets_pass_says_so(tmp_path):
    """It is not to be sent again as it is."""
    refusal = Limits(tmp_path, tokens=10).refused("alice", max_tokens=11)
    assert not refusal.retryable and refusal.retry_after_ms is None and "ask for fewer tokens" in str(refusal)


def test_a_principal_may_have_its_own_limits(tmp_path):
    """From principals.toml, which counts from the next request on; 0 is no limit."""
    limits = Limits(tmp_path, requests=1, principals="[alice]\nrequests = 2\n[bob]\nrequests = 0\n")
    for principal in ("alice", "alice", "bob", "bob", "bob", "carol"):
        limits.ask(principal)
    limits.refused("alice")
    limits.refused("carol")


def test_an_open_broker_has_one_bucket(tmp_path):
    """Names that anybody may take are not told apart, in limits and in totals."""
    limits = Limits(tmp_path, requests=2, shared=True)
    limits.end("alice", limits.ask("alice"), tokens=3)
    limits.end("bob", limits.ask("bob"), tokens=4)
    assert "by all callers together" in str(limits.refused("carol"))
    assert limits.limits.totals() == {SHARED: {"requests": 2, "tokens": 7, "joules": 0.0}}
    assert limits.limits.describe() == {"window_s": 3600.0, "per_principal": False, "requests": 2}


def test_made_up_names_find_no_room(tmp_path):
    """A full table keeps those who count in it: newcomers share one bucket, and a name's own limit is not forgotten."""
    limits = Limits(tmp_path, requests=2, principals_max=10, window_s=60.0)
    limits.ask("alice")
    limits.ask("alice")
    for number in range(9):
        limits.ask(f"made-up-{number}")
    limits.ask("made-up-10")
    limits.ask("made-up-11")
    limits.refused("made-up-12")
    limits.refused("alice")
    assert len(limits.limits._accounts) == 10
    limits.now += 121
    limits.ask("made-up-12")
    assert len(limits.limits._accounts) == 10


def test_totals_are_by_hashed_name_and_survive_a_full_table(tmp_path):
    """Requests, tokens and joules since the start; who found no place is among the others."""
    limits = Limits(tmp_path, principals_max=1, window_s=1.0)
    limits.end("alice", limits.ask("alice"), tokens=3, prompt_tokens=2, energy=Energy(joules=1.5, source="ina219"))
    limits.end("bob", limits.ask("bob"), tokens=4)
    assert limits.limits.totals() == {
        limits.names.of("alice"): {"requests": 1, "tokens": 5, "joules": 1.5},
        "others": {"requests": 1, "tokens": 4, "joules": 0.0},
    }
    limits.now += 10
    limits.end("bob", limits.ask("bob"), tokens=4)
    assert limits.limits.totals()["others"] == {"requests": 2, "tokens": 9, "joules": 1.5}
    assert "alice" not in str(limits.limits.totals())


def test_a_job_from_before_a_restart_is_charged_when_it_ends(tmp_path):
    """It was admitted by another process, and takes as much."""
    limits = Limits(tmp_path, tokens=10)
    limits.end("alice", "old", tokens=8)
    limits.refused("alice", max_tokens=3)
    assert limits.limits.totals()[limits.names.of("alice")]["tokens"] == 8


STEPS = st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60), st.integers(0, 60), st.booleans()), max_size=40)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.floats(1, 1e7))
def test_the_time_that_is_said_is_true(tmp_path_factory, steps, began):
    """After retry_after_ms the same request passes, whatever came before; no window ever holds more than allowed."""
    limits = Limits(tmp_path_factory.mktemp("limits"), tokens=100, window_s=60.0)
    limits.now = began
    taken: list[tuple[float, int]] = []
    for pause, wanted, used, at_once in steps:
        limits.now += pause
        try:
            job = limits.ask("alice", max_tokens=wanted)
        except Refusal as refusal:
            limits.wait(refusal)
            job = limits.ask("alice", max_tokens=wanted)
        at = limits.now
        if at_once:
            limits.end("alice", job, tokens=min(used, wanted))
        taken.append((at, min(used, wanted) if at_once else wanted))
    for end, _ in taken:
        assert sum(tokens for at, tokens in taken if end - 60.0 < at <= end) <= 100


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 9)), min_size=1), st.floats(0, 1e8))
def test_a_window_forgets_at_most_a_slot_late(steps, began):
    """All of the last window counts, and nothing that is older by a twelfth of it."""
    window, now, added = SlidingWindow(60.0), began, []
    for pause, amount in steps:
        now += pause
        window.add(now, amount)
        added.append((now, amount))
    total = window.total(now)
    slack = 1e-6 * max(1.0, now)
    assert total >= sum(amount for at, amount in added if at > now - 60.0 + slack)
    assert total <= sum(amount for at, amount in added if at > now - 60.0 * (1 + 1 / SLOTS) - slack)
    assert math.isfinite(window.wait_s(now, 0.0))


def test_what_a_table_of_limits_takes():
    """A principal's windows are of a fixed size, whatever it does."""
    window = SlidingWindow(3600.0)
    for second in range(10_000):
        window.add(float(second), 1.0)
    assert len(window._amounts) == SLOTS + 1


def test_a_window_has_no_place_for_what_is_forgotten():
    """Giving back what has left the window changes nothing."""
    window = SlidingWindow(12.0)
    window.add(0.0, 5.0)
    window.add(20.0, 1.0)
    window.give_back(0.0, 5.0)
    assert window.total(20.0) == 1.0
    assert window.total(40.0) == 0.0
