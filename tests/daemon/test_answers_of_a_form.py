"""Answers under a schema, the assistant and adapters, through a whole daemon with the real engine."""

import json
import shutil

import pytest
from mqtt_fixtures import wait_ready

from edgebit.bundle.model_reader import ModelFile
from edgebit.convert import convert
from edgebit.errors import DeviceError
from edgebit.mqtt_client.adapters import list_adapters, load_adapter, unload_adapter
from edgebit.mqtt_client.answers import Exchange
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.mqtt_client.request import new_id
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.session import Session
from tests.kernels.random_adapter import random_adapter

ASSISTANT = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "intent": {"const": "device_temperature"},
                "say": {"enum": ["It is 20 degrees.", "It is 30 degrees."]},
            },
            "required": ["intent", "say"],
            "additionalProperties": False,
        }
    ]
}
FORCED = {
    "type": "object",
    "properties": {"intent": {"const": "set_brightness"}, "percent": {"const": 40}},
    "required": ["intent", "percent"],
    "additionalProperties": False,
}
FORCED_TEXT = '{"intent":"set_brightness","percent":40}'
PROMPT = "the lamp in the garage"
TIMEOUT_S = 30


@pytest.fixture(scope="module")
def assistant_model(native, reference_checkpoint, tmp_path_factory):
    """A reference model with a schema of its own."""
    folder = tmp_path_factory.mktemp("assistant")
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder / "house")
    (folder / "house" / "response_schema.json").write_text(json.dumps(ASSISTANT))
    path = folder / "assistant.ebm"
    convert(folder / "house", path)
    return path


@pytest.fixture
def device(broker, daemons, ears, assistant_model):
    """The daemon, and what asks it."""
    toml = '[adapters]\nmay_load = ["alice"]\n[limits]\nmax_prompt_bytes = 8192\n'
    daemon = daemons(broker.url, bundle=assistant_model, toml=toml)
    wait_ready(broker.port, ears)
    with DeviceClient(parse_broker_url(broker.url), principal="alice") as client:
        yield daemon, client


def ask(client, op="generate", **fields):
    return client.ask("pi", op, {"prompt": PROMPT, **fields}, timeout_s=TIMEOUT_S)


def test_answers_follow_their_schema(device):
    """Whatever the model would say: in one message, streamed, under OpenAI's name and Ollama's, known again, cut."""
    _, client = device
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": FORCED, "strict": True}}
    reply = ask(client, response_format=wanted)
    assert (reply["text"], reply["done_reason"]) == (FORCED_TEXT, "stop")
    assert ask(client, op="chat", format=FORCED)["message"]["content"] == FORCED_TEXT
    exchange = Exchange(new_id())
    fields = {"prompt": PROMPT, "format": FORCED, "stream": True, "temperature": 1.5, "seed": 3}
    assert "".join(client.stream("pi", "generate", fields, exchange, timeout_s=TIMEOUT_S)) == FORCED_TEXT
    again = ask(client, format=FORCED, temperature=1.5, seed=3)
    assert again["cached"] and again["text"] == FORCED_TEXT
    free = ask(client, temperature=1.5, seed=3)
    assert "cached" not in free and free["text"] != FORCED_TEXT, "an answer without a schema is another one"
    cut = ask(client, format=FORCED, max_tokens=2)
    assert cut["done_reason"] == "length" and FORCED_TEXT.startswith(cut["text"]) and cut["text"] != FORCED_TEXT
    for seed in range(4):
        reply = ask(client, format="json", temperature=1.0, seed=seed, max_tokens=60)
        if reply["done_reason"] == "stop":
            assert isinstance(json.loads(reply["text"]), dict)
        else:
            assert reply["text"].startswith("{")


def test_the_assistant_speaks_of_its_device(device):
    """The call is the model's, the words are the device's: the temperature of the made-up Pi of the tests."""
    _, client = device
    reply = ask(client, op="assist")
    assert reply["call"] == {"intent": "device_temperature"} and reply["speaker"] == "device"
    value = reply["figures"]["t_soc"]["value"]
    assert reply["text"] == f"The chip is at {value:.1f} °C, by cpu-thermal."
    own = json.loads(ask(client, response_format={"type": "model_schema"})["text"])
    assert own["intent"] == "device_temperature" and own["say"].endswith("0 degrees.")
    with pytest.raises(DeviceError, match="allow it more"):
        ask(client, op="assist", max_tokens=2)
    assert client.info("pi")["model"]["response_schema"] is True


