"""Requests that carry the caller's Ed25519 signature, for brokers that are not trusted (docs/privacy.md).

The whole request travels in an envelope, which is a payload under MQTT 5 and 3.1.1 alike; properties can be changed on
the way and prove nothing. What keeps a copied request from being run again is no clock, which a device without a
battery has wrong after a boot, but a challenge: a random text that the device publishes, changes from time to time and
forgets at a restart. Within a challenge's life an id is taken once.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgebit.bundle.ed25519 import verify
from edgebit.daemon.admission.principals import Principals
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.contract.topics import is_id

ENVELOPE = "edgebit_signed"  # the envelope's first key; its value is the version
ENVELOPE_VERSION = 1
IDS_MAX = 4096  # taken under one challenge; then a new one begins
REPEATABLE = ("cancel", "get")  # about another job, whose id they have; once or twice is the same


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """What an envelope held, its signature found right."""

    id: str
    payload: bytes
    seen: bool  # the same request came before: it may only be answered from what is kept, and not run again


@dataclass(slots=True)
class _Challenge:
    """A text to sign, and the requests that were taken under it."""

    text: str
    began: float
    taken: dict[tuple[str, str], bytes] = field(default_factory=dict)  # hash of the signed text by principal and id


def text_to_sign(*, base: str, principal: str, op: str, job_id: str, challenge: str, payload: bytes) -> bytes:
    """What is signed. `base` is <root>/v1/<device>: a request to one device is none to another.

    No part may hold a line's end, and the number of lines is fixed: two different requests never give the same text.
    """
    digest = hashlib.sha256(payload).hexdigest()
    return "\n".join(("edgebit signed request 1", base, principal, op, job_id, challenge, digest)).encode()


def local_code(key: bytes, signed: bytes) -> bytes:
    """What stands for a signature in a request of the device to itself."""
    return hmac.new(key, signed, hashlib.sha256).digest()


def envelope(*, job_id: str, challenge: str, payload: str, signature: bytes, local: bool = False) -> dict[str, Any]:
    """The JSON object that is sent; `local`: the signature is a local_code()."""
    return {
        **({"local": True} if local else {}),
        ENVELOPE: ENVELOPE_VERSION,
        "id": job_id,
        "challenge": challenge,
        "payload": payload,
        "sig": base64.b64encode(signature).decode(),
    }


class SignedRequests:
    """Opens envelopes. In one thread."""

    def __init__(
        self,
        base: str,
        principals: Principals,
        challenge_s: float,
        *,
        local_key: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`challenge_s`: how long a challenge is the newest; it is taken for as long again.

        `local_key` is the device's own: who can read it may ask under any name, as the health gate of a deploy does.
        """
        self._local_key = local_key
        self._base = base
        self._principals = principals
        self._challenge_s = challenge_s
        self._clock = clock
        self._before: _Challenge | None = None
        self._newest = _Challenge(secrets.token_hex(16), clock())

    def challenge(self) -> str:
        """What a request must sign now; a new text once the last one is old."""
        now = self._clock()
        age_s = now - self._newest.began
        if age_s >= self._challenge_s or len(self._newest.taken) >= IDS_MAX:
            self._before = self._newest if age_s < 2 * self._challenge_s else None
            self._newest = _Challenge(secrets.token_hex(16), now)
        if self._before is not None and now - self._before.began >= 2 * self._challenge_s:
            self._before = None
        return self._newest.text

    def open(self, principal: str, op: str, payload: bytes) -> SignedRequest:
        """What the envelope in `payload` holds. Raises Refusal: 401 with the reason.

        The signature is looked at last: it costs milliseconds, what comes before it costs none.
        """
        fields = _fields(payload)
        job_id, text, inner, signature = _parts(fields)
        local = fields.get("local") is True and bool(self._local_key)
        self.challenge()
        challenge = next((one for one in (self._newest, self._before) if one is not None and one.text == text), None)
        if challenge is None:
            words = "the challenge is old or another device's: take the one in info, and sign again"
            raise Refusal(401, "stale_challenge", words, retryable=True)
        keys = self._principals.get(principal).keys
        if not keys and not local:
            words = (
                f"this device has no key of principal {principal!r}: another --principal, or its key in principals.toml"
            )
            raise Refusal(401, "unknown_key", words)
        signed = text_to_sign(base=self._base, principal=principal, op=op, job_id=job_id, challenge=text, payload=inner)
        digest = hashlib.sha256(signed).digest()
        taken = None if op in REPEATABLE else challenge.taken.get((principal, job_id))
        if taken == digest:
            return SignedRequest(id=job_id, payload=inner, seen=True)
        right = (
            hmac.compare_digest(local_code(self._local_key, signed), signature)
            if local
            else any(verify(key, signed, signature) for key in keys)
        )
        if not right:
            raise Refusal(401, "bad_signature", "the signature is not that principal's, or the request was changed")
        if taken is not None:
            raise Refusal(409, "id_in_use", f"id {job_id!r} belongs to another signed request")
        if op not in REPEATABLE:
            challenge.taken[principal, job_id] = digest
        return SignedRequest(id=job_id, payload=inner, seen=False)

    def forget(self, principal: str, job_id: str) -> None:
        """A request that was not taken may come again as it is."""
        for challenge in (self._newest, self._before):
            if challenge is not None:
                challenge.taken.pop((principal, job_id), None)


def claimed_id(payload: bytes) -> str | None:
    """The id that a payload names, whatever is wrong with it or its envelope: its refusal is waited for there."""
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    job_id = fields.get("id") if isinstance(fields, dict) else None
    return job_id if isinstance(job_id, str) and is_id(job_id) else None


def _fields(payload: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or ENVELOPE not in fields:
        raise Refusal(401, "signature_missing", "this device takes signed requests only: edgebit ask --sign-key FILE")
    if fields[ENVELOPE] != ENVELOPE_VERSION:
        raise Refusal(401, "signature_missing", f"version {ENVELOPE_VERSION} of the envelope is known here")
    return fields


def _parts(fields: Mapping[str, Any]) -> tuple[str, str, bytes, bytes]:
    """Id, challenge, payload and signature of an envelope."""
    job_id, challenge, payload, signature = (fields.get(name) for name in ("id", "challenge", "payload", "sig"))
    if not isinstance(job_id, str) or not is_id(job_id):
        raise Refusal(401, "bad_envelope", "id must be there: 1 to 64 letters, digits, '_', '.', ':', '@' and '-'")
    if not isinstance(challenge, str) or not isinstance(payload, str) or not isinstance(signature, str):
        raise Refusal(401, "bad_envelope", "challenge, payload and sig must be strings")
    try:
        return job_id, challenge, payload.encode(), base64.b64decode(signature, validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise Refusal(401, "bad_envelope", f"payload must be Unicode and sig base64: {error}") from error
