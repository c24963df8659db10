"""Who asks: MQTT tells no subscriber who has published, so it is only as true as the mode in mqtt.auth makes it."""

from collections.abc import Sequence
from typing import Any

from edgebit.daemon.contract.messages import Refusal

BROKER_NAME = "$client_username"  # what mosquitto's add-properties plugin appends to every message, and these before it
BROKER_NAME_FOLLOWS = ("$timestamp", "$client_id")

MEANING = {
    "open": "anybody who may publish here may take any name: rate limits hold for all callers together",
    "topic": "the name in the topic, to which the broker's access list must hold every user",
    "broker-prop": "the name in the topic, which must be the user name that the broker adds to every message",
    "signed": "the name in the topic, whose key must have signed the request and this device's challenge",
}


def is_shared(auth: str) -> bool:
    """Whether callers cannot be told from one another."""
    return auth == "open"


def describe_identity(auth: str, challenge: str | None) -> dict[str, Any]:
    """What `info` says of the mode beside its name: what it means, and for signed requests what they must sign."""
    body: dict[str, Any] = {"per_principal": not is_shared(auth), "meaning": MEANING[auth]}
    return body if challenge is None else {**body, "challenge": challenge}


def check_broker_name(principal: str, user: Sequence[tuple[str, str]]) -> None:
    """That the broker names `principal` as who has published. Raises Refusal: 401 where it names nobody, 403 another.

    The plugin appends, so the sender can put copies before its own but none behind: only the last one counts, and
    none does that stands before the plugin's other properties, as a copy would where the plugin had no name to give.
    """
    position = max((place for place, (key, _) in enumerate(user) if key == BROKER_NAME), default=-1)
    before = max((place for place, (key, _) in enumerate(user) if key in BROKER_NAME_FOLLOWS), default=-1)
    if position < 0 or position < before:
        raise Refusal(401, "identity_missing", "the broker has not added the sender's user name: log in there")
    if user[position][1] != principal:
        raise Refusal(403, "identity_mismatch", "the broker names another user than the topic does")
