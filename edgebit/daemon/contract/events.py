"""Rare facts that the `event` topic tells, each once, by name (docs/schemas/event.json)."""

from typing import Any, Literal, Protocol

EventName = Literal[
    "connected",
    "throttled",
    "undervoltage",
    "sensor_lost",
    "hot",
    "cooled",
    "admission_closed",
    "admission_opened",
    "pool_left",
    "pool_joined",
    "storage_full",
    "storage_restored",
    "interrupted",
    "alert",
    "alert_cleared",
    "ota_commit",
    "ota_rollback",
]


class EventPublisher(Protocol):
    """Tells a fact, as app.Daemon does: now, or as soon as the broker is back. From any thread."""

    def __call__(self, event: EventName, **facts: Any) -> None:
        """`facts` are JSON values, under names of their own."""
