"""Reading requests: whatever bytes and properties come, there is a request or a refusal, and never anything else."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt_fixtures import request_fault

from edgebit.bundle.prompt_program import Message
from edgebit.daemon.admission.schema_compiler import SchemaCompiler
from edgebit.daemon.config.sections import Config, DefaultsConfig, DeviceConfig
from edgebit.daemon.contract.addressing import address_of, first_address
from edgebit.daemon.contract.fields import read_fields
from edgebit.daemon.contract.messages import BatchRequest, GenerateRequest, GetRequest, Incoming, Refusal
from edgebit.daemon.contract.requests import OPS, ModelFacts, read_request

CONFIG = Config(device=DeviceConfig(name="pi"))


def incoming(payload, **named):
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Incoming(topic="edgebit/v1/pi/in/alice/generate", payload=body, received=1000.0, mqtt5=True, **named)


def compiled(text):
    return SchemaCompiler(str).program("alice", text)


def read(message, op="generate", config=CONFIG):
    fields = read_fields(message, op, config)
    address = address_of(message, "alice", fields, config.topics, config)
    return address, read_request(op, fields, address, config, ModelFacts(frozenset({"tiny"}), 64), compiled, message)


KEYS = [
    "prompt",
    "messages",
    "system",
    "stream",
    "format",
    "options",
    "stop",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "max_tokens",
    "num_predict",
    "id",
    "raw",
    "repeat_penalty",
    "repeat_last_n",
    "reply_to",
    "ttl_ms",
    "ver",
    "model",
    "text",
    "role",
    "content",
    "response_format",
    "items",
    "priority",
    "ack",
    "id_mode",
    "offset",
    "limit",
    "num_ctx",
    "op",
]
NAMES = st.sampled_from(KEYS)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "response_topic": st.text(max_size=30) | st.just("edgebit/v1/pi/out/alice/x"),
        "correlation": st.binary(max_size=80),
        "expiry_s": st.integers(0, 2**32 - 1),
        "content_type": st.sampled_from(["text/plain", "application/json", "x", ""]),
        "user": st.lists(st.tuples(st.sampled_from(["eb-id", "eb-ver", "x"]), st.text(max_size=5)), max_size=3).map(
            tuple
        ),
    },
)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(NAMES, VALUES, max_size=6).map(lambda body: json.dumps(body).encode()) | st.binary(max_size=60),
    st.sampled_from([*OPS, "embed", "other"]),
    PROPERTIES,
)
def test_a_request_or_a_refusal(payload, op, properties):
    """Nothing that anybody can send raises anything else, and every refusal can be sent."""
    message = incoming(payload, **properties)
    first = first_address(message, "alice", CONFIG.topics, CONFIG)
    assert CONFIG.topics.refusal(first.topic, "alice") is None
    try:
        address, request = read(message, op)
    except Refusal as refusal:
        body = json.loads(json.dumps(refusal.body(), ensure_ascii=False).encode())
        assert 400 <= body["status"] < 600 and body["message"]
        return
    assert CONFIG.topics.refusal(address.topic, "alice") is None
    assert address.deadline > 1000.0 or properties.get("expiry_s") == 0
    if isinstance(request, BatchRequest):
        assert len({item.id for item in request.items}) == len(request.items) <= CONFIG.limits.max_batch
    if isinstance(request, GetRequest):
        assert request.offset >= 0 and (request.limit is None or request.limit > 0)
    if isinstance(request, GenerateRequest):
        assert 1 <= request.max_tokens <= CONFIG.limits.max_tokens
        assert all(math.isfinite(value) for value in request.sampling.values())
        assert 0 <= request.seed < 1 << 64
        assert (request.prompt is not None) or request.messages


@pytest.mark.parametrize(
    ("body", "sampling"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"options": {"temperature": 0.5, "top_k": 7}}, {"temperature": 0.5, "top_k": 7}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"repeat_penalty": 1.2, "repeat_last_n": 0}, {"repetition_penalty": 1.0}),
        ({"repeat_penalty": 1.2, "repeat_last_n": -1}, {"repetition_penalty": 1.2, "repetition_window": 65536}),
        ({"temperature": 0.5, "options": {"temperature": 0.5}}, {"temperature": 0.5}),
        ({}, {}),
    ],
)
def test_sampling_by_either_name(body, sampling):
    """Ollama's options and OpenAI's top level; what is not said is left to the model's makers."""
    _, request = read(incoming({"prompt": "a", **body}))
    assert request.sampling == sampling


