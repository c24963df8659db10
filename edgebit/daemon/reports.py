"""What the device says unasked: info and status, retained; metrics, at an interval; events."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from edgebit import __version__
from edgebit.daemon.adapters.adapters import Adapters
from edgebit.daemon.admission.admission import Admission
from edgebit.daemon.admission.gatekeeper import Gatekeeper
from edgebit.daemon.admission.journal import Journal
from edgebit.daemon.assistant.own_facts import OwnFacts, own_figure
from edgebit.daemon.config.sections import Config
from edgebit.daemon.connection.events import Connected
from edgebit.daemon.connection.mqtt import Connection
from edgebit.daemon.connection.pool import Pool
from edgebit.daemon.contract.events import EventName
from edgebit.daemon.contract.frames import Outgoing, encode_json
from edgebit.daemon.contract.requests import ALL_OPS
from edgebit.daemon.governor.loop import GovernorLoop
from edgebit.daemon.home_assistant.announcer import Announcer
from edgebit.daemon.home_assistant.discovery import DeviceFacts
from edgebit.daemon.monitoring.watch import Watch
from edgebit.daemon.sensors.hardware import hardware_name
from edgebit.daemon.sensors.sampler import Sampler
from edgebit.daemon.sensors.throttling import held_back
from edgebit.daemon.serving.endings import Endings
from edgebit.daemon.serving.scheduler import Scheduler

STATUS_LEAST_S = 0.5  # between two status messages
SCHEMAS = ("availability", "info", "status", "metrics", "event", "request", "reply", "history", "health")


class DescribedModel(Protocol):
    """What reports need of a loaded model."""

    def describe(self) -> dict[str, Any]:
        """The engine's part of the info document."""


class Counting(Protocol):
    """A part that counts what it does, by name."""

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each thing was done."""


class Events:
    """Tells rare facts, from any thread. Without a connection they wait for one, so each says itself when it was."""

    def __init__(self, connection: Connection, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._topic = topic
        self._clock = clock
        self._began = clock()

    def uptime_s(self) -> float:
        """Since the daemon's start."""
        return round(self._clock() - self._began, 1)

    def publish(self, event: EventName, **facts: Any) -> None:
        """`facts` are JSON values, under names of their own."""
        body = {"event": event, "conn": self._connection.number, "uptime_s": self.uptime_s(), **facts}
        self._connection.publish(Outgoing(topic=self._topic, payload=encode_json(body), gives_way=True))


