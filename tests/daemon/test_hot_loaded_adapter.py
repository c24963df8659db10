"""The model that ships, in a daemon at a real broker: an adapter comes and goes while others are answered."""

import json
import threading
from contextlib import contextmanager
from itertools import cycle

import pytest
from click.testing import CliRunner
from mqtt_fixtures import wait_ready

from edgebit.bundle.model_reader import ModelFile
from edgebit.cli.run import command as run
from edgebit.convert import convert
from edgebit.errors import DeviceError
from edgebit.mqtt_client.adapters import load_adapter, unload_adapter
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.resources import assistant_model_dir
from edgebit.runtime.model import Model
from tests.kernels.random_adapter import random_adapter

pytestmark = pytest.mark.slow

LINES = ("turn the bedroom lamp to forty percent", "is the back door locked?", "open the garage blinds halfway")
RANK = 8
TIMEOUT_S = 60
MAX_TOKENS = 64
GREEDY = {"temperature": 0, "max_tokens": MAX_TOKENS, "cache": False, "response_format": {"type": "model_schema"}}


@pytest.fixture(scope="module")
def files(native, tmp_path_factory):
    """The shipped model's file, and an adapter of rank 8 of random numbers for all of its projections."""
    folder = tmp_path_factory.mktemp("shipped")
    model_path, adapter_path = folder / "assistant.ebm", folder / "greenhouse.adapter"
    convert(assistant_model_dir(), model_path)
    model = Model.open(native, model_path)
    with ModelFile(model_path) as file:
        adapter_path.write_bytes(random_adapter(model, file.conf, seed=8, rank=RANK).pack())
    model.close()
    return model_path, adapter_path


def alone(model, line, *more):
    """The text and the number of tokens that `edgebit run` gives."""
    options = ("--schema", "model", "--temperature", "0", "--max-tokens", str(MAX_TOKENS), "--json", *more)
    ran = CliRunner().invoke(run, [str(model), line, *options])
    assert ran.exit_code == 0, ran.output
    body = json.loads(ran.stdout)
    return body["text"], len(body["tokens"])


def asked(client, line, **fields):
    """The same of the device."""
    reply = client.ask("pi", "chat", {"prompt": line, **GREEDY, **fields}, timeout_s=TIMEOUT_S)
    assert "cached" not in reply
    return reply["message"]["content"], reply["usage"]["completion_tokens"]


@contextmanager
def asking(broker, wanted):
    """Somebody else asks the model alone, one line after the other; gives how many answers were as wanted so far."""
    right, wrong, ended = [], [], threading.Event()

    def ask():
        with DeviceClient(parse_broker_url(broker.url), principal="bob") as client:
            for line in cycle(LINES):
                if ended.is_set():
                    return
                answer = asked(client, line)
                (right if answer == wanted[line] else wrong).append(answer)

    def answered():
        assert thread.is_alive() and not wrong, wrong
        return len(right)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
        answered()
    finally:
        ended.set()
        thread.join(2 * TIMEOUT_S)


def test_an_adapter_of_the_shipped_model(broker, daemons, ears, files):
    """Its answers are those of `edgebit run --adapter`; the model's own are the same before, meanwhile and after."""
    model, adapter = files
    plain = {line: alone(model, line) for line in LINES}
    other = {line: alone(model, line, "--adapter", str(adapter)) for line in LINES}
    assert all(plain[line] != other[line] for line in LINES)
    assert json.loads(plain[LINES[0]][0])["intent"] == "set_brightness"

    daemons(broker.url, bundle=model, toml='[adapters]\nmay_load = ["alice"]\n[limits]\nmax_prompt_bytes = 16384\n')
    wait_ready(broker.port, ears)
    data = adapter.read_bytes()
    with DeviceClient(parse_broker_url(broker.url), principal="alice") as client:
        assert {line: asked(client, line) for line in LINES} == plain
        with asking(broker, plain) as answered:
            assert load_adapter(client, "pi", data, "file", name="greenhouse", timeout_s=TIMEOUT_S)["loaded"]
            loaded_at = answered()
            while answered() < loaded_at + len(LINES):
                assert {line: asked(client, line, adapter="greenhouse") for line in LINES} == other
            assert unload_adapter(client, "pi", "greenhouse", timeout_s=TIMEOUT_S)
            with pytest.raises(DeviceError, match="is not loaded on this device"):
                asked(client, LINES[0], adapter="greenhouse")
            unloaded_at = answered()
            while answered() < unloaded_at + 1:
                assert asked(client, LINES[1]) == plain[LINES[1]]
        assert {line: asked(client, line) for line in LINES} == plain
