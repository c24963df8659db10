"""Taking, running and ending jobs: each gets exactly one last frame, and nobody touches another's."""

import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_fixtures import Engine, NoLedger, Serving, job, turn, wait_for

from edgebit.daemon.config.sections import LimitsConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.governor.levers import Levers
from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.serving.scheduler import ENDING_MAX
from edgebit.daemon.serving.work import NOTHING, PassFigures, PassTotals
from edgebit.errors import EngineError


class FailingEngine(Engine):
    """Fails when it feels like it: sometimes for one answer, sometimes for a whole pass."""

    def __init__(self, rng):
        super().__init__(sequences=3, step_s=0.0005)
        self.rng = rng

    def begin(self, *arguments):
        if self.rng.random() < 0.05:
            raise MemoryError
        return super().begin(*arguments)

    def step(self, generations, prompt_most):
        if self.rng.random() < 0.01:
            raise EngineError("the pass failed")
        shown = super().step(generations, prompt_most)
        for each, _ in shown:
            if self.rng.random() < 0.01:
                each.done, each.error = True, EngineError("this answer failed")
        return shown


@pytest.mark.parametrize("seed", range(3))
def test_every_job_is_answered_exactly_once(seed):
    """Four callers submit, cancel their own and others' jobs, with deadlines long and short; then the device stops."""
    serving = Serving(FailingEngine(random.Random(seed)), limits=LimitsConfig(queue_max=6)).start()
    scheduler, heard = serving.scheduler, serving.heard
    admitted, lock = set(), threading.Lock()

    def call(principal):
        rng = random.Random(f"{seed}{principal}")
        for n in range(60):
            asked = job(principal, f"j{n}", rng.randint(1, 20), rng.choice([0.005, 60.0]))
            try:
                scheduler.submit(asked)
                with lock:
                    admitted.add(f"{principal}/j{n}")
                if rng.random() < 0.1 and scheduler.withdraw(asked):
                    with lock:
                        admitted.remove(f"{principal}/j{n}")
                scheduler.release([asked])
            except Refusal as refusal:
                assert refusal.code in ("queue_full", "deadline_unmeetable")
            if rng.random() < 0.5:
                scheduler.cancel(rng.choice("abcd"), f"j{rng.randint(max(0, n - 3), n)}")
            scheduler.expire()
            if rng.random() < 0.4:
                wait_for(lambda topic=asked.address.topic: topic not in admitted or heard.last[topic])

    callers = [threading.Thread(target=call, args=(principal,)) for principal in "abcd"]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    serving.stop()
    assert set(heard.last) == admitted and set(heard.last.values()) == {1}
    assert {200, 499} <= set(heard.status.values())
    assert scheduler.load().running == scheduler.load().queue_len == 0 and scheduler._taken == NOTHING
    with pytest.raises(Refusal, match="shutting down"):
        scheduler.submit(job("a", "late", 1))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("ab"), st.sampled_from(["1", "2", "3"]), st.integers(1, 6)),
        st.tuples(st.just("cancel"), st.sampled_from("ab"), st.sampled_from(["1", "2", "3"])),
        st.tuples(st.just("step")),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_one_callers_cancel_never_ends_anothers_job(steps):
    """Two principals use the same ids: a job ends with 499 exactly where its own principal cancelled it in flight."""
    serving = Serving(Engine(sequences=2))
    serving.scheduler.set_engine(serving.engine)
    asked, cancelled, open_jobs = [], [], {}
    for step in steps:
        for key in [key for key, each in open_jobs.items() if serving.heard.last[each.address.topic]]:
            del open_jobs[key]
        if step[0] == "ask" and step[1:3] not in open_jobs:
            number = len(asked)
            new = job(step[1], step[2], step[3])
            object.__setattr__(new.address, "topic", f"{number}")
            serving.ask(new)
            asked.append(new)
            open_jobs[step[1:3]] = new
        elif step[0] == "cancel":
            found = serving.scheduler.cancel(step[1], step[2])
            assert found == (step[1:] in open_jobs)
            if found:
                cancelled.append(open_jobs[step[1:]])
        elif step[0] == "step" and open_jobs:
            turn(serving)
    while serving.scheduler.load().running or serving.scheduler.load().queue_len:
        turn(serving)
    for each in asked:
        assert serving.heard.last[each.address.topic] == 1
        assert serving.heard.status[each.address.topic] == (499 if each in cancelled else 200)


