"""Where an answer goes and until when it is waited for: from MQTT 5 properties and payload fields together.

The property wins; where both are there and differ the request is refused. Of two times the shorter one counts.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from edgebit.daemon.config.sections import Config
from edgebit.daemon.contract.fields import agreed, optional
from edgebit.daemon.contract.messages import Address, Incoming, Refusal
from edgebit.daemon.contract.topics import VERSION, DeviceTopics, is_id

CORRELATION_MAX_BYTES = 64
TTL_MAX_MS = 7 * 86_400_000
SERIES_MAX = 47  # of 64 characters, what leaves room for a "." and the number of the request


def first_address(incoming: Incoming, principal: str, topics: DeviceTopics, config: Config) -> Address:
    """The address as the properties alone give it: good enough for refusing a payload that cannot be read.

    Never raises: what is wrong with the properties is for address_of() to say, to the default topic.
    """
    given = user_property(incoming, "eb-id")
    job_id = given if given is not None and is_id(given) else None
    wanted = incoming.response_topic
    allowed = wanted is not None and topics.refusal(wanted, principal, config.replies.allowed_prefixes) is None
    name = job_id or _new_id()
    ttl_s = min(incoming.expiry_s or config.limits.default_ttl_s, config.limits.default_ttl_s)
    correlation = incoming.correlation
    return Address(
        principal=principal,
        id=name,
        id_given=job_id is not None,
        topic=wanted if wanted is not None and allowed else topics.reply(principal, name),
        topic_given=allowed,
        correlation=correlation if correlation and len(correlation) <= CORRELATION_MAX_BYTES else None,
        deadline=incoming.received + ttl_s,
    )


def address_of(
    incoming: Incoming, principal: str, fields: Mapping[str, Any], topics: DeviceTopics, config: Config
) -> Address:
    """The address that properties and payload give together.

    Raises Refusal: 400 where they contradict each other, 403 for a response topic that is not the caller's own, 505 for
    another version of the contract.
    """
    _check_version(incoming, fields)
    job_id = agreed("id", user_property(incoming, "eb-id"), optional(fields, "id", (str,)))
    if job_id is not None and not is_id(job_id):
        raise Refusal(400, "bad_id", "an id is 1 to 64 letters, digits, '_', '.', ':', '@' and '-'")
    wanted = agreed("response topic", incoming.response_topic, optional(fields, "reply_to", (str,)))
    if wanted is not None and (why := topics.refusal(wanted, principal, config.replies.allowed_prefixes)):
        raise Refusal(403, "response_topic", why)
    if incoming.correlation is not None and len(incoming.correlation) > CORRELATION_MAX_BYTES:
        raise Refusal(400, "bad_correlation", f"correlation data has at most {CORRELATION_MAX_BYTES} bytes")
    series = _series(job_id, fields)
    name = job_id or _new_id()
    return Address(
        principal=principal,
        id=f"{series}.{_new_id()}" if series else name,
        id_given=job_id is not None and series is None,
        topic=wanted or topics.reply(principal, name),
        topic_given=wanted is not None,
        correlation=incoming.correlation or None,
        deadline=incoming.received + _ttl_s(incoming, fields, config),
        series=series,
    )


def user_property(incoming: Incoming, name: str) -> str | None:
    """The first user property of that name."""
    return next((value for key, value in incoming.user if key == name), None)


def _new_id() -> str:
    return secrets.token_hex(8)


def _check_version(incoming: Incoming, fields: Mapping[str, Any]) -> None:
    given = optional(fields, "ver", (str, int))
    version = agreed("version", user_property(incoming, "eb-ver"), None if given is None else str(given))
    if version not in (None, str(VERSION)):
        raise Refusal(
            505,
            "version",
            f"version {version[:16]!r} of the contract is not spoken here; supported: {VERSION}",
            details={"supported": [VERSION]},
        )


def _series(job_id: str | None, fields: Mapping[str, Any]) -> str | None:
    """The given id where it stands for the newest of many requests, as a caller that knows one topic only needs it."""
    mode = optional(fields, "id_mode", (str,))
    if mode in (None, "once"):
        return None
    if mode != "latest":
        raise Refusal(400, "bad_field", "id_mode is 'once' or 'latest'")
    if job_id is None:
        raise Refusal(400, "missing_field", "id_mode 'latest' needs the id whose newest request this is")
    if len(job_id) > SERIES_MAX:
        raise Refusal(400, "bad_id", f"with id_mode 'latest' an id has at most {SERIES_MAX} characters")
    return job_id


def _ttl_s(incoming: Incoming, fields: Mapping[str, Any], config: Config) -> float:
    ttl_ms = optional(fields, "ttl_ms", (int,))
    if ttl_ms is not None and ttl_ms < 1:
        raise Refusal(408, "expired", "ttl_ms is not above 0: the request was late before it began")
    given_s = [] if ttl_ms is None else [min(ttl_ms, TTL_MAX_MS) / 1000]
    if incoming.expiry_s is not None:
        given_s.append(float(min(incoming.expiry_s, TTL_MAX_MS // 1000)))
    return min(given_s, default=float(config.limits.default_ttl_s))
