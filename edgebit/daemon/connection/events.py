"""What the rest of the daemon hears of a connection."""

from dataclasses import dataclass

from edgebit.daemon.contract.messages import Incoming


@dataclass(frozen=True, slots=True)
class Connected:
    """The device can be asked: connected, subscribed, and `online` is on its way."""

    number: int
    mqtt5: bool
    session_present: bool
    packet_max: int  # bytes; 0: the broker named no limit


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or an attempt failed."""

    reason: str
    was_connected: bool


MqttEvent = Incoming | Connected | Disconnected
