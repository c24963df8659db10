"""Whose turn it is: equal shares in tokens, a bounded step for what is urgent, and an end to every waiting."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.daemon.contract.messages import PRIORITIES
from edgebit.daemon.serving.fair_queue import LEVEL_S, FairQueue
from edgebit.daemon.serving.work import Work

LOW, NORMAL, HIGH = (PRIORITIES[name] for name in ("low", "normal", "high"))


def serve(queue, now=0.0):
    """Pop the next job, and settle it as if all its tokens had been computed."""
    principal, _, work = item = queue.pop(now)
    queue.settle(principal, work, work.tokens)
    return item[:2]


def push(queue, principal, name, tokens=100, priority=NORMAL, now=0.0):
    work = Work(0, tokens)
    queue.push((principal, name, work), principal, work, priority, now)


def test_one_principals_jobs_go_in_order():
    queue = FairQueue()
    for n in range(5):
        push(queue, "a", n)
    assert [serve(queue) for _ in range(5)] == [("a", n) for n in range(5)]
    assert queue.pop(0.0) is None and len(queue) == 0


def test_a_flood_does_not_hold_others_up():
    """Who comes with one job waits for one of the flood's, not for all."""
    queue = FairQueue()
    for n in range(50):
        push(queue, "mallory", n)
    assert serve(queue) == ("mallory", 0)
    push(queue, "alice", 0)
    assert ("alice", 0) in (serve(queue), serve(queue))


def test_shares_are_equal_in_tokens_not_in_jobs():
    """Long answers count for more."""
    queue, tokens = FairQueue(), Counter()
    for n in range(400):
        push(queue, "long", n, 400)
        push(queue, "short", n, 40)
    for _ in range(200):
        principal, _ = serve(queue)
        tokens[principal] += 400 if principal == "long" else 40
    assert abs(tokens["long"] - tokens["short"]) <= 440


def test_what_was_computed_counts_not_what_was_expected():
    """An answer that ends early costs little."""
    queue, served = FairQueue(), Counter()
    for n in range(200):
        push(queue, "brief", n, 100)
        push(queue, "full", n, 100)
    for _ in range(110):
        principal, _, work = queue.pop(0.0)
        queue.settle(principal, work, 10 if principal == "brief" else 100)
        served[principal] += 1
    assert 9 <= served["brief"] / served["full"] <= 11


def test_many_principals_have_equal_shares():
    """Within a tenth, with jobs of all lengths, while all of them wait."""
    rng, queue, tokens = random.Random(5), FairQueue(), Counter()
    for n in range(100):
        push(queue, f"p{n}", n, rng.randint(1, 60))
    for n in range(2500):
        principal, _, work = queue.pop(0.0)
        push(queue, principal, n, rng.randint(1, 60))
        queue.settle(principal, work, work.tokens)
        tokens[principal] += work.tokens
    middle = sum(tokens.values()) / 100
    assert max(tokens.values()) <= middle + 60 and min(tokens.values()) >= middle - 60
    assert middle > 600  # 60 tokens, the longest job, are within a tenth


def test_a_pause_earns_nothing():
    """Who was away for long has no turns saved up."""
    queue, served = FairQueue(), []
    push(queue, "rare", 0)
    serve(queue)
    for n in range(30):
        push(queue, "steady", n)
    for _ in range(10):
        serve(queue)
    for n in range(10):
        push(queue, "rare", n)
    served = [serve(queue)[0] for _ in range(10)]
    assert 4 <= served.count("rare") <= 6


def test_newcomers_without_end_do_not_keep_others_waiting():
    """Each with a name of its own, all of them with the least on their account."""
    for priority, newcomers, limit in ((NORMAL, NORMAL, 6), (LOW, NORMAL, 60), (LOW, HIGH, 80)):
        queue = FairQueue()
        push(queue, "steady", "before", priority=priority)
        serve(queue)
        push(queue, "steady", "waits", priority=priority)
        order = []
        for n in range(limit):
            push(queue, f"new{n}", n, priority=newcomers, now=4.0 * n)
            push(queue, f"other{n}", n, priority=newcomers, now=4.0 * n)
            order.append(serve(queue, now=4.0 * n))
        assert ("steady", "waits") in order


def test_priorities_among_ones_own():
    """Urgent ones first, and what has waited long enough before them."""
    queue = FairQueue()
    push(queue, "a", "low", priority=LOW)
    push(queue, "a", "normal")
    push(queue, "a", "high", priority=HIGH)
    assert serve(queue) == ("a", "high")
    late = LEVEL_S * (HIGH - LOW)
    push(queue, "a", "new", priority=HIGH, now=late)
    assert [serve(queue, now=late)[1] for _ in range(3)] == ["low", "normal", "new"]


def test_urgent_jobs_go_ahead_of_others_by_a_bounded_step():
    """One urgent job is next; a principal whose every job is urgent has an equal share in the end."""
    queue = FairQueue()
    for n in range(300):
        push(queue, "normal", n)
    for _ in range(20):
        serve(queue)
    for n in range(300):
        push(queue, "urgent", n, priority=HIGH)
    served = [serve(queue)[0] for _ in range(300)]
    assert served[0] == "urgent"
    assert 0 < served.count("urgent") - served.count("normal") <= 12


def test_idle_accounts_are_forgotten():
    """However many names are made up."""
    queue, most = FairQueue(), 0
    for n in range(3000):
        push(queue, f"p{n}", n, tokens=1 + n % 50)
        if n >= 10:
            serve(queue)
        most = max(most, len(queue._accounts))
    assert most <= 200
    while len(queue):
        serve(queue)
    assert not queue._accounts


STEPS = st.tuples(
    st.sampled_from("abc"), st.integers(1, 300), st.sampled_from([LOW, NORMAL, HIGH]), st.booleans(), st.integers(0, 90)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_what_comes_before_is_what_is_served_before(steps):
    """The estimate for a job that comes now is what is computed until its turn, if nobody else comes."""
    queue, now = FairQueue(), 0.0
    for number, (principal, tokens, priority, pops, later) in enumerate(steps):
        now += later
        work = Work(tokens // 3, tokens - tokens // 3)
        expected = queue.before_new(principal, work, priority, now)
        queue.push((principal, number, work), principal, work, priority, now)
        item = next(each for each in queue if each[1] == number)
        assert queue.before(item, now) == expected
        if pops:
            served = []
            while (got := queue.pop(now)) is not item:
                served.append(got[1])
                queue.settle(got[0], got[2], got[2].tokens)
            queue.settle(principal, work, tokens)
            assert sorted(served) == sorted(each[1] for each in expected)
    assert len(list(queue)) == len(queue)


def test_a_removed_job_costs_nothing():
    """Its principal stands where it stood."""
    queue = FairQueue()
    push(queue, "a", 0)
    push(queue, "b", 0)
    for item in list(queue):
        if item[0] == "a":
            queue.remove(item)
    push(queue, "a", 1)
    assert sorted(item[:2] for item in queue) == [("a", 1), ("b", 0)]
    assert [serve(queue)[0] for _ in range(2)] == ["b", "a"]
    with pytest.raises(KeyError):
        queue.settle("a", Work(), 1)
