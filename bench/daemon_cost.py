"""What the daemon itself costs: memory beyond the model, and time of a request beyond the engine's.

    python bench/daemon_cost.py MODEL [--requests 200] [--python PYTHON]

MODEL is a bundle or model file. Starts a mosquitto on the loopback and edgebitd.pyz as a device would, with one engine
thread, and asks one question after another for one token each. Prints JSON; times are medians of the requests, MQTT 5.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from running_daemon import DEVICE, running_daemon

from edgebit.mqtt_client.broker_url import BrokerUrl
from edgebit.mqtt_client.client import DeviceClient

MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(options.model.resolve(), options.requests, options.python, Path(name)), indent=1))


def measure(model: Path, requests: int, python: str, folder: Path) -> dict[str, Any]:
    """Run broker and daemon, ask, and put the figures together. All requests are the same, and none is known."""
    toml = "[engine]\nthreads = 1\n[serving]\nanswer_cache_mib = 0\n"
    began = time.monotonic()
    with (
        running_daemon(model, folder, toml=toml, python=python) as running,
        DeviceClient(BrokerUrl("127.0.0.1", running.port, False), principal="bench", protocol="5") as client,
    ):
        while not (found := client.devices(0.2)) or found[0].status.get("state") != "ready":
            if running.daemon.poll() is not None:
                raise SystemExit(f"the daemon ended with {running.daemon.returncode}")
        ready_s = time.monotonic() - began
        engine = client.devices(0.5)[0].info["engine"]
        return {"ready_s": round(ready_s, 2), **ask(client, running.daemon.pid, requests, model, engine)}


def ask(client: DeviceClient, pid: int, requests: int, model: Path, engine: dict[str, Any]) -> dict[str, Any]:
    """The figures of `requests` short requests."""
    short = {"prompt": "hi", "raw": True, "options": {"num_predict": 1, "temperature": 0}}
    for _ in range(10):
        client.ask(DEVICE, "generate", short, timeout_s=60)
    ours_ms, round_trip_ms = [], []
    before = cpu_ms(pid)
    for _ in range(requests):
        sent = time.monotonic()
        reply = client.ask(DEVICE, "generate", short, timeout_s=60)
        round_trip_ms.append(1000 * (time.monotonic() - sent))
        ours_ms.append((reply["total_duration"] - reply["prompt_eval_duration"] - reply["eval_duration"]) / 1e6)
    main, network = ((now - then) / requests for now, then in zip(cpu_ms(pid), before, strict=True))
    worker = statistics.median(ours_ms)
    memory = memory_mib(pid, model)
    held = (engine["kv_bytes"] + engine["arena_bytes"]) / MIB
    return {
        "requests": requests,
        "main_thread_cpu_ms": round(main, 3),
        "network_thread_cpu_ms": round(network, 3),
        "worker_beyond_engine_ms": round(worker, 3),
        "own_cost_ms": round(main + network + worker, 3),
        "round_trip_ms": round(statistics.median(round_trip_ms), 3),
        "rss_mib": round(memory["all"], 1),
        "rss_of_the_model_file_mib": round(memory["model"], 1),
        "kv_cache_and_arena_mib": round(held, 1),
        "rss_beyond_the_model_file_mib": round(memory["all"] - memory["model"], 1),
    }


def cpu_ms(pid: int) -> tuple[float, float]:
    """CPU time of the main and the network thread, the first two that there were, from /proc/PID/task."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name))
    main, network = (int((task / "schedstat").read_text().split()[0]) / 1e6 for task in tasks[:2])
    return main, network


def memory_mib(pid: int, model: Path) -> dict[str, float]:
    """Resident memory, all of it and the pages of the model file, from /proc/PID/smaps."""
    sums, inside = {"all": 0.0, "model": 0.0}, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            inside = words[-1].endswith((".ebm", ".bundle", model.name))
        elif words[0] == "Rss:":
            sums["all"] += int(words[1]) / 1024
            sums["model"] += int(words[1]) / 1024 if inside else 0
    return sums


if __name__ == "__main__":
    main()