def test_a_cancel_cuts_a_pass_short_only_where_nobody_else_waits_for_it():
    """Of two that run together one is cancelled: the pass goes on. Alone it is cut short, however long it takes."""
    serving = Serving(Engine(step_s=30.0)).start()
    serving.ask(job("a", "1", 5))
    wait_for(lambda: serving.scheduler.load().running == 1)
    serving.scheduler.cancel("a", "1")
    wait_for(lambda: serving.heard.last["a/1"])
    assert serving.heard.status == {"a/1": 499}
    serving.stop()

    both = Serving(Engine())
    both.scheduler.set_engine(both.engine)
    both.ask(job("a", "1", 5))
    both.ask(job("b", "1", 5))
    assert both.scheduler.next_job() and both.scheduler.next_job()
    assert len(both.scheduler.begin_pass().jobs) == 2
    both.scheduler.cancel("a", "1")
    assert not both.engine._cancelled.is_set()
    both.scheduler.cancel("b", "1")
    assert both.engine._cancelled.is_set()


def test_a_late_cancel_does_not_hit_the_next_pass():
    """The engine's flag is taken back before each."""
    serving = Serving(Engine())
    serving.engine.cancel()  # came when the pass before had just ended
    serving.start()
    serving.ask(job("a", "next", 3))
    wait_for(lambda: serving.heard.last)
    serving.stop()
    assert serving.heard.status == {"a/next": 200}


def test_jobs_run_together_up_to_the_engines_sequences():
    """What comes later joins at the next pass."""
    serving = Serving(Engine(sequences=3))
    serving.scheduler.set_engine(serving.engine)
    for n in range(5):
        serving.ask(job("a", str(n), 2 + n))
    while serving.scheduler.load().queue_len or serving.scheduler.load().running:
        turn(serving)
    assert serving.engine.passes == [3, 3, 3, 3, 2, 2, 2, 1, 1]


def test_a_failed_pass_ends_the_jobs_in_it_and_no_others():
    """The daemon goes on."""

    class Broken(Engine):
        def step(self, generations, prompt_most):
            if any(each.max_tokens == 13 for each in generations):
                raise EngineError("the pass failed")
            return super().step(generations, prompt_most)

    serving = Serving(Broken(sequences=2))
    serving.scheduler.set_engine(serving.engine)
    for n, tokens in enumerate((9, 13, 5)):
        serving.ask(job("a", str(n), tokens))
    while serving.scheduler.load().queue_len or serving.scheduler.load().running:
        turn(serving)
    assert serving.heard.status == {"a/0": 500, "a/1": 500, "a/2": 200}
    assert serving.endings.last_error == "engine: the pass failed"


def test_what_was_computed_is_kept_once_the_answer_is_out():
    """Nobody waits for it, the same request may come again meanwhile, and a fault in it fails nothing."""
    seen, go_on = [], threading.Event()

    class KeepingEngine(Engine):
        def keep(self):
            if serving.heard.last:
                seen.append(dict(serving.heard.status))
                go_on.wait(60)
            raise OSError(28, "No space left on device")

    serving = Serving(KeepingEngine())
    serving.start()
    serving.ask(job("a", "same", 3))
    wait_for(lambda: len(seen) == 1)
    assert seen == [{"a/same": 200}]
    assert not serving.scheduler.load().running
    serving.ask(job("a", "same", 3))
    go_on.set()
    wait_for(lambda: serving.heard.last["a/same"] == 2)
    serving.stop()
    counters = serving.endings.counters
    assert (counters["answered"], counters["failed"]) == (2, 0)