@dataclass(kw_only=True, slots=True)
class Reports:
    """Speaks of the daemon's parts. tick() and announce() in the main thread, the rest in any."""

    config: Config
    slot: str
    stopping: Event
    model: Callable[[], DescribedModel | None]
    connection: Connection
    pool: Pool | None
    events: Events
    scheduler: Scheduler
    endings: Endings
    sensors: Sampler
    governor: GovernorLoop
    journal: Journal
    gate: Gatekeeper
    admission: Admission
    adapters: Adapters
    home: Announcer
    counting: Sequence[Counting]
    watch: Watch = field(init=False)  # set by whoever makes both: each asks the other
    _model_told: DescribedModel | None = field(default=None, init=False)  # the one that info last spoke of
    _gate_told: dict[str, Any] = field(default_factory=dict, init=False)
    _adapters_told: list[dict[str, Any]] = field(default_factory=list, init=False)
    _status_told: tuple[object, ...] = field(default=(), init=False)  # _state_key() of the last status
    _status_at: float = field(default=0.0, init=False)
    _next_at: float = field(default=0.0, init=False)

    def working(self) -> dict[str, float | None]:
        """Figures that the scheduler knows."""
        load = self.scheduler.load()
        return {"active": float(load.running), "queued": float(load.queue_len), "tok_s": load.tok_s}

    def for_alerts(self) -> dict[str, float | None]:
        """Figures that only alerts look at."""
        storage = float(self.journal.fault is not None)
        return {"storage_fault": storage, "certificate_days": self.gate.certificate_days()}

    def own_facts(self) -> OwnFacts:
        """What the device can tell of itself to whoever asks it in words."""
        load, lately = self.scheduler.load(), self.watch.outcomes.window()["tok_s"]
        own = (
            own_figure("running", "1", float(load.running)),
            own_figure("queued", "1", float(load.queue_len)),
            own_figure("tok_s", "tok/s", None if lately is None else round(lately, 1), "no answer was computed lately"),
            own_figure("daemon_uptime", "s", self.events.uptime_s()),
        )
        mqtt = self.config.mqtt
        return OwnFacts(
            figures={**self.sensors.readings(), **{reading.name: reading for reading in own}},
            connected=self.connection.connected,
            broker=f"{mqtt.host}, port {mqtt.port}",
            protocol="5" if self.connection.mqtt5 else "3.1.1",
            encrypted=mqtt.tls,
            described=self.described(),
        )

    def about(self) -> dict[str, str]:
        """Who speaks, as Prometheus is told."""
        described = self.described()
        model = (described.get("model") or {}).get("name", "")
        bundle = described.get("bundle") or ""
        return {"device": self.config.device_name, "version": __version__, "model": str(model), "bundle": str(bundle)}

    def announce(self, event: Connected) -> None:
        """Everything retained, at each connection: a broker may have lost it."""
        self._publish_info()
        self.publish_status()
        self.home.connected(self._facts())
        self.events.publish("connected", session_present=event.session_present)

    def tick(self) -> None:
        """Say what is due."""
        now = time.monotonic()
        if not self.connection.connected:
            return
        if self.home.tick():
            self.home.connected(self._facts())
        changed = self.gate.describe() != self._gate_told or self.adapters.describe() != self._adapters_told
        if self.is_behind or changed:
            self._publish_info()
            self.home.changed(self._facts())
        if now >= self._next_at:
            self._next_at = now + self.config.report.interval_s
            self._publish_metrics()
            self.publish_status()
        elif now - self._status_at >= STATUS_LEAST_S and self._state_key() != self._status_told:
            self.publish_status()

    @property
    def is_behind(self) -> bool:
        """Whether a model was loaded that info does not speak of yet."""
        return self.model() is not self._model_told

    def state(self) -> str:
        """The one word for what the device does."""
        if self.stopping.is_set():
            return "draining"
        if self.admission.fault is not None:
            return "fault"
        if self.model() is None:
            return "init"
        if self.governor.levers.hot:
            return "hot"
        load = self.scheduler.load()
        return "busy" if load.running or load.queue_len else "ready"

    def _state_key(self) -> tuple[object, ...]:
        alerts = tuple((alert["name"], alert["severity"]) for alert in self.watch.alerts())
        load, reason = self.scheduler.load(), self.governor.levers.reason
        return self.state(), load.queue_len, reason, alerts, *self._pools().values()

    def status(self) -> dict[str, Any]:
        """The body of `status`."""
        load = self.scheduler.load()
        readings = self.sensors.readings()
        return {
            "state": self.state(),
            "dev": self.config.device_name,
            "conn": self.connection.number,
            "queue_len": load.queue_len,
            "running": load.running,
            "eta_ms": load.eta_ms,
            "tok_s_now": None if load.tok_s is None else round(load.tok_s, 2),
            "t_soc": readings["t_soc"].value,
            "throttled": held_back(readings),
            "power_w": readings["power"].value,
            **self.governor.status(),
            "slot": self.slot or None,
            "bundle": self.described().get("bundle"),
            "alerts": self.watch.alerts(),
            "pools": self._pools(),
            "last_error": self.admission.fault
            or self.journal.fault
            or self.connection.rival
            or self.endings.last_error,
            "uptime_s": self.events.uptime_s(),
        }

    def _pools(self) -> dict[str, bool]:
        return self.pool.joined() if self.pool is not None else {}

    def publish_status(self) -> None:
        """Say it now."""
        self._status_told, self._status_at = self._state_key(), time.monotonic()
        self._publish(self.config.topics.status, self.status(), retain=True)

    def _publish_info(self) -> None:
        self._model_told, self._gate_told = self.model(), self.gate.describe()
        self._adapters_told = self.adapters.describe()
        limits = self.config.limits
        readings = self.sensors.readings()
        body = {
            "contract": 1,
            "dev": self.config.device_name,
            "edgebit": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "ops": list(ALL_OPS),
            **self._gate_told,
            "mqtt": "5" if self.connection.mqtt5 else "3.1.1",
            "slot": self.slot or None,
            "pools": list(self.config.pool.names),
            "limits": {
                "queue_max": limits.queue_max,
                "queue_per_principal_max": limits.queue_per_principal_max,
                "max_prompt_bytes": limits.max_prompt_bytes,
                "max_prompt_tokens": limits.max_prompt_tokens or None,
                "max_tokens": limits.max_tokens,
                "max_batch": limits.max_batch,
                "max_packet_bytes": self.connection.packet_max or None,
                "default_ttl_s": limits.default_ttl_s,
                "answers_kept_s": self.config.journal.keep_s,
                "max_adapters": self.config.adapters.max_count,
                "max_adapter_bytes": self.config.adapters.max_mib << 20,
            },
            "adapters": self._adapters_told,
            "sensors": {name: one.source for name, one in readings.items() if one.value is not None},
            "schema": {name: f"edgebit/v1/{name}" for name in SCHEMAS},
            **self.described(),
        }
        self._publish(self.config.topics.info, body, retain=True)

    def _facts(self) -> DeviceFacts:
        """What Home Assistant is told."""
        readings = self.sensors.readings()
        model = self.described().get("model") or {}
        return DeviceFacts(
            topics=self.config.topics,
            principal=self.config.home_assistant.principal,
            version=__version__,
            machine=hardware_name(Path(self.config.report.sensors_root)) or platform.machine(),
            model=str(model.get("name") or ""),
            assists=bool(model.get("response_schema")),
            sensors=frozenset(name for name, reading in readings.items() if reading.value is not None),
            interval_s=self.config.report.interval_s,
        )

    def metrics(self) -> dict[str, Any]:
        """The body of `metrics`."""
        engine = {"engine_us": int(1e6 * self.scheduler.load().busy_s)}
        counted = [engine, *(part.counters for part in self.counting)]
        return {
            "uptime_s": self.events.uptime_s(),
            "conn": self.connection.number,
            **self.watch.figures(counted),
            "principals": self.gate.limits.totals(),
            "governor": self.governor.metrics(),
        }

    def _publish_metrics(self) -> None:
        self.home.changed(self._facts())
        body = self.metrics()
        expiry_s = max(1, int(2 * self.config.report.interval_s))
        self._publish(self.config.topics.metrics, body, qos=0, expiry_s=expiry_s)

    def _publish(
        self, topic: str, body: dict[str, Any], *, qos: int = 1, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        if self.connection.connected:
            self.connection.publish(
                Outgoing(topic=topic, payload=encode_json(body), qos=qos, retain=retain, expiry_s=expiry_s)
            )

    def described(self) -> dict[str, Any]:
        """What the model says of itself; empty while there is none."""
        model = self.model()
        return model.describe() if model is not None else {}
