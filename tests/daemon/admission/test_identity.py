"""Who asks: the broker's word, a signature, and everything that is neither."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from signing_keys import make_key

from edgebit.daemon.admission.identity import check_broker_name, describe_identity
from edgebit.daemon.admission.principals import Principals, parse_principals
from edgebit.daemon.admission.signed_requests import (
    IDS_MAX,
    SignedRequests,
    claimed_id,
    envelope,
    local_code,
    text_to_sign,
)
from edgebit.daemon.contract.messages import Refusal
from edgebit.errors import ConfigError

STAMPED = ("$timestamp", "1"), ("$client_id", "c")
BROKER_SAYS = [
    ((*STAMPED, ("$client_username", "alice")), None),
    ((("$client_username", "alice"),), None),
    ((("$client_username", "mallory"), *STAMPED, ("$client_username", "alice")), None),
    ((), 401),
    ((*STAMPED,), 401),
    ((("$client_username", "alice"), *STAMPED), 401),  # a forged copy, and the broker had no name to add
    ((("$client_username", "alice"), *STAMPED, ("$client_username", "mallory")), 403),
    ((("$client_username", "alice"), ("$client_username", "")), 403),
    ((("client_username", "alice"),), 401),
]


@pytest.mark.parametrize(("user", "status"), BROKER_SAYS)
def test_only_the_last_name_is_the_brokers(user, status):
    """What a sender puts in front counts for nothing, whichever way."""
    if status is None:
        check_broker_name("alice", user)
        return
    with pytest.raises(Refusal) as refused:
        check_broker_name("alice", user)
    assert refused.value.status == status


@pytest.mark.parametrize("mode", ["open", "topic", "broker-prop", "signed"])
def test_every_mode_says_what_it_means(mode):
    """Only in an open one callers are all one."""
    said = describe_identity(mode, None)
    assert said["meaning"] and said["per_principal"] == (mode != "open")
    assert "client" not in describe_identity("open", None)["meaning"]


class Signer:
    """A caller with a key, and a device that knows it."""

    def __init__(self, tmp_path) -> None:
        self.key = Ed25519PrivateKey.generate()
        public = base64.b64encode(self.key.public_key().public_bytes_raw()).decode()
        self.file = tmp_path / "principals.toml"
        self.file.write_text(f'[alice]\nkey = "{public}"\n[bob]\nrequests = 3\n')
        self.principals = Principals(str(self.file))
        self.now = 0.0
        self.device = SignedRequests("edgebit/v1/pi", self.principals, 600.0, clock=lambda: self.now)

    def sign(self, payload: str, *, key: Ed25519PrivateKey | None = None, **other: str) -> dict:
        parts = {
            "base": "edgebit/v1/pi",
            "principal": "alice",
            "op": "generate",
            "job_id": "j1",
            "challenge": self.device.challenge(),
            **other,
        }
        signature = (key or self.key).sign(text_to_sign(payload=payload.encode(), **parts))
        return envelope(job_id=parts["job_id"], challenge=parts["challenge"], payload=payload, signature=signature)

    def open(self, body: dict, principal: str = "alice", op: str = "generate"):
        return self.device.open(principal, op, json.dumps(body).encode())

    def refusal(self, body: dict, principal: str = "alice", op: str = "generate") -> tuple[int, str]:
        with pytest.raises(Refusal) as refused:
            self.open(body, principal, op)
        return refused.value.status, refused.value.code


@pytest.fixture
def signer(tmp_path):
    return Signer(tmp_path)


def test_a_signed_request_is_opened(signer):
    """The payload comes out byte for byte."""
    opened = signer.open(signer.sign('{"prompt": "é"}'))
    assert (opened.id, opened.payload, opened.seen) == ("j1", '{"prompt": "é"}'.encode(), False)


def test_whatever_is_changed_breaks_the_signature(signer):
    """Payload, id, principal, operation, device, key."""
    body = signer.sign("hi")
    assert signer.refusal({**body, "payload": "ho"}) == (401, "bad_signature")
    assert signer.refusal({**body, "id": "j2"}) == (401, "bad_signature")
    assert signer.refusal(body, op="cancel") == (401, "bad_signature")
    assert signer.refusal(body, principal="bob") == (401, "unknown_key")
    assert signer.refusal(signer.sign("hi", base="edgebit/v1/pi2")) == (401, "bad_signature")
    assert signer.refusal(signer.sign("hi", principal="bob")) == (401, "bad_signature")
    assert signer.refusal(signer.sign("hi", key=Ed25519PrivateKey.generate())) == (401, "bad_signature")
    assert signer.refusal({**body, "sig": base64.b64encode(bytes(64)).decode()}) == (401, "bad_signature")
    assert not signer.open(body).seen


NO_ENVELOPES = [
    (b"hi", "signature_missing"),
    (b'{"prompt": "hi"}', "signature_missing"),
    (b"[" * 100_000, "signature_missing"),
    (b'{"edgebit_signed": 2}', "signature_missing"),
    (b'{"edgebit_signed": 1}', "bad_envelope"),
    (b'{"edgebit_signed": 1, "id": "a\\nb", "challenge": "", "payload": "", "sig": ""}', "bad_envelope"),
    (b'{"edgebit_signed": 1, "id": "a", "challenge": "", "payload": "\\ud800", "sig": ""}', "bad_envelope"),
    (b'{"edgebit_signed": 1, "id": "a", "challenge": "", "payload": "", "sig": "%"}', "bad_envelope"),
    (b'{"edgebit_signed": 1, "id": "a", "challenge": [], "payload": "", "sig": ""}', "bad_envelope"),
    (b'{"edgebit_signed": 1, "id": "a", "challenge": "x", "payload": "", "sig": ""}', "stale_challenge"),
]


@pytest.mark.parametrize(("payload", "code"), NO_ENVELOPES)
def test_what_is_no_envelope_is_refused(signer, payload, code):
    """401 with the reason, before any signature is computed."""
    with pytest.raises(Refusal) as refused:
        signer.device.open("alice", "generate", payload)
    assert (refused.value.status, refused.value.code) == (401, code)


def test_a_copied_request_is_told_as_one_that_came_before(signer):
    """It may be answered from what is kept, and not run again; another one under its id is refused."""
    body = signer.sign("hi")
    assert not signer.open(body).seen
    assert signer.open(body).seen
    assert signer.refusal(signer.sign("ho")) == (409, "id_in_use")


def test_a_job_can_be_cancelled_and_asked_for_under_its_id(signer):
    """As often as one likes; each of them is signed too."""
    signer.open(signer.sign("hi"))
    for op in ("get", "get", "cancel", "cancel"):
        assert not signer.open(signer.sign('{"offset": 1}', op=op), op=op).seen
    assert signer.refusal(signer.sign("j1", op="get"), op="cancel") == (401, "bad_signature")
    assert signer.refusal(signer.sign("ho")) == (409, "id_in_use")


def test_a_key_may_stand_as_the_tools_show_it(signer):
    """minisign's line, which `edgebit keys` prints."""
    line = str(make_key(7).public)
    found = parse_principals(f'[alice]\nkey = "{line}"\n', "principals.toml")
    assert found["alice"].keys == (make_key(7).public.point,)


