"""The queue under stress: whatever is submitted, cancelled and late at once, each job gets exactly one last frame."""

import json
import random
import threading
import time
from collections import Counter

import pytest

from edgebit.daemon.contract.messages import Address, GenerateRequest, Refusal
from edgebit.daemon.serving.scheduler import Job, Scheduler


class Heard:
    """A publisher that counts last frames by job."""

    packet_max = 0

    def __init__(self):
        self.last = Counter()
        self.status = {}
        self._lock = threading.Lock()

    def publish(self, message):
        body = json.loads(message.payload)
        with self._lock:
            if body.get("done"):
                key = message.topic
                self.last[key] += 1
                self.status[key] = body["error"]["status"] if "error" in body else 200
        return True


class Engine:
    """Yields tokens as fast as it can, looks at both ways of being cancelled, and fails when it feels like it."""

    def __init__(self, rng):
        self._rng = rng
        self._flag = threading.Event()

    def request_ids(self, request):
        return [1]

    def generate(self, request, ids, answer, cancelled):
        if self._rng.random() < 0.05:
            raise MemoryError
        for n in range(request.max_tokens):
            if cancelled() or self._flag.is_set():
                answer.done_reason = "cancelled"
                return
            time.sleep(0.0005)
            answer.tokens.append(n)
            yield "x"
        answer.done_reason = "stop"

    def keep(self):
        pass

    def cancel(self):
        self._flag.set()

    def cancel_reset(self):
        self._flag.clear()


def job(principal, name, tokens, ttl_s=60.0):
    address = Address(
        principal=principal,
        id=name,
        id_given=True,
        topic=f"{principal}/{name}",
        topic_given=True,
        correlation=None,
        deadline=time.monotonic() + ttl_s,
    )
    request = GenerateRequest(
        prompt="a", messages=(), sampling={}, seed=1, max_tokens=tokens, stop=(), stream=True, format="json"
    )
    return Job(address=address, request=request)


@pytest.mark.parametrize("seed", range(3))
def test_every_job_is_answered_exactly_once(seed):
    """Four callers submit, cancel their own and others' jobs, with deadlines long and short; then the device stops."""
    heard = Heard()
    scheduler = Scheduler(heard, "pi", queue_max=6)
    scheduler.set_engine(Engine(random.Random(seed)))
    worker = threading.Thread(target=scheduler.run)
    worker.start()
    admitted, lock = set(), threading.Lock()

    def call(principal):
        rng = random.Random(f"{seed}{principal}")
        for n in range(60):
            try:
                run(scheduler, job(principal, f"j{n}", rng.randint(1, 20), rng.choice([0.005, 60.0])))
                with lock:
                    admitted.add(f"{principal}/j{n}")
            except Refusal as refusal:
                assert refusal.code == "queue_full" and refusal.retryable
            if rng.random() < 0.5:
                scheduler.cancel(rng.choice("abcd"), f"j{rng.randint(max(0, n - 3), n)}")
            scheduler.expire()
            time.sleep(rng.random() * 0.004)

    callers = [threading.Thread(target=call, args=(principal,)) for principal in "abcd"]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    scheduler.stop()
    worker.join(10)
    assert not worker.is_alive()
    assert set(heard.last) == admitted and set(heard.last.values()) == {1}
    assert {200, 499, 408} <= set(heard.status.values())
    with pytest.raises(Refusal, match="shutting down"):
        scheduler.submit(job("a", "late", 1))


def test_a_late_cancel_does_not_hit_the_next_job():
    """The engine's flag is taken back before each job."""
    heard = Heard()
    scheduler = Scheduler(heard, "pi", queue_max=4)
    engine = Engine(random.Random(7))
    scheduler.set_engine(engine)
    engine.cancel()  # came when the job before had just ended
    threading.Thread(target=scheduler.run, daemon=True).start()
    run(scheduler, job("a", "next", 3))
    wait_for(lambda: heard.last)
    scheduler.stop()
    assert heard.status["a/next"] == 200


def test_what_was_computed_is_kept_once_the_answer_is_out():
    """Nobody waits for it, the same request may come again meanwhile, and a fault in it fails nothing."""
    heard, seen, go_on = Heard(), [], threading.Event()

    class KeepingEngine(Engine):
        def keep(self):
            seen.append(dict(heard.status))
            go_on.wait(10)
            raise OSError(28, "No space left on device")

    scheduler = Scheduler(heard, "pi", queue_max=4)
    scheduler.set_engine(KeepingEngine(random.Random(7)))
    worker = threading.Thread(target=scheduler.run)
    worker.start()
    run(scheduler, job("a", "same", 3))
    wait_for(lambda: len(seen) == 1)
    assert seen == [{"a/same": 200}]
    assert not scheduler.load().running
    run(scheduler, job("a", "same", 3))
    go_on.set()
    wait_for(lambda: heard.last["a/same"] == 2)
    scheduler.stop()
    worker.join(10)
    assert not worker.is_alive()
    assert (scheduler.counters["answered"], scheduler.counters["failed"]) == (2, 0)


def test_a_job_runs_once_it_is_released():
    """A place that is kept is no answer yet: it can be given back unheard, or ended like any waiting job."""
    heard = Heard()
    scheduler = Scheduler(heard, "pi", queue_max=4)
    scheduler.set_engine(Engine(random.Random(7)))
    worker = threading.Thread(target=scheduler.run)
    worker.start()
    kept, back, ended = (job("a", name, 1) for name in ("kept", "back", "ended"))
    for one in (kept, back, ended):
        scheduler.submit(one)
    run(scheduler, job("a", "later", 1))
    wait_for(lambda: heard.last["a/later"])
    assert set(heard.last) == {"a/later"}
    assert scheduler.cancel("a", "ended") and heard.status["a/ended"] == 499
    assert scheduler.withdraw(back) and not scheduler.withdraw(ended)
    scheduler.release([kept, ended])
    wait_for(lambda: heard.last["a/kept"])
    scheduler.stop()
    worker.join(10)
    assert heard.last == {"a/later": 1, "a/ended": 1, "a/kept": 1}


def run(scheduler, one):
    scheduler.submit(one)
    scheduler.release([one])


def wait_for(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_queue_holds_what_it_says():
    """queue_max jobs wait beside the running one; with 0 only an idle device takes a job."""
    for queue_max, takes in ((0, 0), (3, 3)):
        scheduler = Scheduler(Heard(), "pi", queue_max=queue_max)  # no engine yet: all of them wait
        for n in range(takes):
            scheduler.submit(job("a", f"j{n}", 1))
        with pytest.raises(Refusal, match=f"{takes} jobs are waiting"):
            scheduler.submit(job("a", "more", 1))