def test_the_queue_holds_what_it_says():
    """queue_max jobs wait beside those that run; with 0 only an idle device takes a job. One principal has fewer."""
    for queue_max, takes in ((0, 0), (3, 3)):
        serving = Serving(Engine(), limits=LimitsConfig(queue_max=queue_max))  # no engine yet: all of them wait
        for n in range(takes):
            serving.ask(job("a", f"j{n}", 1))
        with pytest.raises(Refusal, match=f"{takes} jobs are waiting") as full:
            serving.ask(job("a", "more", 1))
        assert (full.value.status, full.value.code) == (503, "queue_full")
        serving.scheduler.set_engine(serving.engine)
        for n in range(serving.engine.sequences):
            serving.ask(job("b", f"j{n}", 1))
        with pytest.raises(Refusal, match="waiting"):
            serving.ask(job("b", "more", 1))
    serving = Serving(Engine(), limits=LimitsConfig(queue_per_principal_max=2))
    serving.ask(job("a", "1", 1))
    serving.ask(job("a", "2", 1))
    with pytest.raises(Refusal, match="2 jobs of yours are in flight") as refused:
        serving.ask(job("a", "3", 1))
    assert refused.value.status == 429 and refused.value.retryable and refused.value.retry_after_ms
    serving.ask(job("b", "3", 1))


def test_a_job_runs_once_it_is_released_and_not_before():
    """Its place is taken from submit() on; withdrawn, it is as if it had never come."""
    serving = Serving(Engine(), limits=LimitsConfig(queue_max=2))
    scheduler = serving.scheduler
    first, second = job("a", "1", 2), job("a", "2", 2)
    scheduler.submit(first)
    scheduler.submit(second)
    assert scheduler.next_job() is None and scheduler.load().queue_len == 2
    with pytest.raises(Refusal, match="another request in flight") as other:
        scheduler.submit(job("a", "1", 2))
    assert other.value.status == 409
    assert scheduler.withdraw(second)
    scheduler.submit(second)
    scheduler.cancel("a", "2")
    scheduler.release([first, second])
    assert not scheduler.withdraw(first) and not scheduler.withdraw(second)
    scheduler.set_engine(serving.engine)
    assert scheduler.next_job() is first and scheduler.next_job() is None
    assert serving.heard.status == {"a/2": 499}


def test_jobs_of_before_a_restart_are_not_refused():
    """They were taken on: neither the queue's length nor a deadline's estimate counts against them."""
    serving = Serving(Engine(), limits=LimitsConfig(queue_max=0))
    back = [job("a", str(n), 1) for n in range(3)]
    for each in back:
        serving.scheduler.resubmit(each)
    serving.scheduler.release(back)
    serving.scheduler.set_engine(serving.engine)
    while serving.scheduler.load().running or serving.scheduler.load().queue_len:
        turn(serving)
    assert serving.heard.status == {"a/0": 200, "a/1": 200, "a/2": 200}
    assert serving.heard.bodies["a/0"]["prompt_eval_count"] == 1


def test_a_prompt_that_cannot_be_answered_is_refused_at_once():
    """Not at its turn: longer than the context, or not as the model's template wants it."""

    class Picky(Engine):
        def request_ids(self, request):
            if request.prompt == "bad":
                raise EngineError("the last message must be the user's")
            return super().request_ids(request)

    serving = Serving(Picky())
    serving.scheduler.set_engine(serving.engine)
    for prompt, status, code in (("x" * 1000, 422, "context_overflow"), ("bad", 400, "bad_messages")):
        with pytest.raises(Refusal) as refused:
            serving.ask(job("a", "1", 1, prompt=prompt))
        assert (refused.value.status, refused.value.code) == (status, code)


def measured(serving, *, prompt_s=0.01, pass_s=0.1):
    """As if the engine had been watched: seconds a token of a prompt, and a pass of decoding."""
    serving.scheduler.set_engine(serving.engine)
    serving.scheduler.end_pass(PassFigures(took_s=prompt_s, prompt_tokens=1))
    for decoding in (1, 2):
        serving.scheduler.end_pass(PassFigures(took_s=pass_s, decoding=decoding, drawn=decoding))


