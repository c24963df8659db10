"""Requests and answers over a real mosquitto, in both versions of the protocol. Every message is held to its schema."""

import hashlib
import json

import pytest

IN, OUT = "edgebit/v1/pi/in/alice", "edgebit/v1/pi/out/alice"
both = pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])


@both
def test_one_answer_to_one_question(ready, broker, ears, mqtt5):
    """Without `stream` one message comes, with text, hash and figures."""
    ready()
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    ear.say(f"{IN}/generate", {"id": "q1", "prompt": "say 3"})
    message = ear.next()
    reply = json.loads(message.payload)
    assert message.topic == f"{OUT}/q1" and not message.retain
    assert (reply["t"], reply["seq"], reply["text"], reply["done_reason"]) == ("done", 0, "w0 w1 w2 ", "stop")
    assert reply["text_sha256"] == hashlib.sha256(b"w0 w1 w2 ").hexdigest()
    assert reply["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert ear.silent()


@both
def test_a_streamed_answer_in_frames(ready, broker, ears, mqtt5):
    """The frames count from 0, the last one says how many came before it, and their text is the whole."""
    ready()
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    ear.say(f"{IN}/generate", {"id": "q1", "prompt": "slow 20", "stream": True})
    frames = ear.frames()
    assert [frame["seq"] for frame in frames] == list(range(len(frames)))
    assert len(frames) > 5, "20 tokens, 50 ms each, flushed after 80 ms"
    assert frames[0]["d"] == "w0 ", "the first token goes out at once"
    text = "".join(frame["d"] for frame in frames[:-1])
    assert text == frames[-1]["text"] == "".join(f"w{n} " for n in range(20))
    assert frames[-1]["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()


@both
def test_plain_text_in_and_out(ready, broker, ears, mqtt5):
    """`format: text` is a stream of bare text that ends with an empty message."""
    ready()
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    ear.say(f"{IN}/generate", {"id": "q1", "prompt": "bytes", "stream": True, "format": "text"})
    pieces = [ear.next().payload]
    while pieces[-1]:
        pieces.append(ear.next().payload)
    assert b"".join(pieces).decode() == "é€𝄞z"
    for piece in pieces:
        piece.decode()  # never half a character
    ear.say(f"{IN}/chat", "say 2")
    assert ear.next_json()["text"] == "w0 w1 "


def test_mqtt5_properties_of_an_answer(ready, broker, ears):
    """Correlation data comes back, and what is in the frame stands in user properties too."""
    ready()
    topic = f"{OUT}/anything/below"
    ear = ears(broker.port, f"{OUT}/#")
    ear.say(
        f"{IN}/generate",
        {"prompt": "say 2", "stream": True},
        ResponseTopic=topic,
        CorrelationData=b"\x00\x01",
        MessageExpiryInterval=40,
        UserProperty=[("eb-id", "p1"), ("eb-ver", "1"), ("other", "x")],
    )
    first, last = ear.next(), None
    while last is None or b'"done"' not in last.payload:
        last = ear.next()
    for message in (first, last):
        assert message.topic == topic
        assert message.properties.CorrelationData == b"\x00\x01"
        assert message.properties.ContentType == "application/json"
        assert 30 <= message.properties.MessageExpiryInterval <= 40
        properties = dict(message.properties.UserProperty)
        frame = json.loads(message.payload)
        assert properties["eb-id"] == frame["id"] == "p1"
        assert (properties["eb-dev"], properties["eb-status"]) == ("pi", "200")
        assert int(properties["eb-seq"]) == frame["seq"]
    assert dict(first.properties.UserProperty)["eb-last"] == "0"
    assert dict(last.properties.UserProperty)["eb-last"] == "1"


@both
def test_chat_tokenize_and_ping(ready, broker, ears, mqtt5):
    """The other operations answer in the same frames."""
    ready()
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "say 2"}]
    ear.say(f"{IN}/chat", {"id": "c", "messages": messages})
    assert ear.next_json()["text"] == "w0 w1 "
    ear.say(f"{IN}/tokenize", "abc")
    assert ear.next_json()["tokens"] == [97, 98, 99]
    ear.say(f"{IN}/ping", "")
    pong = ear.next_json()
    assert (pong["op"], pong["state"], pong["dev"]) == ("ping", "ready", "pi")


