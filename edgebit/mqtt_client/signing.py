"""Requests in signed envelopes, for devices that take no others (docs/privacy.md)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from edgebit.daemon.admission.signed_requests import envelope, text_to_sign
from edgebit.daemon.contract.topics import DeviceTopics, PoolTopics
from edgebit.errors import DeviceError

Addressee = DeviceTopics | PoolTopics


class Signer:
    """Signs what one principal asks, under the challenge of the device that is asked."""

    def __init__(self, principal: str, sign: Callable[[bytes], bytes]) -> None:
        """`sign` makes an Ed25519 signature."""
        self._principal = principal
        self._sign = sign
        self._challenges: dict[str, str] = {}  # by a device's base topic: what it last wanted to see signed

    def learn(self, topics: DeviceTopics, info: Mapping[str, Any]) -> None:
        """Note what a device wants to see signed, from its info. Raises DeviceError where it wants no signatures."""
        identity = info.get("identity")
        challenge = identity.get("challenge") if isinstance(identity, dict) else None
        if not isinstance(challenge, str) or not challenge.isalnum():
            mode = info.get("auth")
            raise DeviceError(f"{topics.device} takes no signed requests, its mode is {mode!r}: leave out --sign-key")
        self._challenges[topics.base] = challenge

    def seal(self, topics: Addressee, op: str, job_id: str, payload: str) -> str:
        """The payload in a signed envelope, or as it is where no challenge of the addressee's is known."""
        challenge = self._challenges.get(topics.base)
        if challenge is None:
            return payload
        text = text_to_sign(
            base=topics.base,
            principal=self._principal,
            op=op,
            job_id=job_id,
            challenge=challenge,
            payload=payload.encode(),
        )
        body = envelope(job_id=job_id, challenge=challenge, payload=payload, signature=self._sign(text))
        return json.dumps(body, ensure_ascii=False)