def test_the_configuration_fills_in():
    """[defaults] stands between the request and the model's makers."""
    config = Config(device=DeviceConfig(name="pi"), defaults=DefaultsConfig(temperature=0.3, max_tokens=5))
    _, request = read(incoming({"prompt": "a"}), config=config)
    assert (request.sampling, request.max_tokens) == ({"temperature": 0.3}, 5)
    _, request = read(incoming({"prompt": "a", "temperature": 0.9, "num_predict": -1}), config=config)
    assert (request.sampling, request.max_tokens) == ({"temperature": 0.9}, config.limits.max_tokens)


def test_the_seed_is_what_was_asked_for():
    """0 is a seed like any other; a negative one is taken as its 64 bits."""
    assert read(incoming({"prompt": "a", "seed": 0}))[1].seed == 0
    assert read(incoming({"prompt": "a", "seed": -1}))[1].seed == (1 << 64) - 1
    drawn = {read(incoming({"prompt": "a"}))[1].seed for _ in range(5)}
    assert len(drawn) == 5


def test_prompts_become_messages():
    """The engine takes the messages where the model has a template, the prompt where it has none."""
    _, request = read(incoming({"prompt": "a", "system": "s"}))
    assert request.prompt == "a" and request.messages == (Message("system", "s"), Message("user", "a"))
    _, request = read(incoming({"prompt": "a", "raw": True}))
    assert request.prompt == "a" and request.messages == ()
    _, request = read(incoming(b"plain words"), op="chat")
    assert request.prompt is None and request.messages == (Message("user", "plain words"),)


def test_the_deadline_is_counted_from_arrival():
    """Of property and field the shorter one counts; neither means the configured time."""
    assert read(incoming({"prompt": "a", "ttl_ms": 2500}))[0].deadline == 1002.5
    assert read(incoming({"prompt": "a"}, expiry_s=7))[0].deadline == 1007.0
    assert read(incoming({"prompt": "a", "ttl_ms": 9000}, expiry_s=7))[0].deadline == 1007.0
    assert read(incoming({"prompt": "a", "ttl_ms": 7000}, expiry_s=9))[0].deadline == 1007.0
    assert read(incoming({"prompt": "a"}))[0].deadline == 1000.0 + CONFIG.limits.default_ttl_s


