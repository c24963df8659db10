"""The daemon under many callers at once, and for long: fairness, lost or doubled answers, memory, own cost.

    python bench/daemon_load.py MODEL [--principals 1000] [--requests 10000] [--greedy 10] [--tokens 4]
    python bench/daemon_load.py MODEL --seconds 3600 --rate 2        # a soak: two requests a second for an hour

MODEL is a bundle or model file. Starts a mosquitto on the loopback and edgebitd.pyz as a device would. Every principal
keeps one request waiting, a greedy one twenty; each of the sane ones should be served as often as any other, the greedy
too: counted from when each was answered once until the last request is sent, in answers and in the tokens that were
computed, which are what the daemon shares out. Prints JSON, and progress on standard error. MQTT 5, one connection for
all callers.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from running_daemon import DEVICE, cpu_s, running_daemon

GREEDY_WINDOW = 20  # requests that a greedy principal keeps waiting
SILENCE_S = 60.0  # without any answer for so long, the run is over
RSS_EVERY_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--principals", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--greedy", type=int, default=10, help="how many of the principals are greedy")
    parser.add_argument("--tokens", type=int, default=4, help="of each answer, at most")
    parser.add_argument("--seconds", type=float, help="a soak of so long instead of a number of requests")
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second of a soak")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--toml", default="", help="more of edgebitd.toml")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(options, Path(folder)), indent=1))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start broker and daemon, load them, and put the figures together."""
    toml = f"[limits]\nqueue_max = 100000\n[report]\ninterval_s = 5.0\n{options.toml}"
    broker_conf = "max_queued_messages 100000\nmax_inflight_messages 1000\n"
    with running_daemon(options.model, folder, toml=toml, broker_conf=broker_conf, python=options.python) as running:
        daemon = running.daemon
        callers = Callers(running.port, options)
        callers.wait_until_ready(daemon)
        memory = Memory(daemon.pid)
        before = cpu_s(daemon.pid)
        began = time.monotonic()
        soak(callers, options) if options.seconds else flood(callers, options)
        took_s = time.monotonic() - began
        return {
            **callers.figures(took_s),
            "cpu_ms_per_request": round(1000 * (cpu_s(daemon.pid) - before) / max(callers.count, 1), 3),
            "engine_ms_per_request": callers.engine_ms_per_request(),
            **memory.figures(),
            "state_folder_kib": sum(file.stat().st_size for file in (folder / "state").rglob("*") if file.is_file())
            >> 10,
            "daemon_counters": callers.counters,
        }


