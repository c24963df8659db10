"""Eight requests at once through the whole daemon against eight in turn, beside what the engine itself gains.

    python bench/daemon_batch.py MODEL [--requests 8] [--sequences 1,2,4,8] [--prompt 24] [--tokens 64] [--threads 2]

MODEL is a bundle or model file. For each number of sequences: requests to the engine in this process, without a daemon,
in turn and at once; then over MQTT to edgebitd.pyz behind a mosquitto on the loopback. Drafts and all caches are off,
so that all compute the same; the median of the rounds counts. Prints JSON. tok/s: drawn, prompts' time included;
`gain`: at once against in turn; `cpu_gain`: the same by tokens per second of CPU time, which with one thread is what
other work on the machine disturbs least.
"""

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from running_daemon import DEVICE, Running, cpu_s, running_daemon

from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.contract.messages import GenerateRequest
from edgebit.daemon.serving.engine import LoadedModel
from edgebit.runtime.generation import Answer, Generation

ANSWER_S = 300.0
CTX_LEN = 512
WORDS = ("river", "stone", "lamp", "green", "window", "seven", "paper", "cloud", "bread", "train", "music", "horse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--sequences", default="1,2,4,8")
    parser.add_argument("--prompt", type=int, default=24, help="words of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = [row(options, int(sequences)) for sequences in options.sequences.split(",")]
    print(json.dumps({"settings": {**vars(options), "model": options.model.name}, "rows": rows}, indent=1))


def row(options: argparse.Namespace, sequences: int) -> dict[str, Any]:
    """Engine and daemon with so many sequences."""
    engine = engine_speeds(options, sequences)
    with tempfile.TemporaryDirectory() as name:
        toml = (
            f"[engine]\nthreads = {options.threads}\nsequences = {sequences}\nctx_len = {CTX_LEN}\nspeculate = 0\n"
            "prefix_memory_mib = 0\n[serving]\nanswer_cache_mib = 0\n[limits]\nqueue_per_principal_max = 64\n"
        )
        with running_daemon(options.model, Path(name), toml=toml) as running:
            daemon = daemon_speeds(options, running)
    return {"sequences": sequences, "engine": engine, "daemon": daemon}


def prompts(options: argparse.Namespace, number: int) -> list[str]:
    """Other ones in each round, that begin differently."""
    chosen = random.Random(number)
    return [" ".join(chosen.choices(WORDS, k=options.prompt)) for _ in range(options.requests)]


def speeds(
    options: argparse.Namespace, answer: Callable[[list[str], bool], int], cpu_s: Callable[[], float]
) -> dict[str, Any]:
    """`answer` prompts in turn and at once (True), and give the tokens drawn; a first round does not count."""
    tok_s: dict[bool, list[float]] = {False: [], True: []}
    tok_cpu_s: dict[bool, list[float]] = {False: [], True: []}
    for number in range(options.rounds + 1):
        for at_once in (False, True):
            asked = prompts(options, 2 * number + at_once)
            began, cpu_began_s = time.monotonic(), cpu_s()
            drawn = answer(asked, at_once)
            if number:
                tok_s[at_once].append(drawn / (time.monotonic() - began))
                tok_cpu_s[at_once].append(drawn / (cpu_s() - cpu_began_s))
    in_turn, together = statistics.median(tok_s[False]), statistics.median(tok_s[True])
    cpu_in_turn, cpu_together = statistics.median(tok_cpu_s[False]), statistics.median(tok_cpu_s[True])
    figures = {"in_turn_tok_s": in_turn, "at_once_tok_s": together, "gain": together / in_turn}
    figures |= {"in_turn_tok_cpu_s": cpu_in_turn, "cpu_gain": cpu_together / cpu_in_turn}
    spread = {"at_once_least": min(tok_s[True]), "at_once_most": max(tok_s[True])}
    return {name: round(value, 2) for name, value in (figures | spread).items()}


def engine_speeds(options: argparse.Namespace, sequences: int) -> dict[str, Any]:
    """The engine in this process."""
    config = EngineConfig(
        threads=options.threads, sequences=sequences, ctx_len=CTX_LEN, speculate=0, prefix_memory_mib=0
    )
    model = LoadedModel.open(options.model, config)
    try:
        figures = speeds(options, lambda asked, at_once: answered(model, options, asked, at_once), time.process_time)
        kv_bytes = model.describe()["engine"]["kv_bytes"]
        return {**figures, "kv_mib": round(kv_bytes / (1 << 20), 1)}
    finally:
        model.close()


def answered(model: LoadedModel, options: argparse.Namespace, asked: list[str], at_once: bool) -> int:
    """Tokens drawn of all."""
    waiting = [request(text, options.tokens) for text in asked]
    going: list[Generation] = []
    drawn = 0
    while waiting or going:
        while waiting and len(going) < (model.sequences if at_once else 1):
            one = waiting.pop(0)
            ids = model.request_ids(one)
            going.append(model.begin(one, ids, Answer(prompt_tokens=len(ids)), str(len(waiting))))
        model.step(going)
        for generation in [each for each in going if each.done]:
            going.remove(generation)
            drawn += len(generation.answer.tokens)
            model.end(generation)
    return drawn


def request(text: str, tokens: int) -> GenerateRequest:
    return GenerateRequest(
        prompt=text,
        messages=(),
        sampling={"temperature": 0.0},
        seed=0,
        max_tokens=tokens,
        stop=(),
        stream=False,
        format="json",
    )


def daemon_speeds(options: argparse.Namespace, running: Running) -> dict[str, Any]:
    """The daemon, over MQTT."""
    caller = Caller(running)
    return speeds(
        options, lambda asked, at_once: caller.ask(asked, options.tokens, at_once), lambda: cpu_s(running.daemon.pid)
    )


class Caller:
    """One connection; each request by a principal of its own."""

    def __init__(self, running: Running) -> None:
        self._lock = threading.Condition()
        self._ready = False
        self._replies: dict[str, dict[str, Any]] = {}
        self._count = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"edgebit/v1/{DEVICE}/{name}", 1) for name in ("out/#", "status")]
        )
        while not self._client.is_connected():
            try:
                self._client.connect("127.0.0.1", running.port)
                break
            except OSError:
                time.sleep(0.05)
        self._client.loop_start()
        with self._lock:
            while not self._ready:
                self._lock.wait(0.2)
                if running.daemon.poll() is not None:
                    raise SystemExit(f"the daemon ended with {running.daemon.returncode}")

    def ask(self, asked: list[str], tokens: int, at_once: bool) -> int:
        """Tokens drawn of all answers."""
        groups = [asked] if at_once else [[text] for text in asked]
        return sum(self._ask(group, tokens) for group in groups)

    def _ask(self, asked: list[str], tokens: int) -> int:
        ids = []
        for text in asked:
            self._count += 1
            ids.append(f"job-{self._count}")
            options = {"num_predict": tokens, "temperature": 0}
            body = {"id": ids[-1], "prompt": text, "raw": True, "options": options}
            topic = f"edgebit/v1/{DEVICE}/in/p{len(ids)}/generate"
            self._client.publish(topic, json.dumps(body), qos=1)
        with self._lock:
            if not self._lock.wait_for(lambda: all(job in self._replies for job in ids), ANSWER_S):
                raise SystemExit(f"no answers within {ANSWER_S:.0f} s")
            replies = [self._replies.pop(job) for job in ids]
        if failed := [reply for reply in replies if "error" in reply]:
            raise SystemExit(f"refused: {failed[0]['error']}")
        return sum(reply["eval_count"] for reply in replies)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        body = json.loads(message.payload)
        with self._lock:
            if message.topic.endswith("/status"):
                self._ready = self._ready or body["state"] == "ready"
            elif body.get("done"):
                self._replies[body["id"]] = body
            self._lock.notify_all()


if __name__ == "__main__":
    main()