@pytest.mark.parametrize(
    ("op", "body"),
    [
        ("generate", {"prompt": "a", "options": {"num_predict": 3, "stop": "x"}, "priority": "high", "ack": True}),
        ("generate", {"prompt": "a", "keep_alive": "5m", "num_thread": 4, "num_ctx": 64, "n": 1, "logprobs": False}),
        ("generate", {"prompt": "a", "model": "tiny:latest", "id": "ha", "id_mode": "latest"}),
        ("chat", {"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}]}),
        ("chat", {"prompt": "a"}),
        ("tokenize", {"prompt": "a"}),
        ("cancel", {"id": "a"}),
        ("get", {"id": "a", "offset": 3, "limit": 4}),
        ("batch", {"system": "s", "items": [{"prompt": "a"}, {"id": "own", "messages": [], "op": "chat"}]}),
        ("ping", {}),
    ],
)
def test_what_the_schema_allows_is_read(op, body):
    """Requests as they may be, by docs/schemas/request.json, and the reader agrees."""
    if "messages" not in str(body.get("items")):
        assert request_fault(op, body) is None
    read(incoming(body), op)


REFUSED = [
    ("generate", {"prompt": "a", "logprobs": True}, "unsupported"),
    ("generate", {"prompt": "a", "tools": [{}]}, "unsupported"),
    ("generate", {"prompt": "a", "options": {"presence_penalty": 0.5}}, "unsupported"),
    ("generate", {"prompt": "a", "n": 2}, "unsupported"),
    ("generate", {"prompt": "a", "num_ctx": 65}, "bad_field"),
    ("generate", {"prompt": "a", "priority": "urgent"}, "bad_field"),
    ("generate", {"prompt": "a", "priority": 3}, "bad_field"),
    ("generate", {"prompt": "a", "ack": 1}, "bad_field"),
    ("generate", {"prompt": "a", "id_mode": "latest"}, "missing_field"),
    ("generate", {"prompt": "a", "id": "x" * 48, "id_mode": "latest"}, "bad_id"),
    ("generate", {"prompt": "a", "id": "x", "id_mode": "newest"}, "bad_field"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unsupported"),
    ("chat", {"messages": [{"role": ["user"], "content": "a"}]}, "bad_field"),
    ("get", {"id": "a", "offset": -1}, "bad_field"),
    ("get", {"id": "a", "limit": 0}, "bad_field"),
    ("get", {}, "missing_field"),
    ("embed", {"prompt": "a"}, "not_supported_by_model"),
    ("batch", {"id": "b"}, "bad_field"),
    ("batch", {"id": "b", "items": []}, "bad_field"),
    ("batch", {"id": "b", "items": [{}] * 9}, "bad_field"),
    ("batch", {"id": "b", "items": [{"id": "x"}, {"id": "x"}]}, "conflict"),
    ("batch", {"id": "b", "items": [{"id": "b"}]}, "conflict"),
    ("batch", {"id": "b", "items": [{"id": "b.1"}, {}]}, "conflict"),
    ("batch", {"id": "x" * 63, "items": [{}]}, "bad_id"),
    ("batch", {"id": "b", "id_mode": "latest", "items": [{}]}, "bad_field"),
]


@pytest.mark.parametrize(("op", "body", "code"), REFUSED)
def test_what_is_refused_by_name(op, body, code):
    """What would change the answer, or cannot be done, is not passed over in silence."""
    with pytest.raises(Refusal) as refused:
        read(incoming(body), op)
    assert refused.value.code == code


def test_a_property_says_the_priority_too():
    """eb-prio is the same field."""
    assert read(incoming({"prompt": "a"}))[1].priority == 0
    assert read(incoming({"prompt": "a"}, user=(("eb-prio", "high"),)))[1].priority == 1
    assert read(incoming({"prompt": "a", "priority": "low"}, user=(("eb-prio", "low"),)))[1].priority == -1
    with pytest.raises(Refusal, match="differs"):
        read(incoming({"prompt": "a", "priority": "low"}, user=(("eb-prio", "high"),)))


def test_items_of_a_batch_are_whole_requests():
    """Common fields are put in; an item's own fields, options and form of the prompt win."""
    body = {
        "id": "b",
        "system": "s",
        "prompt": "p",
        "options": {"seed": 1, "top_k": 2},
        "items": [{}, {"options": {"seed": 5}, "id": "own"}, {"messages": [1]}, "x", {"id": "a/b"}, {"op": "ping"}],
    }
    _, batch = read(incoming(body), "batch")
    plain, own, chat, *bad = batch.items
    assert (plain.op, plain.id, plain.fields["prompt"], plain.fields["system"]) == ("generate", "b.0", "p", "s")
    assert (own.id, own.fields["options"]) == ("own", {"seed": 5, "top_k": 2})
    assert (chat.op, chat.id) == ("chat", "b.2") and "prompt" not in chat.fields
    assert [item.refusal.code for item in bad] == ["bad_field", "bad_id", "bad_field"]
    assert [item.id for item in bad] == ["b.3", "b.4", "b.5"]


def test_every_status_has_its_type():
    """Scripts switch on it; 451 has two."""
    assert Refusal(503, "queue_full", "x").body()["type"] == "BUSY"
    assert Refusal(451, "content_filtered", "x").type == "CONTENT_FILTERED"
    assert Refusal(451, "response_filtered", "x").type == "RESPONSE_FILTERED"
    body = Refusal(505, "version", "x", details={"supported": [1]}).body()
    assert (body["type"], body["supported"]) == ("VERSION", [1])


def test_a_refusal_that_tells_more():
    """Many are refused with the same words; what one of them is told beside is no other's."""
    common = Refusal(503, "busy", "later", retryable=True, details={"queue_len": 3})
    assert common.telling(queue_len=9, eta_ms=5).body() == {**common.body(), "eta_ms": 5}
    assert "eta_ms" not in common.body()


def test_an_operation_that_is_none_is_told_all_there_are():
    """Those too that monitoring answers."""
    with pytest.raises(Refusal, match=r"generate, chat, .*ping, history, health$"):
        read(incoming({}), "explode")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "a", "temperature": "hot"}, "temperature must be a number"),
        ({"prompt": "a", "seed": 1.5}, "seed must be a whole number"),
        ({"prompt": "a", "model": "gpt-4"}, "model 'gpt-4' is not on this device; it has 'tiny'"),
    ],
)
def test_the_words_of_a_refusal(fields, said):
    """Short, and with a name that people know: a model's hash is one of its names too."""
    message = incoming(fields)
    given = read_fields(message, "generate", CONFIG)
    address = address_of(message, "alice", given, CONFIG.topics, CONFIG)
    with pytest.raises(Refusal) as refused:
        facts = ModelFacts(frozenset({"tiny", "0" * 64}), 64)
        read_request("generate", given, address, CONFIG, facts, compiled, message)
    assert str(refused.value) == said