class Memory:
    """Resident memory of a process without mapped files, once a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._mib: list[float] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
            except OSError:
                return
            self._mib += [int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")]
            time.sleep(RSS_EVERY_S)

    def figures(self) -> dict[str, Any]:
        tenth = max(len(self._mib) // 10, 1)
        parts = [self._mib[start : start + tenth] for start in range(0, len(self._mib), tenth)]
        return {"rss_anon_mib_by_tenths": [round(statistics.median(part), 2) for part in parts if part]}


class Callers:
    """All principals over one connection."""

    def __init__(self, port: int, options: argparse.Namespace) -> None:
        self._options = options
        self._lock = threading.Condition()
        self._ready = False
        self._answered: Counter[str] = Counter()  # by id
        self._once: set[str] = set()  # principals that were answered
        self._served: Counter[str] = Counter()  # by principal, while all of them had something waiting
        self._tokens: Counter[str] = Counter()  # computed for each, in the same time
        self._sent: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._free: list[str] = []  # principals that were answered, and have not asked again
        self._latency_s: list[float] = []
        self._sent_at: dict[str, float] = {}
        self.counters: dict[str, int] = {}
        self.heard_at = time.monotonic()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(1000)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"edgebit/v1/{DEVICE}/{name}", 1) for name in ("out/#", "status", "metrics")]
        )
        while True:
            try:
                self._client.connect("127.0.0.1", port)
                break
            except OSError:
                time.sleep(0.05)
        self._client.loop_start()

    @property
    def count(self) -> int:
        """Requests that were answered, in whatever way."""
        return len(self._answered)

    def engine_ms_per_request(self) -> float:
        """By the device's own count, as it last told it."""
        return round(self.counters.get("engine_us", 0) / 1000 / max(self.counters.get("answered", 0), 1), 3)

    def wait_until_ready(self, daemon: "subprocess.Popen[bytes]") -> None:
        with self._lock:
            while not self._ready and daemon.poll() is None:
                self._lock.wait(0.2)
        if daemon.poll() is not None:
            raise SystemExit(f"the daemon ended with {daemon.returncode}")

    def names(self) -> list[str]:
        return [f"p{number:04}" for number in range(self._options.principals)]

    def greedy(self, principal: str) -> bool:
        return int(principal[1:]) < self._options.greedy

    def ask(self, principal: str) -> None:
        number = self._sent[principal]
        job = f"{principal}-{number}"
        body = {"id": job, "prompt": f"{self._sent[principal]:05} from {principal}", "ttl_ms": 3_600_000}
        options = {"num_predict": self._options.tokens, "temperature": 0}
        with self._lock:
            self._sent[principal] += 1
            self._waiting[principal] += 1
            self._sent_at[job] = time.monotonic()
        payload = json.dumps({**body, "options": options})
        self._client.publish(f"edgebit/v1/{DEVICE}/in/{principal}/generate", payload, qos=1)

    def take_answered(self, timeout_s: float) -> list[str]:
        """Principals that may ask again, since answers to them have come; waits for one at most so long."""
        with self._lock:
            self._lock.wait_for(lambda: bool(self._free), timeout_s)
            free, self._free = self._free, []
            return free

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        name = message.topic.split("/")[3]
        body = json.loads(message.payload)
        with self._lock:
            if name == "status":
                self._ready = self._ready or body["state"] in ("ready", "busy")
            elif name == "metrics":
                self.counters = body["counters"]
            elif body.get("done"):
                self._answer(message.topic.split("/")[4], body)
            self._lock.notify_all()

    def _answer(self, principal: str, body: dict[str, Any]) -> None:
        job = body["id"]
        self.heard_at = time.monotonic()
        self._answered[job] += 1
        if self._answered[job] > 1:
            return
        self._outcomes[body["error"]["code"] if "error" in body else "answered"] += 1
        self._latency_s.append(self.heard_at - self._sent_at.pop(job, self.heard_at))
        self._waiting[principal] -= 1
        if len(self._once) == self._options.principals and sum(self._sent.values()) < self._options.requests:
            self._served[principal] += 1
            computed = body.get("prompt_eval_count", 0) - body.get("prompt_eval_cached", 0)
            self._tokens[principal] += computed + body.get("eval_count", 0)
        self._once.add(principal)
        self._free = [*self._free, principal]

    def _shares(self, counts: list[int]) -> dict[str, float]:
        """How much each of the sane had, and the greedy."""
        greedy, sane = counts[: self._options.greedy], sorted(counts[self._options.greedy :])
        tenths = statistics.quantiles(sane, n=10)
        figures = {"least": sane[0], "p10": tenths[0], "mean": statistics.fmean(sane), "p90": tenths[-1]}
        figures |= {"most": sane[-1], "greedy_mean": statistics.fmean(greedy) if greedy else 0.0}
        return {name: round(value, 2) for name, value in figures.items()}

    def figures(self, took_s: float) -> dict[str, Any]:
        with self._lock:
            served = [self._served[name] for name in self.names()]
            tokens = [self._tokens[name] for name in self.names()]
            latency = sorted(self._latency_s) or [0.0]
            return {
                "principals": self._options.principals,
                "sent": sum(self._sent.values()),
                "outcomes": dict(self._outcomes),
                "unanswered": len(self._sent_at),
                "answered_twice": sum(1 for count in self._answered.values() if count > 1),
                "took_s": round(took_s, 1),
                "served": self._shares(served),
                "computed_tokens": self._shares(tokens),
                "latency_p50_s": round(latency[len(latency) // 2], 3),
                "latency_p99_s": round(latency[len(latency) * 99 // 100], 3),
            }


def flood(callers: Callers, options: argparse.Namespace) -> None:
    """Everybody keeps a request waiting, the greedy keep many, until all requests are sent; then wait for the rest."""
    sent = 0
    for principal in callers.names():
        for _ in range(GREEDY_WINDOW if callers.greedy(principal) else 1):
            callers.ask(principal)
            sent += 1
    said = 0
    while callers.count < sent and time.monotonic() - callers.heard_at < SILENCE_S:
        for principal in callers.take_answered(1.0):
            if sent < options.requests:
                callers.ask(principal)
                sent += 1
        if callers.count - said >= 1000:
            said = callers.count
            print(f"{said} of {options.requests} answered", file=sys.stderr)


def soak(callers: Callers, options: argparse.Namespace) -> None:
    """One principal after the other asks, at an even rate."""
    began = time.monotonic()
    names, number, said_s = callers.names(), 0, 0.0
    while (passed_s := time.monotonic() - began) < options.seconds:
        if number < passed_s * options.rate:
            callers.ask(names[number % len(names)])
            number += 1
        else:
            time.sleep(0.01)
        if passed_s - said_s >= 60:
            said_s = passed_s
            print(f"{passed_s:.0f} s, {callers.count} answered", file=sys.stderr)
    deadline = time.monotonic() + SILENCE_S
    while callers.count < number and time.monotonic() < deadline:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
