"""Identity, checks, limits and filter together, as admission asks for them."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pki_fixtures import Authority

from edgebit.daemon.admission.gatekeeper import Gatekeeper
from edgebit.daemon.admission.signed_requests import envelope, text_to_sign
from edgebit.daemon.config.reader import config_from
from edgebit.daemon.contract.messages import Address, GenerateRequest, Incoming, Refusal
from edgebit.daemon.privacy.security_log import read_security_log
from edgebit.daemon.sensors.energy import Energy
from edgebit.daemon.serving.outcome import Outcome


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
    gate.not_taken(ADDRESS, Refusal(503, "queue_full", "later", retryable=True))
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
    gate.refused("alice", "generate", refused.value)
    gate.refused("alice", "history", refused.value)
    gate.refused("alice", "made-up \n op", refused.value)
    lines = read_security_log(tmp_path / "state" / "security.log")
    assert [(line["code"], line["op"]) for line in lines] == [("rate_limit", op) for op in ("generate", "history", "?")]
    assert lines[0]["principal"] == gate.name_of("alice") != "alice"
    assert gate.guard(ADDRESS, asked("hi")).push("ok b") == "ok "
    assert gate.describe()["rate_limits"] == {"window_s": 3600.0, "per_principal": True, "requests": 1}


def test_what_the_owner_should_mend(tmp_path):
    """Each by its name, until it is mended."""
    cert, key = Authority(tmp_path / "pki").issue("pi", ends_days=12.5)
    (tmp_path / "principals.toml").touch()
    key.chmod(0o644)
    tls = {"url": "mqtts://broker", "cert": str(cert), "key": str(key), "auth": "topic"}
    gate = gatekeeper(tmp_path, mqtt=tls, identity={"principals": "principals.toml"})
    found = gate.warnings()
    assert set(found) == {"secrets"}  # the certificate's end is the alert of a figure
    assert 12 < gate.certificate_days() < 13
    assert f"chmod 600 {key}" in found["secrets"]
    assert gate.describe()["certificate"]["warning"] == "our certificate ends in 12 days: renew cert in [mqtt]"
    key.chmod(0o600)
    (tmp_path / "principals.toml").write_text("[a]\nkey = 'x'\n")
    gate.look_again()
    gate.tick()
    assert set(gate.warnings()) == {"principals"}


def test_an_answer_that_was_cut_off_is_a_refusal_too(tmp_path):
    """It is noted by the main thread, whichever ended the job."""
    gate = gatekeeper(tmp_path, mqtt={"auth": "topic"})
    gate.job_ended(ended(status=451, code="response_filtered"))
    gate.job_ended(ended(status=499, code="cancelled"))
    gate.tick()
    gate.close()
    (line,) = read_security_log(tmp_path / "state" / "security.log")
    assert (line["code"], line["op"], line["principal"]) == ("response_filtered", "generate", gate.name_of("alice"))


def ended(status: int, code: str) -> Outcome:
    figures = dict.fromkeys(("prompt_tokens", "reused_tokens", "completion_tokens"), 0)
    times = dict.fromkeys(("queued_s", "prompt_s", "decode_s", "total_s"), 0.0)
    who = {"principal": "alice", "job_id": "j1", "op": "generate"}
    return Outcome(**who, **figures, **times, status=status, code=code, first_token_s=None, energy=Energy(joules=None))
