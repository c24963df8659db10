"""Energy of replies, through the whole daemon: a meter on a serial line, a broker, jobs that share the engine."""

import json
import os
import threading
import time

import pytest
from meter_messages import line
from serial_wire import Wire

WATTS = 5.0
TOKENS, SLOW_S = 20, 0.05  # of the fake model, between two


class Meter:
    """Says every 50 ms what is drawn, until stop()."""

    def __init__(self, folder):
        self.wire = Wire(folder / "ttyMETER")
        os.set_blocking(self.wire.end, False)  # nobody may be reading
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self):
        while not self._ended.wait(0.05):
            try:
                self.wire.say(line(f"EB1 V=5 A={WATTS / 5}") + b"\n")
            except BlockingIOError:
                continue

    def stop(self):
        self._ended.set()
        self._thread.join()
        self.wire.close()


@pytest.fixture
def meter(tmp_path):
    pytest.importorskip("serial", reason="pyserial is not installed")
    meter = Meter(tmp_path)
    yield meter
    meter.stop()


def metrics_with(ear, wanted):
    message = ear.until(
        lambda message: message.topic.endswith("/metrics") and wanted(json.loads(message.payload)["sensors"])
    )
    return json.loads(message.payload)["sensors"]


def test_jobs_that_share_the_engine_share_its_energy(broker, ears, ready, meter):
    """Together they have drawn what the device drew from first to last, and each says from which meter it knows."""
    ready(toml=f'[power]\nport = "{meter.wire.name}"')
    ear = ears(broker.port, "edgebit/v1/pi/out/+/+")
    sensors = metrics_with(ears(broker.port, "edgebit/v1/pi/metrics"), lambda said: said["energy_total"].get("value"))
    assert sensors["power"]["value"] == WATTS and "line meter" in sensors["power"]["source"]
    began = time.monotonic()
    for principal in ("ann", "bob"):
        ear.say(f"edgebit/v1/pi/in/{principal}/generate", {"id": "1", "prompt": f"slow {TOKENS}"})
    replies = [ear.next_json(), ear.next_json()]
    ended = time.monotonic()
    each = [reply["energy"] for reply in replies]
    together = sum(energy["joules"] for energy in each)
    off = max(energy["error"] for energy in each)
    assert off < 0.1
    assert TOKENS * SLOW_S * WATTS * (1 - off) <= together <= (ended - began) * WATTS * (1 + off)
    for energy in each:
        assert (
            energy["source"] == f"line meter {meter.wire.name}" and energy["measured"] and energy["covers"] == "device"
        )
        assert energy["joules_per_token"] == pytest.approx(energy["joules"] / TOKENS, rel=1e-3)
    assert each[0]["joules"] == pytest.approx(each[1]["joules"], rel=0.4)  # they begin a pass or two apart


def test_without_a_meter_the_reason_is_said(broker, ears, ready):
    """Nothing, rather than 0."""
    ready()
    ear = ears(broker.port, "edgebit/v1/pi/out/+/+")
    ear.say("edgebit/v1/pi/in/ann/generate", {"id": "1", "prompt": "say 3"})
    energy = ear.next_json()["energy"]
    assert list(energy) == ["absent"] and "no power sensor" in energy["absent"]