def test_a_deadline_that_cannot_be_met_is_refused_at_once():
    """With the time it would take; sooner where heat allows for less, and not for what comes before it."""
    now = [100.0]
    serving = Serving(Engine(), clock=lambda: now[0])
    measured(serving)
    serving.ask(job("a", "1", 100, ttl_s=10.5, now=100.0))  # 100 tokens at 10 tok/s
    with pytest.raises(Refusal) as refused:
        serving.ask(job("a", "2", 100, ttl_s=9.0, now=100.0))
    body = refused.value.body()
    assert (body["status"], body["code"], body["retryable"]) == (503, "deadline_unmeetable", False)
    assert body["eta_ms"] == 10_020  # two at once are twice as fast, and the other one is computed as well
    serving.scheduler.apply(Levers(sustainable_tok_s=10.0))
    with pytest.raises(Refusal) as refused:
        serving.ask(job("a", "2", 100, ttl_s=15.0, now=100.0))
    body = refused.value.body()
    assert body["retryable"] and body["eta_ms"] == 20_040 and 5_039 <= body["retry_after_ms"] <= 5_040
    serving.scheduler.apply(Levers(duty=0.5))
    with pytest.raises(Refusal, match=r"20\.0 s"):
        serving.ask(job("a", "2", 100, ttl_s=15.0, now=100.0))
    serving.scheduler.apply(Levers())
    serving.ask(job("a", "2", 100, ttl_s=15.0, now=100.0))


def test_a_job_that_is_late_is_ended_where_it_stands():
    """Waiting or running, with the figures of how far it came."""
    now = [100.0]
    serving = Serving(Engine(sequences=1), clock=lambda: now[0])
    serving.scheduler.set_engine(serving.engine)
    serving.ask(job("a", "1", 50, ttl_s=5.0, now=100.0))
    serving.ask(job("a", "2", 50, ttl_s=5.0, now=100.0))
    turn(serving)
    turn(serving)
    now[0] = 105.0
    serving.scheduler.expire()
    assert serving.heard.status == {"a/2": 408}
    turn(serving)
    assert serving.heard.status == {"a/1": 408, "a/2": 408}
    assert serving.heard.bodies["a/1"]["eval_count"] == 2 and serving.engine.taken == 0
    assert "running" in serving.heard.bodies["a/1"]["error"]["message"]


def test_levers_hold_the_engine_back():
    """Threads from the next pass on, pauses between passes, and no new jobs while it is too hot."""
    now = [100.0]
    serving = Serving(Engine(), clock=lambda: now[0])
    scheduler = serving.scheduler
    scheduler.set_engine(serving.engine)
    scheduler.apply(Levers(threads=1, duty=0.25))
    serving.ask(job("a", "1", 5))
    turn(serving)
    scheduler.end_pass(PassFigures(took_s=1.0))
    turn(serving)
    assert serving.engine.passes == [1] and serving.engine.threads == [1]
    now[0] = 102.9
    turn(serving)
    assert serving.engine.passes == [1], "it rests for three times as long as it computed"
    now[0] = 103.0
    turn(serving)
    assert serving.engine.passes == [1, 1]
    scheduler.end_pass(PassFigures(took_s=1.0))
    scheduler.apply(Levers(admit=False, reason="84 C"))
    turn(serving)
    assert serving.engine.passes == [1, 1, 1] and serving.engine.threads == [1, 0]
    with pytest.raises(Refusal, match="takes no more work now: 84 C") as hot:
        serving.ask(job("a", "2", 5))
    assert (hot.value.status, hot.value.code, hot.value.retryable) == (503, "hot", True)
    scheduler.apply(Levers(admit=False, closed_by="battery_low"))
    with pytest.raises(Refusal) as empty:
        serving.ask(job("a", "3", 5))
    assert (empty.value.status, empty.value.code) == (503, "battery_low")


def test_totals_count_the_pass_that_goes_on():
    """A long pass is work while it lasts, and then what it took."""
    now = [100.0]
    serving = Serving(Engine(), clock=lambda: now[0])
    scheduler = serving.scheduler
    scheduler.set_engine(serving.engine)
    serving.ask(job("a", "1", 5))
    scheduler.next_job()
    scheduler.begin_pass()
    now[0] = 102.0
    assert scheduler.totals().busy_s == 2.0
    scheduler.end_pass(PassFigures(took_s=1.9, decoding=2, drawn=3))
    assert scheduler.totals() == PassTotals(busy_s=1.9, decode_s=1.9, drawn=3, answer_s=3.8)


def test_a_cancel_is_heard_while_the_engine_rests():
    """It does not wait for the next pass."""
    now = [100.0]
    serving = Serving(Engine(), clock=lambda: now[0])
    serving.scheduler.set_engine(serving.engine)
    serving.scheduler.apply(Levers(duty=0.1))
    serving.ask(job("a", "1", 5))
    turn(serving)
    serving.scheduler.end_pass(PassFigures(took_s=100.0))
    serving.scheduler.cancel("a", "1")
    assert serving.scheduler.wait()
    turn(serving)
    assert serving.heard.status == {"a/1": 499}