# What is asked, and the status and code of the refusal. Payloads that are dicts go out as JSON.
DEEP = b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
REFUSED = {
    "bad json": ("generate", b'{"prompt":', 400, "bad_json"),
    "not an object": ("generate", b'{"prompt":"a"} x', 400, "bad_json"),
    "deep json": ("generate", b'{"prompt":"x","a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400, "bad_json"),
    "a little too deep": ("generate", b'{"prompt":"x","a":' + b"[" * 16 + b"]" * 16 + b"}", 400, "bad_json"),
    "key twice": ("generate", b'{"prompt":"a","prompt":"b"}', 400, "bad_json"),
    "NaN": ("generate", b'{"prompt":"a","temperature":NaN}', 400, "bad_json"),
    "endless number": ("generate", b'{"prompt":"a","seed":' + b"9" * 5000 + b"}", 400, "bad_json"),
    "large number": ("generate", b'{"prompt":"a","temperature":1e999}', 400, "bad_field"),
    "huge whole number": ("generate", b'{"prompt":"a","top_p":' + b"9" * 400 + b"}", 400, "bad_field"),
    "bad utf-8": ("generate", b"caf\xe9", 400, "bad_utf8"),
    "half a surrogate": ("generate", b'{"prompt":"\\ud800"}', 400, "bad_utf8"),
    "empty": ("generate", b"", 400, "missing_field"),
    "no prompt": ("generate", {"stream": True}, 400, "missing_field"),
    "prompt of another type": ("generate", {"prompt": 7}, 400, "bad_field"),
    "stream of another type": ("generate", {"prompt": "a", "stream": "yes"}, 400, "bad_field"),
    "true is no number": ("generate", {"prompt": "a", "temperature": True}, 400, "bad_field"),
    "temperature": ("generate", {"prompt": "a", "options": {"temperature": -1}}, 400, "bad_field"),
    "options": ("generate", {"prompt": "a", "options": [1]}, 400, "bad_field"),
    "too many tokens": ("generate", {"prompt": "a", "max_tokens": 10**9}, 400, "bad_field"),
    "said twice": ("generate", {"prompt": "a", "max_tokens": 3, "options": {"num_predict": 4}}, 400, "conflict"),
    "stop": ("generate", {"prompt": "a", "stop": [""]}, 400, "bad_field"),
    "a schema": ("generate", {"prompt": "a", "format": {"type": "object"}}, 400, "unsupported"),
    "json mode": ("generate", {"prompt": "a", "response_format": {"type": "json_object"}}, 400, "unsupported"),
    "images": ("generate", {"prompt": "a", "images": ["x"]}, 400, "unsupported"),
    "system in raw": ("generate", {"prompt": "a", "system": "b", "raw": True}, 400, "conflict"),
    "messages in generate": ("generate", {"messages": [{"role": "user", "content": "a"}]}, 400, "bad_field"),
    "role": ("chat", {"messages": [{"role": "root", "content": "a"}]}, 400, "bad_field"),
    "no messages": ("chat", {"messages": []}, 400, "bad_field"),
    "order of roles": ("chat", {"messages": [{"role": "assistant", "content": "a"}]}, 400, "bad_messages"),
    "bad id": ("generate", {"prompt": "a", "id": "a/b"}, 400, "bad_id"),
    "wildcard id": ("generate", {"prompt": "a", "id": "#"}, 400, "bad_id"),
    "version": ("generate", {"prompt": "a", "ver": 2}, 505, "version"),
    "model": ("generate", {"prompt": "a", "model": "llama"}, 404, "model_not_found"),
    "late": ("generate", {"prompt": "a", "ttl_ms": 0}, 408, "expired"),
    "embed": ("embed", {"prompt": "a"}, 400, "not_supported_by_model"),
    "batch": ("batch", {}, 400, "bad_field"),
    "get": ("get", {"id": "x"}, 404, "unknown_job"),
    "unknown": ("explode", "x", 400, "unknown_op"),
    "cancel what": ("cancel", "", 400, "missing_field"),
    "too large": ("generate", b"x" * 65_537, 413, "payload_too_large"),
    "deeper and larger": ("generate", DEEP, 413, "payload_too_large"),
    "context": ("generate", {"prompt": "long"}, 422, "context_overflow"),
    "engine": ("generate", {"prompt": "fail"}, 500, "engine"),
    "a place of another": ("generate", {"prompt": "a", "reply_to": "edgebit/v1/pi/out/bob/x"}, 403, "response_topic"),
}


@both
def test_refusals(ready, broker, ears, mqtt5):
    """Whatever comes in, an answer says what is wrong with it, and the daemon goes on."""
    ready()
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    for name, (op, payload, status, code) in REFUSED.items():
        ear.say(f"{IN}/{op}", payload)
        reply = ear.next_json()
        assert (reply["t"], reply["error"]["status"], reply["error"]["code"]) == ("error", status, code), name
    ear.say(f"{IN}/generate", {"prompt": "say 1", "unknown": {"fields": ["are", "ignored"]}})
    assert ear.next_json()["text"] == "w0 "
    assert ear.silent(0.3)


def test_mqtt5_refusals(ready, broker, ears):
    """What properties alone can get wrong."""
    ready()
    ear = ears(broker.port, f"{OUT}/#")
    body = {"prompt": "say 1", "id": "a"}
    cases = [
        ({"UserProperty": [("eb-id", "b")]}, body, 400, "conflict"),
        ({"ResponseTopic": f"{OUT}/one"}, {**body, "reply_to": f"{OUT}/two"}, 400, "conflict"),
        ({"UserProperty": [("eb-prio", "low")]}, {**body, "priority": "high"}, 400, "conflict"),
        ({"UserProperty": [("eb-ver", "2")]}, body, 505, "version"),
        ({"UserProperty": [("eb-ver", "1")]}, {**body, "ver": 2}, 400, "conflict"),
        ({"ContentType": "application/xml"}, body, 415, "content_type"),
        ({"ContentType": "application/json"}, "say 1", 400, "bad_json"),
        ({"CorrelationData": b"x" * 65}, body, 400, "bad_correlation"),
    ]
    for properties, payload, status, code in cases:
        ear.say(f"{IN}/generate", payload, **properties)
        error = ear.next_json()["error"]
        assert (error["status"], error["code"]) == (status, code), properties
    ear.say(f"{IN}/generate", '{"not json', ContentType="text/plain")
    assert ear.next_json()["error"]["code"] == "internal", (
        "the fake model does not know the word: it was asked, as text"
    )
    ear.say(f"{IN}/generate", {**body, "ttl_ms": 60_000, "reply_to": f"{OUT}/one"}, MessageExpiryInterval=59)
    assert ear.next_json()["text"] == "w0 "


ATTACKS = [
    "homeassistant/light/config",
    "edgebit/v1/pi/in/alice/generate",
    "edgebit/v1/pi/availability",
    "edgebit/v1/pi/out/bob/x",
    "edgebit/v1/pi/out/alice",
    "edgebit/v1/pi/out/alice/",
    "edgebit/v1/pi/out/alicex/y",
    "other/v1/pi/out/alice/x",
    "$SYS/broker/uptime",
    "$CONTROL/dynamic-security/v1",
    "edgebit/v1/pi/out/alice/" + "x" * 240,
    "edgebit/v1/pi/out/alice/\ufffe",
    "edgebit/v1/pi/out/alice/\ud800",
]


@both
def test_the_response_topic_is_guarded(ready, broker, ears, mqtt5):
    """The device has its own rights at the broker and lends them to nobody."""
    ready()
    ear = ears(broker.port, "#", mqtt5=mqtt5)
    for topic in [*ATTACKS, "edgebit/v1/pi/out/alice/#", "edgebit/v1/+/out/alice/x"]:
        if mqtt5 and not set(topic) & set("+#\ufffe\ud800"):
            ear.say(f"{IN}/generate", "say 1", ResponseTopic=topic)
        else:
            ear.say(f"{IN}/generate", {"prompt": "say 1", "reply_to": topic})
        reply = ear.until(lambda message: message.topic.startswith(f"{OUT}/"))
        assert json.loads(reply.payload)["error"]["code"] == "response_topic", topic
        assert reply.topic.removeprefix(f"{OUT}/") == json.loads(reply.payload)["id"]


def test_configured_places_for_answers(ready, broker, ears):
    """replies.allowed_prefixes opens more, each for its own principal."""
    ready(toml='[replies]\nallowed_prefixes = ["clients/{principal}/"]')
    ear = ears(broker.port, "clients/#", f"{OUT}/#")
    ear.say(f"{IN}/generate", {"prompt": "say 1", "reply_to": "clients/alice/x"})
    assert ear.next().topic == "clients/alice/x"
    ear.say(f"{IN}/generate", {"prompt": "say 1", "reply_to": "clients/bob/x"})
    assert ear.next_json()["error"]["code"] == "response_topic"


def test_retained_requests(broker, daemons, ears):
    """One that was stored before is not run at connecting; one sent now is refused under MQTT 5."""
    ear = ears(broker.port, "edgebit/v1/pi/status", f"{OUT}/#")
    ear.say(f"{IN}/generate", {"id": "old", "prompt": "say 1"}, retain=True)
    daemons(broker.url)
    ear.until(lambda message: b'"ready"' in message.payload)
    ear.say(f"{IN}/generate", {"id": "new", "prompt": "say 1"}, retain=True)
    reply = ear.until(lambda message: message.topic.startswith(OUT))
    assert json.loads(reply.payload)["error"]["code"] == "retained"
    assert reply.topic == f"{OUT}/new"
    ear.say(f"{IN}/generate", b"", retain=True)


def test_retained_requests_under_3_1_1(broker, daemons, ears):
    """The broker sends the stored one at every connection; it is counted, and never run."""
    ear = ears(broker.port, "edgebit/v1/pi/metrics", f"{OUT}/#", mqtt5=False)
    ear.say(f"{IN}/generate", {"id": "old", "prompt": "say 1"}, retain=True)
    daemons(broker.url, mqtt='protocol = "3.1.1"')
    metrics = ear.until(lambda message: b'"retained"' in message.payload or message.topic.startswith(OUT))
    assert json.loads(metrics.payload)["counters"]["retained"] == 1
    ear.say(f"{IN}/generate", b"", retain=True)


@both
def test_cancel_a_running_job(ready, broker, ears, mqtt5):
    """It stops at the next token and says 499 with its figures; a cancel with a response topic is answered too."""
    ready()
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    ear.say(f"{IN}/generate", {"id": "job", "prompt": "slow 1000", "max_tokens": 1000, "stream": True})
    assert ear.next_json()["d"] == "w0 "
    ear.say(f"{IN}/cancel", {"id": "job", "reply_to": f"{OUT}/cancelled"})
    replies = {}
    while len(replies) < 2:
        message = ear.next()
        frame = json.loads(message.payload)
        if frame.get("done"):
            replies[message.topic] = frame
    assert replies[f"{OUT}/cancelled"]["cancelled"] is True
    error = replies[f"{OUT}/job"]
    assert error["error"]["status"] == 499
    assert 1 <= error["usage"]["completion_tokens"] < 100
    for _ in range(2):  # as often as one likes
        ear.say(f"{IN}/cancel", {"id": "job", "reply_to": f"{OUT}/cancelled"})
        assert ear.next_json()["cancelled"] is False
    ear.say(f"{IN}/cancel", "job")
    assert ear.silent(0.3), "without a response topic the job's own answer is all there is"


def test_cancel_touches_ones_own_jobs_only(ready, broker, ears):
    """bob cannot end alice's job by its id, waiting or running."""
    ready(toml="[engine]\nsequences = 1")
    ear = ears(broker.port, "edgebit/v1/pi/out/#")
    ear.say(f"{IN}/generate", {"id": "job", "prompt": "slow 20"})
    ear.say("edgebit/v1/pi/in/bob/generate", {"id": "job", "prompt": "say 1"})
    ear.say("edgebit/v1/pi/in/mallory/cancel", {"id": "job", "reply_to": "edgebit/v1/pi/out/mallory/x"})
    assert ear.next_json()["cancelled"] is False
    ear.say("edgebit/v1/pi/in/bob/cancel", "job")
    cancelled = ear.next()
    assert cancelled.topic == "edgebit/v1/pi/out/bob/job" and b"499" in cancelled.payload
    done = ear.next()
    assert done.topic == "edgebit/v1/pi/out/alice/job"
    assert len(json.loads(done.payload)["text"].split()) == 20


def test_the_queue_is_bounded(ready, broker, ears):
    """More than queue_max waiting jobs are refused with 503 and a time; those before are answered in order."""
    ready(toml="[engine]\nsequences = 1\n[limits]\nqueue_max = 2")
    ear = ears(broker.port, f"{OUT}/#", "edgebit/v1/pi/status")
    for n in range(4):
        ear.say(f"{IN}/generate", {"id": f"j{n}", "prompt": "slow 10"})
    refused = json.loads(ear.until(lambda message: message.topic == f"{OUT}/j3").payload)["error"]
    assert (refused["status"], refused["code"], refused["retryable"]) == (503, "queue_full", True)
    assert refused["retry_after_ms"] >= 500
    busy = json.loads(ear.until(lambda message: b'"busy"' in message.payload).payload)
    assert busy["queue_len"] in (1, 2)
    order = [json.loads(ear.until(lambda message: message.topic.startswith(OUT)).payload)["id"] for _ in range(3)]
    assert order == ["j0", "j1", "j2"]


def test_deadlines(ready, broker, ears):
    """A job is ended when nobody waits for it any more: in the queue, and in the middle."""
    ready(toml="[engine]\nsequences = 1")
    ear = ears(broker.port, f"{OUT}/#")
    ear.say(f"{IN}/generate", {"id": "running", "prompt": "slow 1000", "ttl_ms": 1500, "max_tokens": 1000})
    ear.say(f"{IN}/generate", {"id": "waiting", "prompt": "say 1", "ttl_ms": 400, "max_tokens": 1})
    ear.say(f"{IN}/generate", {"id": "next", "prompt": "say 1"}, MessageExpiryInterval=60)
    waiting, running, after = ear.next_json(), ear.next_json(), ear.next_json()
    assert (waiting["id"], waiting["error"]["status"], waiting["error"]["code"]) == ("waiting", 408, "expired")
    assert "waiting" in waiting["error"]["message"]
    assert (running["id"], running["error"]["status"]) == ("running", 408)
    assert 0 < running["usage"]["completion_tokens"] < 60
    assert (after["id"], after["text"]) == ("next", "w0 ")


@both
def test_a_batch(ready, broker, ears, mqtt5):
    """Each item is answered on its own, a bad one does not sink the others, and one summary comes last."""
    ready(toml="[engine]\nsequences = 1")
    ear = ears(broker.port, f"{OUT}/#", mqtt5=mqtt5)
    items = [{"prompt": "say 1"}, {"prompt": "say 2", "id": "own"}, {"prompt": ""}, {"prompt": "fail"}]
    ear.say(f"{IN}/batch", {"id": "b", "options": {"seed": 3}, "items": items})
    heard = [ear.next() for _ in range(5)]
    replies = {message.topic.removeprefix(f"{OUT}/"): json.loads(message.payload) for message in heard}
    assert (replies["b.0"]["text"], replies["b.0"]["seed"], replies["own"]["text"]) == ("w0 ", 3, "w0 w1 ")
    assert (replies["b.2"]["error"]["code"], replies["b.3"]["error"]["code"]) == ("missing_field", "engine")
    assert heard[-1].topic == f"{OUT}/b"
    summary = replies["b"]
    assert (summary["op"], summary["answered"], summary["failed"]) == ("batch", 2, 2)
    assert summary["items"] == [
        {"id": "b.0", "status": 200},
        {"id": "own", "status": 200},
        {"id": "b.2", "status": 400, "code": "missing_field"},
        {"id": "b.3", "status": 500, "code": "engine"},
    ]
    ear.say(f"{IN}/batch", {"id": "c", "reply_to": f"{OUT}/here", "items": items[:2]})
    assert [ear.next().topic for _ in range(3)] == [f"{OUT}/here"] * 3, "items inherit where to answer"


def test_a_batch_sent_twice_asked_for_and_cancelled(ready, broker, ears):
    """It runs once, tells how far it is, and ends as one."""
    ready(toml="[engine]\nsequences = 1")
    ear = ears(broker.port, f"{OUT}/#")
    batch = {
        "id": "b",
        "items": [{"prompt": "say 1"}, {"prompt": "slow 1000", "max_tokens": 1000}, {"prompt": "say 2"}],
    }
    ear.say(f"{IN}/batch", batch)
    assert ear.next_json()["id"] == "b.0"
    ear.say(f"{IN}/batch", batch)
    ear.say(f"{IN}/batch", {**batch, "system": "another", "reply_to": f"{OUT}/other"})
    assert ear.next_json()["error"]["code"] == "id_in_use"
    ear.say(f"{IN}/get", {"id": "b", "reply_to": f"{OUT}/got"})
    got = ear.next_json()
    assert (got["state"], got["answered"], got["items"]) == ("running", 1, [{"id": "b.0", "status": 200}])
    ear.say(f"{IN}/get", {"id": "b.2", "reply_to": f"{OUT}/got"})
    got = ear.next_json()
    assert (got["state"], got["position"], got["job"]) == ("queued", 1, "b.2")
    ear.say(f"{IN}/cancel", "b")
    ended = {reply["id"]: reply for reply in (ear.next_json() for _ in range(3))}
    assert ended["b.1"]["error"]["status"] == ended["b.2"]["error"]["status"] == 499
    assert (ended["b"]["answered"], ended["b"]["failed"]) == (1, 2)


def test_the_newest_of_a_series(ready, broker, ears):
    """id_mode latest: always new, always answered in the same place; a newer one takes the place of an older one."""
    ready()
    ear = ears(broker.port, f"{OUT}/#")
    for _ in range(2):
        ear.say(f"{IN}/generate", {"id": "ha", "id_mode": "latest", "prompt": "say 1"})
        message = ear.next()
        assert message.topic == f"{OUT}/ha" and json.loads(message.payload)["text"] == "w0 "
    ear.say(f"{IN}/generate", {"id": "ha", "id_mode": "latest", "prompt": "slow 1000", "max_tokens": 1000})
    ear.say(f"{IN}/generate", {"id": "ha", "id_mode": "latest", "prompt": "slow 999", "max_tokens": 1000})
    replaced = ear.next_json()["error"]
    assert (replaced["status"], replaced["code"]) == (499, "replaced")
    ear.say(f"{IN}/get", {"id": "ha", "reply_to": f"{OUT}/got"})
    assert ear.next_json()["job"].startswith("ha.")
    ear.say(f"{IN}/cancel", "ha")
    message = ear.next()
    assert message.topic == f"{OUT}/ha" and json.loads(message.payload)["error"]["code"] == "cancelled"


def test_an_ack_where_it_was_asked_for(ready, broker, ears):
    """The first frame says that the request was taken."""
    ready()
    ear = ears(broker.port, f"{OUT}/#")
    ear.say(f"{IN}/chat", {"id": "a", "prompt": "say 1", "ack": True, "model": "fake:latest"})
    frames = sorted(ear.frames(), key=lambda frame: frame["seq"])
    assert [(frame["t"], frame["seq"]) for frame in frames] == [("ack", 0), ("done", 1)]
    assert frames[1]["message"] == {"role": "assistant", "content": "w0 "}


@both
def test_a_request_sent_twice(ready, broker, ears, mqtt5):
    """Under one id the same request runs once, and is answered the same once it is done; another one is refused."""
    ready()
    ear = ears(broker.port, f"{OUT}/#", "edgebit/v1/pi/metrics", mqtt5=mqtt5)
    request = {"id": "job", "prompt": "slow 20"}
    ear.say(f"{IN}/generate", request)
    ear.say(f"{IN}/generate", request)
    ear.say(f"{IN}/generate", {**request, "prompt": "say 1", "reply_to": f"{OUT}/other"})
    conflict = ear.until(lambda message: message.topic == f"{OUT}/other")
    assert json.loads(conflict.payload)["error"]["code"] == "id_in_use"
    answer = ear.until(lambda message: message.topic == f"{OUT}/job")
    assert len(json.loads(answer.payload)["text"].split()) == 20
    metrics = ear.until(lambda message: message.topic.endswith("metrics"))
    counters = json.loads(metrics.payload)["counters"]
    assert (counters["repeated"], counters["admitted"]) == (1, 1)
    ear.say(f"{IN}/generate", request)
    again = ear.until(lambda message: message.topic == f"{OUT}/job")
    assert again.payload == answer.payload
    ear.say(f"{IN}/generate", {**request, "prompt": "say 1"})
    other = ear.until(lambda message: message.topic == f"{OUT}/job")
    assert json.loads(other.payload)["error"]["code"] == "id_in_use"


def test_a_model_that_loads_slowly(broker, daemons, ears):
    """The device is online and says init; a question waits for the model."""
    daemons(broker.url, model="slow")
    ear = ears(broker.port, "edgebit/v1/pi/status", f"{OUT}/#")
    ear.until(lambda message: b'"init"' in message.payload)
    ear.say(f"{IN}/tokenize", "abc")
    assert json.loads(ear.until(lambda m: m.topic.startswith(OUT)).payload)["error"]["code"] == "not_ready"
    ear.say(f"{IN}/generate", "say 1")
    assert json.loads(ear.until(lambda m: m.topic.startswith(OUT)).payload)["text"] == "w0 "


def test_a_model_that_cannot_be_loaded(broker, daemons, ears):
    """The device stays online, says fault and why, and refuses."""
    daemon = daemons(broker.url, model="broken")
    ear = ears(broker.port, "edgebit/v1/pi/status", f"{OUT}/#")
    status = json.loads(ear.until(lambda message: b'"fault"' in message.payload).payload)
    assert "model.ebm is damaged" in status["last_error"]
    ear.say(f"{IN}/generate", "say 1")
    reply = json.loads(ear.until(lambda m: m.topic.startswith(OUT)).payload)
    assert (reply["error"]["code"], reply["error"]["retryable"]) == ("fault", False)
    assert daemon.stop() == 9
    log = daemon.log.read_text()
    assert "stopped" in log and "CRITICAL" not in log, "its threads were told to end"


def test_topics_that_are_no_requests(ready, broker, ears):
    """A principal that is none is counted, and gets no answer."""
    ready()
    ear = ears(broker.port, "edgebit/v1/pi/metrics", "edgebit/v1/pi/out/#")
    ear.say("edgebit/v1/pi/in/a b/generate", "say 1")
    metrics = ear.until(lambda message: b'"bad_topic"' in message.payload or "/out/" in message.topic)
    assert json.loads(metrics.payload)["counters"]["bad_topic"] == 1
