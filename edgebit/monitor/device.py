"""One device as its messages tell of it. Pure: a message and a time give the device that is known then."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from edgebit.monitor.figures import figures_of
from edgebit.monitor.published import ITEMS_MAX, body_of, figure, inside, objects, words

KINDS = ("availability", "info", "status", "metrics", "event")
SAMPLES_MAX = 240  # kept of a device
SAMPLE_S = 1.0  # at least from one to the next
EVENTS_MAX = 8
ALERTS_MAX = 8
FIRST_INTERVAL_S = 30.0  # between two metrics, until two of them tell
STALE_INTERVALS = 3.5  # without a word, of a device that is said to be online
STALE_LEAST_S = 10.0
NAME_MAX = 64


class Sample(NamedTuple):
    """The figures of one moment that sparklines are drawn of."""

    at: float
    temperature: float | None = None
    clock: float | None = None
    power: float | None = None
    tok_s: float | None = None
    queue: float | None = None
    throttled: float | None = None


class Alert(NamedTuple):
    """A threshold that is passed."""

    severity: str
    name: str
    message: str


class Event(NamedTuple):
    """A rare fact, and when it was heard."""

    at: float
    name: str
    message: str


class SensorReading(NamedTuple):
    """One line of the detail view."""

    name: str
    value: float | None
    unit: str
    absent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is known of a device. Times are monotonic seconds of this machine."""

    name: str
    availability: str = ""  # online, offline, lost; empty: it has not said
    conn: int = 0  # of the newest availability
    state: str = ""  # ready, busy, hot, ...
    figures: Mapping[str, float | None] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()  # oldest first
    alerts: tuple[Alert, ...] = ()
    events: tuple[Event, ...] = ()  # newest first
    sensors: tuple[SensorReading, ...] = ()
    held_back: str = ""  # why the governor holds it back
    last_error: str = ""
    model: str = ""
    bundle: str = ""
    machine: str = ""
    began: float = 0.0  # when the first was heard of it
    heard: float = 0.0  # when it last spoke
    measured: float | None = None  # when the last metrics came
    interval_s: float = FIRST_INTERVAL_S  # between two metrics

    def is_stale(self, now: float) -> bool:
        """Whether it is said to be online and has not spoken for so long that it should have."""
        silence_s = now - self.heard
        return self.availability == "online" and silence_s > max(STALE_LEAST_S, STALE_INTERVALS * self.interval_s)

    def condition(self, now: float) -> str:
        """In one word: how it is, or why that is not known."""
        if self.availability != "online":
            return self.availability or "unknown"
        return "stale" if self.is_stale(now) else self.state or "online"


def told(device: Device, kind: str, payload: bytes, now: float, *, retained: bool = False) -> Device:
    """The device after a message. One that cannot be read changes nothing."""
    body = body_of(payload)
    if body is None:
        return device
    if kind == "availability":
        return _availability(device, body, now, retained=retained)
    if kind == "info":
        return _info(device, body)
    spoke = device if retained else replace(device, heard=now)
    if kind == "event":
        return _event(spoke, body, now)
    figures = {**device.figures, **figures_of(kind, body)}
    known = replace(spoke, figures=figures, alerts=_alerts(body, device.alerts))
    known = _status(known, body) if kind == "status" else _metrics(known, body, now)
    return known if retained else replace(known, samples=_sampled(device.samples, figures, now))


def with_history(device: Device, past: Iterable[Sample]) -> Device:
    """The device with what it remembers itself before what has been seen here."""
    first = device.samples[0].at if device.samples else float("inf")
    older = heapq.nlargest(SAMPLES_MAX, (sample for sample in past if sample.at < first), key=lambda sample: sample.at)
    return replace(device, samples=(*reversed(older), *device.samples)[-SAMPLES_MAX:])


def _availability(device: Device, body: Mapping[str, Any], now: float, *, retained: bool) -> Device:
    state, conn = body.get("state"), figure(body.get("conn")) or 0
    if state not in ("online", "offline", "lost") or (state == "lost" and conn < device.conn):
        return device  # a lost of a connection before is old news
    heard = device.heard if retained else now
    return replace(device, availability=state, conn=int(conn), heard=heard)


def _info(device: Device, body: Mapping[str, Any]) -> Device:
    return replace(
        device,
        model=words(inside(body, "model", "name"), NAME_MAX),
        bundle=words(body.get("bundle"), NAME_MAX) or device.bundle,
        machine=words(body.get("machine"), NAME_MAX),
    )


def _status(device: Device, body: Mapping[str, Any]) -> Device:
    return replace(
        device,
        state=words(body.get("state"), 16),
        held_back=words(body.get("held_back")),
        last_error=words(body.get("last_error")),
        bundle=words(body.get("bundle"), NAME_MAX) or device.bundle,
    )


def _metrics(device: Device, body: Mapping[str, Any], now: float) -> Device:
    gap_s = device.interval_s if device.measured is None else now - device.measured
    readings = body.get("sensors")
    sensors = [
        SensorReading(
            words(name, NAME_MAX),
            figure(inside(reading, "value")),
            words(inside(reading, "unit"), 12),
            words(inside(reading, "absent"), 80),
        )
        for name, reading in (list(readings.items())[:ITEMS_MAX] if isinstance(readings, dict) else ())
    ]
    # A lost message doubles a gap, so a longer one is taken on slowly, and a shorter one at once.
    interval_s = min(gap_s, device.interval_s * 1.5) if device.measured is not None else device.interval_s
    return replace(device, measured=now, interval_s=max(interval_s, 0.1), sensors=tuple(sensors))


def _alerts(body: Mapping[str, Any], before: tuple[Alert, ...]) -> tuple[Alert, ...]:
    if "alerts" not in body:
        return before
    found = (
        Alert(words(item.get("severity"), 16), words(item.get("name"), NAME_MAX), words(item.get("message")))
        for item in objects(body["alerts"])
    )
    return tuple(alert for alert in found if alert.name)[:ALERTS_MAX]


def _event(device: Device, body: Mapping[str, Any], now: float) -> Device:
    name = words(body.get("event"), NAME_MAX)
    if not name:
        return device
    about = ", ".join(filter(None, (words(body.get(key)) for key in ("name", "message", "reason"))))
    return replace(device, events=(Event(now, name, words(about)), *device.events)[:EVENTS_MAX])


def _sampled(samples: tuple[Sample, ...], figures: Mapping[str, float | None], now: float) -> tuple[Sample, ...]:
    newest = Sample(now, *(figures.get(name) for name in Sample._fields[1:]))
    if samples and now - samples[-1].at < SAMPLE_S:
        return (*samples[:-1], newest._replace(at=samples[-1].at))
    return (*samples[-SAMPLES_MAX + 1 :], newest)