def one_running():
    """A scheduler whose engine's speed is known, with a job of 20 tokens in its only sequence; and its clock."""
    now = [100.0]
    serving = Serving(Engine(sequences=1), clock=lambda: now[0])
    measured(serving)
    serving.ask(job("a", "runs", 20))
    turn(serving)
    return serving, now


def test_draining_finishes_what_can_be_finished():
    """What fits the time is answered, the rest hears at once that it is not, and nothing new is taken."""
    serving, _ = one_running()
    serving.ask(job("b", "fits", 20))
    serving.ask(job("c", "does not", 200))
    serving.scheduler.submit(job("d", "held", 1))
    serving.scheduler.stop(drain_s=5.0)
    assert serving.heard.status == {"c/does not": 503, "d/held": 503}
    assert serving.heard.bodies["d/held"]["error"]["code"] == "shutting_down"
    with pytest.raises(Refusal, match="shutting down"):
        serving.ask(job("a", "new", 1))
    serving.loop.run()
    assert serving.heard.status["a/runs"] == serving.heard.status["b/fits"] == 200


def test_draining_ends_after_its_time():
    """Estimates can be wrong."""
    serving, now = one_running()
    serving.scheduler.stop(drain_s=5.0)
    now[0] = 105.0
    serving.scheduler.expire()
    serving.loop.run()
    assert serving.heard.status == {"a/runs": 503}


def test_outcomes_and_the_ledger_are_told_once():
    """Each job's end, with what it drew; the shares of a pass are those of the tokens, and make 1."""
    told, recorded, closed = [], [], []

    class Ledger:
        def record(self, begin_s, end_s, shares):
            assert end_s >= begin_s
            recorded.append(dict(shares))

        def close(self, key):
            closed.append(key)
            return Energy(joules=6.0, source=f"of {key[0]}")

    class Listener:
        def job_ended(self, outcome):
            told.append(outcome)
            raise RuntimeError("a listener's fault")

    serving = Serving(Engine(), ledger=Ledger(), listeners=[Listener()])
    serving.scheduler.set_engine(serving.engine)
    serving.ask(job("a", "1", 3, prompt="abc"))
    serving.ask(job("b", "1", 3, prompt="a", op="chat"))
    serving.ask(job("b", "2", 3))
    serving.scheduler.cancel("b", "2")
    while serving.scheduler.load().running or serving.scheduler.load().queue_len:
        turn(serving)
    assert recorded[0] == {("a", "1"): 4 / 6, ("b", "1"): 2 / 6}
    assert recorded[1] == {("a", "1"): 1 / 2, ("b", "1"): 1 / 2}
    assert closed == [("b", "2"), ("a", "1"), ("b", "1")]
    by_job = {(each.principal, each.job_id): each for each in told}
    assert serving.heard.bodies["a/1"]["energy"]["joules_per_token"] == 2.0
    assert "energy" not in serving.heard.bodies["b/2"]
    assert len(told) == 3 and by_job["b", "2"].code == "cancelled" and by_job["b", "2"].first_token_s is None
    done = by_job["a", "1"]
    assert (done.status, done.prompt_tokens, done.completion_tokens, done.op) == (200, 3, 3, "generate")
    assert done.energy.source == "of a" and done.first_token_s > 0 and by_job["b", "1"].op == "chat"


def test_the_answer_filter_sees_every_piece():
    """What it lets through is the answer; what it refuses ends the job, and that one only."""

    closed = []

    class Filter:
        def __init__(self, most):
            self.most, self.seen = most, 0

        def push(self, piece):
            self.seen += 1
            if self.seen > self.most:
                raise Refusal(451, "response_filtered", "the answer is withheld")
            return piece.upper()

        def finish(self):
            return "."

        def close(self):
            closed.append(self.most)

    serving = Serving(Engine())
    serving.scheduler.set_engine(serving.engine)
    serving.ask(job("a", "1", 4, filter=Filter(9)))
    serving.ask(job("b", "1", 4, filter=Filter(2)))
    while serving.scheduler.load().running or serving.scheduler.load().queue_len:
        turn(serving)
    assert serving.heard.bodies["a/1"]["text"] == "XXXX."
    assert serving.heard.bodies["b/1"]["error"]["code"] == "response_filtered"
    assert closed == [2]


