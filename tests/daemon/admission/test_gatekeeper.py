"""Identity, checks, limits and filter together, as admission asks for them."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgebit.daemon.admission.gatekeeper import Gatekeeper
from edgebit.daemon.admission.signed_requests import envelope, text_to_sign
from edgebit.daemon.config.reader import config_from
from edgebit.daemon.contract.messages import Address, GenerateRequest, Incoming, Refusal
from edgebit.daemon.privacy.security_log import read_security_log


def gatekeeper(tmp_path, **sections) -> Gatekeeper:
    content = {"device": {"name": "pi"}, **sections}
    return Gatekeeper(config_from(content, "test", tmp_path), tmp_path / "state")


def incoming(payload: str = "hi", **named) -> Incoming:
    return Incoming(topic="edgebit/v1/pi/in/alice/generate", payload=payload.encode(), received=0.0, **named)


def asked(prompt: str, max_tokens: int = 1) -> GenerateRequest:
    return GenerateRequest(
        prompt=prompt, messages=(), sampling={}, seed=0, max_tokens=max_tokens, stop=(), stream=False, format="json"
    )


ADDRESS = Address(
    principal="alice", id="j1", id_given=True, topic="t", topic_given=True, correlation=None, deadline=1e9
)


def test_by_default_everything_is_open_and_said_to_be(tmp_path):
    """No limit, no filter, no name: and nothing in info claims one."""
    gate = gatekeeper(tmp_path)
    message = incoming()
    assert gate.identify(message, "alice", "generate").incoming is message
    gate.check(asked("hi"))
    for _ in range(100):
        gate.admit(ADDRESS, asked("hi", 1000))
    assert gate.guard(ADDRESS, asked("hi")) is None
    assert gate.name_of("alice") == gate.name_of("bob") == "(everyone)"
    said = gate.describe()
    assert list(said) == ["auth", "identity"] and said["auth"] == "open" and not said["identity"]["per_principal"]


def test_the_brokers_name_is_asked_for(tmp_path):
    """Of all but a ping, and of what comes from the broker."""
    gate = gatekeeper(tmp_path, mqtt={"auth": "broker-prop"})
    gate.identify(incoming(user=(("$client_username", "alice"),)), "alice", "generate")
    gate.identify(incoming(), "alice", "ping")
    gate.identify(incoming(inside=True), "wyoming", "generate")
    with pytest.raises(Refusal) as refused:
        gate.identify(incoming(), "alice", "generate")
    assert refused.value.code == "identity_missing"


def test_a_signed_request_comes_out_of_its_envelope(tmp_path):
    """With its own id, and none of what the properties claim."""
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    (tmp_path / "principals.toml").write_text(f'[alice]\nkey = "{public}"\n')
    gate = gatekeeper(tmp_path, mqtt={"auth": "signed"}, identity={"principals": "principals.toml"})
    challenge = gate.describe()["identity"]["challenge"]
    parts = {"base": "edgebit/v1/pi", "principal": "alice", "op": "generate", "job_id": "j1", "challenge": challenge}
    signature = key.sign(text_to_sign(payload=b'{"prompt":"hi"}', **parts))
    body = envelope(job_id="j1", challenge=challenge, payload='{"prompt":"hi"}', signature=signature)
    message = incoming(json.dumps(body), content_type="text/plain", user=(("eb-id", "other"), ("eb-ver", "1")))
    found = gate.identify(message, "alice", "generate")
    assert (found.incoming.payload, found.incoming.content_type) == (b'{"prompt":"hi"}', None)
    assert found.incoming.user == (("eb-id", "j1"), ("eb-ver", "1")) and not found.seen
    assert gate.identify(message, "alice", "generate").seen
    gate.refused(ADDRESS, "generate", Refusal(503, "queue_full", "later", retryable=True))
    assert not gate.identify(message, "alice", "generate").seen
    with pytest.raises(Refusal, match="the envelope has 200000 bytes"):
        gate.identify(incoming(" " * 200_000), "alice", "generate")


def test_texts_and_limits(tmp_path):
    """A job that was charged and not taken is given back."""
    (tmp_path / "rules").write_text("word both bad\n")
    gate = gatekeeper(tmp_path, mqtt={"auth": "topic"}, content_filter={"rules": "rules"}, rate_limits={"requests": 1})
    for text, code in (("so bad", "content_filtered"), ("\0", "control_character")):
        with pytest.raises(Refusal) as refused:
            gate.check(asked(text))
        assert refused.value.code == code
    gate.admit(ADDRESS, asked("hi"))
    gate.release(ADDRESS)
    gate.admit(ADDRESS, asked("hi"))
    with pytest.raises(Refusal) as refused:
        gate.admit(ADDRESS, asked("hi"))
    gate.refused(ADDRESS, "generate", refused.value)
    gate.refused(ADDRESS, "made-up \n op", refused.value)
    lines = read_security_log(tmp_path / "state" / "security.log")
    assert [(line["code"], line["op"]) for line in lines] == [("rate_limit", "generate"), ("rate_limit", "?")]
    assert lines[0]["principal"] == gate.name_of("alice") != "alice"
    assert gate.guard(ADDRESS, asked("hi")).push("ok b") == "ok "
    assert gate.describe()["rate_limits"] == {"window_s": 3600.0, "per_principal": True, "requests": 1}