NAMED = [
    (b"hi", None),
    (b"[1]", None),
    (b"[" * 100_000, None),
    (b'{"id": "j 1"}', None),
    (b'{"id": 1}', None),
    (b'{"id": "j1"}', "j1"),
    (b'{"edgebit_signed": 1, "id": "j1"}', "j1"),
]


@pytest.mark.parametrize(("payload", "job_id"), NAMED)
def test_a_refusal_finds_its_way(payload, job_id):
    """To the id that the envelope names, if it is one."""
    assert claimed_id(payload) == job_id


def test_a_request_that_was_not_taken_may_come_again(signer):
    """The device was busy: asked again as it is, it is new."""
    body = signer.sign("hi")
    signer.open(body)
    signer.device.forget("alice", "j1")
    assert not signer.open(body).seen


def test_challenges_end(signer):
    """The newest and the one before are taken, by a clock that only counts; after a restart none is."""
    body = signer.sign("hi")
    signer.now = 601.0
    assert not signer.open(body).seen
    fresh = signer.sign("hi", job_id="j2")
    assert fresh["challenge"] != body["challenge"]
    signer.now = 1201.0
    assert signer.refusal(body) == (401, "stale_challenge")
    assert not signer.open(fresh).seen
    restarted = SignedRequests("edgebit/v1/pi", signer.principals, 600.0, clock=lambda: signer.now)
    with pytest.raises(Refusal, match="take the one in info"):
        restarted.open("alice", "generate", json.dumps(fresh).encode())


