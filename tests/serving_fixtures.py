"""Jobs, an engine and a publisher for tests of serving, without a model and without MQTT."""

import json
import threading
import time
from collections import Counter, defaultdict

from edgebit.daemon.assistant.assistant import Assistant
from edgebit.daemon.assistant.own_facts import OwnFacts
from edgebit.daemon.config.sections import LimitsConfig, ServingConfig
from edgebit.daemon.contract.messages import Address, GenerateRequest
from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.sensors.reading import Reading
from edgebit.daemon.serving.batch_loop import BatchLoop
from edgebit.daemon.serving.endings import Endings
from edgebit.daemon.serving.finishing import Finishing
from edgebit.daemon.serving.job import Job
from edgebit.daemon.serving.scheduler import Scheduler
from edgebit.runtime.eval_errors import Cancelled

OWN_FACTS = OwnFacts(
    figures={"t_soc": Reading("t_soc", "C", 51.5, "/sys/class/thermal/thermal_zone0/temp (cpu-thermal)")},
    connected=True,
    broker="broker.local, port 1883",
    protocol="5",
    encrypted=False,
    described={},
)


class Heard:
    """A publisher that keeps last frames by topic."""

    packet_max = 0

    def __init__(self):
        self.last = Counter()
        self.status = {}
        self.bodies = {}
        self.deltas = defaultdict(list)
        self._lock = threading.Lock()

    def publish(self, message):
        body = json.loads(message.payload)
        with self._lock:
            if body.get("done"):
                self.last[message.topic] += 1
                self.bodies[message.topic] = body
                self.status[message.topic] = body["error"]["status"] if "error" in body else 200
            elif body["t"] == "delta":
                self.deltas[message.topic].append(body["d"])
        return True


class NoLedger:
    """Where nothing measures."""

    def record(self, begin_s, end_s, shares):
        pass

    def close(self, key):
        return Energy(joules=None, absent="no power sensor")


class Making:
    """An answer of "x"s; its first pass takes the prompt."""

    def __init__(self, ids, max_tokens, answer, owner):
        self.prompt_left, self.max_tokens, self.answer, self.owner = len(ids), max_tokens, answer, owner
        self.done, self.error = False, None

    def cancel(self):
        self.done, self.answer.done_reason = True, "cancelled"
        return ""


class Engine:
    """Steps as fast as it can, or as slowly as step_s says; counts what it is asked for."""

    ctx_len = 1000

    def __init__(self, sequences=2, step_s=0.0):
        self.sequences, self.step_s = sequences, step_s
        self.passes, self.owners, self.threads, self.kept = [], [], [], 0
        self.taken = 0
        self._cancelled = threading.Event()

    def fitting(self, request):
        return request

    def request_ids(self, request):
        return list((request.prompt or " ".join(each.content for each in request.messages)).encode())

    def answer_key(self, request, ids):
        return repr((ids, request.max_tokens)).encode() if request.seed_given else None

    def begin(self, request, ids, answer, owner):
        assert self.taken < self.sequences
        self.taken += 1
        self.owners.append(owner)
        return Making(ids, request.max_tokens, answer, owner)

    def step(self, generations, prompt_most):
        if self._cancelled.wait(self.step_s):
            self._cancelled.clear()
            raise Cancelled
        self.passes.append(len(generations))
        shown = []
        for each in generations:
            if each.prompt_left:
                each.prompt_left, each.answer.prompt_ns = 0, 1
            each.answer.tokens.append(len(each.answer.tokens))
            each.answer.done_reason = "length"
            each.answer.text += "x"
            each.done = len(each.answer.tokens) == each.max_tokens
            shown.append((each, ["x"]))
        return shown

    def end(self, generation):
        self.taken -= 1

    forget = end

    def warm_up(self):
        return request(4, "warm"), [1, 2, 3]

    def keep(self):
        self.kept += 1

    def set_threads(self, threads):
        self.threads.append(threads)

    def cancel(self):
        self._cancelled.set()

    def cancel_reset(self):
        self._cancelled.clear()


class Serving:
    """A scheduler with its loop, in a thread of its own once started."""

    def __init__(self, engine, *, limits=None, serving=None, ledger=None, listeners=(), clock=time.monotonic):
        self.heard = Heard()
        self.engine = engine
        assistant = Assistant(lambda: OWN_FACTS)
        self.endings = Endings(self.heard, "pi", ledger=ledger or NoLedger(), assistant=assistant)
        self.endings.listeners += listeners
        serving = serving or ServingConfig()
        self.scheduler = Scheduler(limits or LimitsConfig(), serving, self.endings, clock)
        self.finishing = Finishing(self.scheduler, self.endings)
        self.finishing.hand_over = self.finishing.finish  # at once, in the loop's thread
        self.loop = BatchLoop(self.scheduler, engine, self.endings, self.finishing)
        self.worker = threading.Thread(target=self.loop.run, daemon=True)

    def start(self):
        self.scheduler.set_engine(self.engine)
        self.worker.start()
        return self

    def ask(self, job):
        self.scheduler.submit(job)
        self.scheduler.release([job])

    def stop(self):
        self.scheduler.stop()
        self.worker.join(60)
        assert not self.worker.is_alive() and self.engine.taken == 0


def turn(serving):
    """One turn of the loop, in this thread."""
    waits = iter([True, False])
    wait, serving.scheduler.wait = serving.scheduler.wait, lambda: next(waits)
    serving.loop.run()
    serving.scheduler.wait = wait


def request(max_tokens, prompt="a", op="generate"):
    return GenerateRequest(
        op=op,
        prompt=prompt,
        messages=(),
        sampling={},
        seed=1,
        max_tokens=max_tokens,
        stop=(),
        stream=True,
        format="json",
    )


def job(principal, name, tokens, ttl_s=60.0, *, prompt="a", op="generate", now=None, **named):
    address = Address(
        principal=principal,
        id=name,
        id_given=True,
        topic=f"{principal}/{name}",
        topic_given=True,
        correlation=None,
        deadline=(time.monotonic() if now is None else now) + ttl_s,
    )
    return Job(address=address, request=request(tokens, prompt, op), **named)


def wait_for(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
