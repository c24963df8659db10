"""`edgebit monitor` on a real broker: a daemon with the fake model, its history told by a client of the test."""

import json
import threading
import time

import pytest
from click.testing import CliRunner

from edgebit.cli import cli
from edgebit.monitor.feed import Feed, PastReader
from edgebit.monitor.fleet import Fleet
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient

WAIT_S = 60.0


def call(*args):
    return CliRunner().invoke(cli, ["monitor", *args], catch_exceptions=False)


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def history(broker, ears):
    """A device `old` that is online and answers each `history` with two rows, one of them a minute old."""
    told = ears(broker.port, "edgebit/v1/old/in/+/history")
    told.say("edgebit/v1/old/availability", {"state": "online", "conn": 1}, retain=True)

    def answer():
        while (request := told.heard.get()) is not None:
            fields = json.loads(request.payload)
            rows = [[1000, 2, 61.5], [1060, 2, 62.5]]
            body = {"columns": ["t", "n", "t_soc"], "rows": rows, "now": 1120.0, "step_s": 60, "next": None}
            reply = {"id": fields["id"], "seq": 0, "t": "done", "done": True, "op": "history", **body}
            told.client.publish(request.properties.ResponseTopic, json.dumps(reply), 1)

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    told.heard.put(None)
    thread.join()


def test_once_as_json(broker, ready):
    """A line for each device, as soon as it has told all."""
    ready()
    done = call("--broker", broker.url, "--once", "--json", "--device", "pi", "--interval", "15")
    (line,) = done.output.splitlines()
    told = json.loads(line)
    assert told["device"] == "pi" and told["availability"] == "online" and told["state"] == "ready"
    assert told["temperature_c"] == 48.2 and round(told["clock_mhz"], -1) == 1500 and told["stale"] is False


def test_a_table_in_a_pipe(broker, history):
    """Wide enough for all, without colours; a device that has told nothing but that it is there."""
    done = call("--broker", broker.url, "--once", "--interval", "0.5")
    assert done.output.splitlines() == ["device  state   °C  tok/s", "old     online"]


def test_no_device_is_an_error(broker):
    """With the broker's address and what to do; an unknown one is named."""
    done = CliRunner().invoke(cli, ["monitor", "--broker", broker.url, "--once", "--interval", "0.2"])
    assert f"{broker.url} knows no device. Deploy a bundle" in str(done.exception)
    done = CliRunner().invoke(
        cli, ["monitor", "--broker", broker.url, "--once", "--interval", "0.2", "--device", "nope"]
    )
    assert "knows no device nope. It knows no device at all" in str(done.exception) and done.exception.exit_code == 12


def test_the_plot_of_a_history(broker, history, tmp_path):
    """Asked of the device, and drawn."""
    file = tmp_path / "old.svg"
    done = call("--broker", broker.url, "--device", "old", "--plot", str(file), "--since", "90m")
    assert done.exit_code == 0 and "temperature, °C" in file.read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--plot", "x.svg"], "--plot draws one device"),
        (["--device", "Pi 5"], "try 'pi-5'"),
        (["--since", "5"], "Write 90m, 24h or 7d"),
        (["--since", "9999d"], "Write 90m, 24h or 7d"),
    ],
)
def test_wrong_options(args, words):
    """Before any broker is asked."""
    done = call(*args)
    assert done.exit_code == 2 and words in done.output


def test_the_feed_comes_back_with_the_broker(broker, ready):
    """The view goes on with what it knows, says what is wrong, and tries again; the history is asked for once."""
    ready()

    def connect():
        return DeviceClient(parse_broker_url(broker.url))

    fleet = Fleet()
    with Feed(connect, fleet), PastReader(connect, fleet) as past:
        past.want(["pi", "nope", "pi"])
        until(lambda: fleet.devices() and fleet.devices()[0].measured is not None)
        broker.stop()
        until(lambda: "lost" in fleet.trouble or "cannot be reached" in fleet.trouble)
        assert [device.name for device in fleet.devices()] == ["pi"]
        broker.start()
        until(lambda: not fleet.trouble)
        before = fleet.devices()[0].measured
        until(lambda: fleet.devices()[0].measured > before)


def test_the_past_is_put_before_what_was_seen(broker, history):
    """Asked of the device over a connection of its own."""

    def connect():
        return DeviceClient(parse_broker_url(broker.url))

    fleet = Fleet()
    with Feed(connect, fleet), PastReader(connect, fleet) as past:
        until(fleet.devices)
        past.want(["old"])
        until(lambda: fleet.devices()[0].samples)
    assert [sample.temperature for sample in fleet.devices()[0].samples] == [61.5, 62.5]
