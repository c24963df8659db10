"""One connection from its first packet to its end, and the reasons why it ends."""

from dataclasses import dataclass

from edgebit.daemon.connection.subscriptions import Subscriptions

# What a broker says that another attempt a second later will not change, by name (numbers differ between versions).
LASTING_REFUSALS = frozenset(
    {
        "Bad authentication method",
        "Bad user name or password",
        "Banned",
        "Client identifier not valid",
        "Not authorized",
        "QoS not supported",
        "Retain not supported",
        "Session taken over",
        "Topic name invalid",
        "Unsupported protocol version",
        "subscription refused",
    }
)

# How paho names a connection that the broker closed instead of answering CONNECT.
CLOSED_AT_ONCE = frozenset({"Unspecified error", "The connection was lost.", "Keep alive timeout"})
SILENT = "the broker did not answer in time"
RECEIVE_MAX_LEARNED = "the broker's Receive Maximum is smaller than ours"


@dataclass(slots=True)
class Attempt:
    """What has come of it so far."""

    number: int
    began: float
    subscriptions: Subscriptions
    answered: bool = False  # the broker sent a CONNACK
    session_present: bool = False
    ready_at: float = 0.0
    reason: str = ""  # why it ended
