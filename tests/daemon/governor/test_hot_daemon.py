"""A whole daemon that gets hot and cools again: a thermal zone that the test writes, a real broker, a caller."""

import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "roots" / "pi4"
ZONE = "sys/class/thermal/thermal_zone0/temp"
GOVERNED = "[sensors]\ninterval_s = 0.1\n[governor]\nrest_s = 0.5\n"


def test_a_hot_device_takes_no_work_and_says_so(broker, ready, ears, tmp_path):
    """Cool, hot, cool: what runs is finished, what comes is refused with a time, and then taken again."""
    root = tmp_path / "root"
    shutil.copytree(ROOT, root, symlinks=True)
    ready(sensors_root=root, toml=GOVERNED)
    told = ears(broker.port, "edgebit/v1/pi/event", "edgebit/v1/pi/status", "edgebit/v1/pi/metrics")
    heard = []

    def hear(wanted):
        """What comes until a message is as wanted; all of them are kept."""

        def seen(message):
            heard.append((message.topic.rpartition("/")[2], json.loads(message.payload)))
            return wanted(*heard[-1])

        told.until(seen)
        return heard[-1][1]

    def generate(job, prompt):
        caller = ears(broker.port, f"edgebit/v1/pi/out/alice/{job}")
        caller.say("edgebit/v1/pi/in/alice/generate", {"id": job, "prompt": prompt})
        return caller

    cool = hear(lambda kind, body: kind == "status" and body["headroom_c"] is not None)
    assert cool["state"] == "ready" and cool["headroom_c"] == 29.8 and cool["held_back"] is None
    running = generate("running", "slow 30")
    hear(lambda kind, body: kind == "status" and body["state"] == "busy")

    (root / ZONE).write_text("95000\n")
    hear(lambda kind, body: body.get("event") == "admission_closed")
    hot = hear(lambda kind, body: kind == "status" and body["state"] == "hot")
    assert hot["held_back"] == "far too hot, 1 of 4 threads" and hot["headroom_c"] == -17.0
    governor = hear(lambda kind, body: kind == "metrics" and not body["governor"]["admit"])["governor"]
    assert governor["threads"] == 1 and not governor["in_pool"]
    error = generate("refused", "say 1").next_json()["error"]
    assert (error["status"], error["code"], error["type"], error["retryable"]) == (503, "hot", "BUSY", True)
    assert error["retry_after_ms"] > 0 and "far too hot" in error["message"]
    assert running.next_json()["done_reason"] == "stop"

    (root / ZONE).write_text("50000\n")
    hear(lambda kind, body: body.get("event") == "admission_opened")
    hear(lambda kind, body: kind == "status" and body["state"] == "ready")
    assert generate("taken", "say 1").next_json()["text"] == "w0 "
    events = [body["event"] for kind, body in heard if kind == "event" and body["event"] != "connected"]
    assert events == ["hot", "admission_closed", "cooled", "admission_opened"]