class Alone:
    """The engine in this process, which the daemon's answers must be those of."""

    def __init__(self, native, path):
        self.model = Model.open(native, path)
        self.session = Session(self.model, ctx_len=128)
        with ModelFile(path) as file:
            self.conf = file.conf

    def adapter(self, seed):
        return random_adapter(self.model, self.conf, seed=seed, rank=4).pack()

    def answer(self, data=None):
        adapter = Adapter.open(self.model.library, self.model, data) if data is not None else None
        answer = Answer(prompt_tokens=0)
        ids = self.session.prompt_ids(PROMPT)
        list(self.session.generate(ids, answer, max_tokens=12, adapter=adapter))
        if adapter is not None:
            self.session.drop_adapter(adapter)
            adapter.close()
        return answer.text

    def close(self):
        self.session.close()
        self.model.close()


@pytest.fixture
def alone(native, assistant_model):
    engine = Alone(native, assistant_model)
    yield engine
    engine.close()


def test_adapters_come_and_go(device, alone, broker, ears, native, reference_model):
    """Loaded in parts, several at once, never mixed up, there again after a crash, and gone when they are unloaded."""
    daemon, client = device
    files = {name: alone.adapter(seed) for seed, name in enumerate(("garage", "lamp"))}
    assert len(files["garage"]) > 3 * 8192, "it takes several messages"
    wanted = {name: alone.answer(data) for name, data in files.items()}
    plain = alone.answer()
    assert len({plain, *wanted.values()}) == 3
    common = {"raw": True, "max_tokens": 12, "temperature": 0}
    assert ask(client, **common)["text"] == plain
    for name, data in files.items():
        assert load_adapter(client, "pi", data, "file", name=name, timeout_s=TIMEOUT_S)["changed"]
        first, again = (ask(client, **common, adapter=name) for _ in range(2))
        assert first["text"] == again["text"] == wanted[name]
        assert again["cached"] and "cached" not in first and first["prompt_eval_cached"] == 0
    assert not load_adapter(client, "pi", files["lamp"], "file", name="lamp", timeout_s=TIMEOUT_S)["changed"]
    daemon.kill()
    daemon.restart()
    ears(broker.port, "edgebit/v1/pi/status").until(lambda m: b'"ready"' in m.payload and b'"conn":2' in m.payload)
    assert [each["name"] for each in list_adapters(client, "pi") if each["loaded"]] == ["garage", "lamp"]
    together(client, common, {None: plain, **wanted})
    assert unload_adapter(client, "pi", "garage", timeout_s=TIMEOUT_S)
    with pytest.raises(DeviceError, match=r"'garage' is not loaded on this device; there are: 'lamp'"):
        ask(client, **common, adapter="garage")
    assert ask(client, **common, adapter="lamp", cache=False)["text"] == wanted["lamp"]
    refused_ones(client, alone, native, reference_model("bitnet-bf16"))
    assert [each["name"] for each in list_adapters(client, "pi")] == ["lamp"]


def together(client, common, wanted):
    """All in one batch: they are computed in the same passes."""
    items = [{"id": new_id(), **({"adapter": name} if name else {})} for name in wanted]
    batch_id = new_id()
    fields = {"prompt": PROMPT, **common, "cache": False, "items": items}
    call = client.call("pi", "batch", fields, batch_id, timeout_s=TIMEOUT_S)
    texts = {}
    while (frame := client.hear(call)) is not None and frame["id"] != batch_id:
        texts[frame["id"]] = frame["text"]
    assert [texts[item["id"]] for item in items] == list(wanted.values())


def refused_ones(client, alone, native, other_model):
    """One of another model, with its name and the device's model; and a damaged one."""
    other = Alone(native, other_model)
    data = other.adapter(7)
    other.close()
    with pytest.raises(DeviceError, match=r"random-7 was made for other weights .* this device's model, house"):
        load_adapter(client, "pi", data, "file", timeout_s=TIMEOUT_S)
    damaged = bytearray(alone.adapter(0))
    damaged[-1] ^= 1
    with pytest.raises(DeviceError, match="sum is wrong"):
        load_adapter(client, "pi", bytes(damaged), "file", name="x", timeout_s=TIMEOUT_S)