def test_a_challenge_is_taken_no_longer_than_twice_its_time(signer):
    """Also where nobody has asked for so long."""
    body = signer.sign("hi")
    signer.now = 1300.0
    assert signer.refusal(body) == (401, "stale_challenge")


def test_the_memory_of_ids_is_bounded(signer):
    """A challenge that has had its fill is followed by another."""
    first = signer.device.challenge()
    for number in range(IDS_MAX):
        signer.device._newest.taken["alice", str(number)] = b""
    assert signer.device.challenge() != first
    assert len(signer.device._newest.taken) == 0


def test_the_device_may_ask_itself(signer):
    """With a key that only its own user reads; nobody else's is one."""
    signer.device._local_key = b"k" * 32
    parts = {"base": "edgebit/v1/pi", "principal": "pi", "op": "generate", "job_id": "j1", "payload": b"hi"}
    signed = text_to_sign(challenge=signer.device.challenge(), **parts)
    sent = {"job_id": "j1", "challenge": signer.device.challenge(), "payload": "hi", "local": True}
    for key in (b"", b"x" * 32):
        body = envelope(signature=local_code(key, signed), **sent)
        assert signer.refusal(body, principal="pi") == (401, "bad_signature")
    body = envelope(signature=local_code(b"k" * 32, signed), **sent)
    assert signer.open(body, principal="pi").payload == b"hi"
    signer.device._local_key = b""
    fresh = envelope(signature=local_code(b"", signed), **{**sent, "job_id": "j2"})
    assert signer.refusal(fresh, principal="pi") == (401, "unknown_key")


def test_keys_are_read_again_when_the_file_changes(signer):
    """A wrong file leaves those before in use."""
    body = signer.sign("hi")
    signer.file.write_text("[alice]\nkey = 'x'\n")
    signer.principals.reload()
    assert "no Ed25519 public key" in signer.principals.fault
    assert not signer.open(body).seen
    signer.file.write_text("[carol]\nrequests = 1\n")
    signer.principals.reload()
    assert signer.principals.fault is None
    assert signer.refusal(signer.sign("hi", job_id="j3")) == (401, "unknown_key")


WRONG = [
    ("[", "is not TOML"),
    ("a = 1", "[a] must be a section"),
    ("['a b']", "must be a section, named by a principal"),
    ("[a]\nkeys = 1", "unknown key 'keys'; there are key, requests, tokens, joules"),
    ("[a]\nkey = 1", "key must be a string"),
    ("[a]\nkey = ['AAAA']", "is no Ed25519 public key"),
    (f"[a]\nkey = '{base64.b64encode(bytes(32)).decode()}'", "is no Ed25519 public key"),
    ("[a]\nkey = 'RW%s'" % ("A" * 54), "key"),
    ("[a]\nrequests = -1", "requests must be a number from 0 on, not -1"),
    ("[a]\njoules = nan", "joules must be a number from 0 on, not nan"),
    ("[a]\ntokens = true", "tokens must be a number from 0 on, not True"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_a_wrong_file_of_principals_is_refused(text, words):
    """With section and key."""
    with pytest.raises(ConfigError) as refused:
        parse_principals(text, "principals.toml")
    assert words in str(refused.value) and "principals.toml" in str(refused.value)