def test_a_slow_disk_holds_no_other_answer():
    """While a last frame is being written, others go on; the job is still known, and can no longer be cancelled."""
    written, writing = threading.Event(), threading.Event()

    class Record:
        def sending(self, seq):
            pass

        def ending(self, last, refusal, whole):
            writing.set()
            assert written.wait(60)
            return [last]

    class Finish:
        def push(self, piece):
            return piece

        def finish(self):
            writing.set()
            assert written.wait(60)
            return "!"

        def close(self):
            pass

    for slow in ({"record": Record()}, {"filter": Finish()}):
        written.clear()
        writing.clear()
        serving = Serving(Engine())
        del serving.finishing.hand_over
        finisher = threading.Thread(target=serving.finishing.run)
        finisher.start()
        serving.start()
        serving.ask(job("a", "slow", 1, **slow))
        assert writing.wait(60)
        if "filter" in slow:
            assert serving.scheduler.find("a", "slow").state == "running"
            assert not serving.scheduler.cancel("a", "slow")
        serving.ask(job("b", "1", 3))
        wait_for(lambda serving=serving: serving.engine.taken == 0 and len(serving.engine.passes) == 4)
        assert not serving.heard.last
        written.set()
        wait_for(lambda serving=serving: len(serving.heard.last) == 2)
        serving.stop()
        serving.finishing.close()
        finisher.join(60)
        assert serving.heard.status == {"a/slow": 200, "b/1": 200}


def test_new_jobs_wait_while_the_disk_is_behind():
    """Where turns are fair: so many jobs at most are on their way out, and the loop does not spin meanwhile."""
    serving = Serving(Engine(sequences=1))
    out = []
    serving.finishing.hand_over = lambda job, why: out.append((job, why))
    serving.scheduler.set_engine(serving.engine)
    for n in range(ENDING_MAX + 2):
        serving.ask(job("a", str(n), 1))
    for _ in range(ENDING_MAX + 2):
        turn(serving)
    assert len(out) == ENDING_MAX and serving.scheduler.load().queue_len == 2
    assert not serving.scheduler._has_work()
    serving.finishing.finish(*out.pop(0))
    assert serving.scheduler._has_work()
    turn(serving)
    assert len(out) == ENDING_MAX and serving.heard.status == {"a/0": 200}


def test_owners_are_the_principals():
    """What was computed for one is kept apart from another's."""
    serving = Serving(Engine())
    serving.scheduler.set_engine(serving.engine)
    serving.loop.warm_up()
    serving.ask(job("a", "1", 1))
    serving.ask(job("b", "1", 1))
    turn(serving)
    assert serving.engine.owners[2:] == ["a", "b"] and len(set(serving.engine.owners)) == 4
    assert serving.engine.taken == 0


def test_nobody_waits_for_who_takes_note():
    """A listener that writes to the disk, as a batch's summary does, holds up neither admission nor the engine."""
    entered, counted, heard = threading.Event(), threading.Event(), []

    class Slow:
        def job_ended(self, outcome):
            entered.set()
            heard.append(counted.wait(60))

    serving = Serving(Engine(), listeners=[Slow()])
    serving.scheduler.submit(job("a", "1", 1))
    ending = threading.Thread(target=serving.scheduler.cancel, args=("a", "1"))
    ending.start()
    assert entered.wait(60)
    serving.ask(job("b", "2", 1))
    counted.set()
    ending.join()
    assert heard == [True]


def test_an_answer_that_cannot_be_sent_is_a_failed_one():
    """Its caller hears so, and so does who charges for it or waits for it in a batch."""
    told = []

    class Broken(NoLedger):
        def close(self, key):
            if key not in told:
                told.append(key)
                raise RuntimeError("a fault of ours")
            return super().close(key)

    class Listener:
        def job_ended(self, outcome):
            told.append((outcome.status, outcome.code))

    serving = Serving(Engine(), ledger=Broken(), listeners=[Listener()]).start()
    serving.ask(job("a", "1", 1))
    wait_for(lambda: len(told) == 2)
    assert told == [("a", "1"), (500, "internal")]
    assert serving.heard.bodies["a/1"]["error"]["code"] == "internal"
    serving.stop()
