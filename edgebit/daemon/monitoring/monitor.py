"""Snapshots at their times: into the history, before the alerts, and out as `metrics`. In the main thread."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from edgebit.daemon.config.sections import AlertsConfig, HistoryConfig
from edgebit.daemon.contract.events import EventName
from edgebit.daemon.monitoring import history_request, snapshot
from edgebit.daemon.monitoring.alert_rules import rules_of
from edgebit.daemon.monitoring.alerts import RANK, Alerts, Change, body_of
from edgebit.daemon.monitoring.history import History, Record
from edgebit.daemon.monitoring.history_request import HistoryRequest
from edgebit.daemon.monitoring.outcomes import Outcomes
from edgebit.daemon.monitoring.own_process import OwnProcess
from edgebit.daemon.monitoring.owner_warnings import OwnerWarnings
from edgebit.daemon.monitoring.quantities import NAMES
from edgebit.daemon.monitoring.snapshot import LostSensors, Snapshot
from edgebit.daemon.monitoring.timeline import Moment, present
from edgebit.daemon.sensors.reading import Reading

log = logging.getLogger("edgebit.monitor")

Figures = Mapping[str, float | None]


class Monitor:
    """What the daemon knows of itself."""

    def __init__(
        self,
        history: HistoryConfig,
        alerts: AlertsConfig,
        folder: Path,
        *,
        readings: Callable[[], Mapping[str, Reading]],
        working: Callable[[], Figures],
        for_alerts: Callable[[], Figures],
        clock: Callable[[], float] = time.monotonic,
        moment: Callable[[], Moment] = present,
    ) -> None:
        """`folder` is the history's; `working` gives what the scheduler knows, `for_alerts` figures beside."""
        self._config = history
        self._readings = readings
        self._working = working
        self._for_alerts = for_alerts
        self._clock = clock
        self._moment = moment
        self._process = OwnProcess(clock=clock)
        self._lost = LostSensors()
        self._alerts = Alerts(rules_of(alerts))
        self._owner = OwnerWarnings()
        self._history = _history(history, folder)
        self._recorded: Snapshot = {}
        self._next = clock()
        self.outcomes = Outcomes(clock)

    def tick(self) -> list[tuple[EventName, dict[str, Any]]] | None:
        """Take a snapshot when it is time; gives the events that have to be told. None: it was not."""
        now = self._clock()
        if now < self._next:
            return None
        self._next = now + self._config.interval_s
        taken = self._take(self._readings())
        if self._history is not None:
            self._history.add(Record(self._moment(), snapshot.since(self._recorded, taken)))
        self._recorded = taken
        own = {"history_fault": float(self._history is not None and self._history.fault is not None)}
        return [self._event(change) for change in self._alerts.step({**taken, **self._for_alerts(), **own}, now)]

    def warn(self, found: Mapping[str, str]) -> list[tuple[EventName, dict[str, Any]]]:
        """Take what the owner should mend, by what it is about; gives the events that have to be told."""
        return self._owner.step(found, self._moment().wall)

    def metrics(self, counters: Iterable[Mapping[str, int]]) -> dict[str, Any]:
        """The figures of now for `metrics`; `counters` are those of other parts, added up by name."""
        readings = self._readings()
        summed: Counter[str] = Counter()
        for part in counters:
            summed.update(dict(part))  # copied in one step: other threads count on meanwhile
        return {
            **snapshot.to_json(self._take(readings)),
            "counters": dict(sorted(summed.items())),
            "errors": dict(sorted(self.outcomes.errors().items())),
            "totals": self.outcomes.totals(),
            "alerts": self.alerts(),
            "sensors": {name: reading.to_json() for name, reading in readings.items()},
        }

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are raised, gravest first."""
        now, wall = self._clock(), self._moment().wall
        bodies = [*(body_of(alert, now, wall) for alert in self._alerts.active()), *self._owner.active()]
        return sorted(bodies, key=lambda body: (-RANK[body["severity"]], body["name"]))

    def history(self, fields: Mapping[str, Any], packet_max: int) -> dict[str, Any]:
        """The answer to a request for `history`. Raises Refusal."""
        request = HistoryRequest.read(fields)
        kept = self._history
        return history_request.answer(
            kept.read if kept is not None else lambda: (),
            request,
            self._moment(),
            interval_s=self._config.interval_s,
            packet_max=packet_max,
        )

    def close(self) -> None:
        """Write what waits."""
        if self._history is not None:
            self._history.flush()

    def _take(self, readings: Mapping[str, Reading]) -> Snapshot:
        return snapshot.snapshot_of(
            readings=readings,
            process=self._process.read(),
            window=self.outcomes.window(),
            counts=self.outcomes.counts(),
            now=self._working(),
            sensors_lost=self._lost.count(readings),
        )

    def _event(self, change: Change) -> tuple[EventName, dict[str, Any]]:
        facts = body_of(change.alert, self._clock(), self._moment().wall)
        raised = change.state == "raised"
        log.log(logging.WARNING if raised else logging.INFO, "alert %s: %s", change.state, facts["message"])
        return "alert" if raised else "alert_cleared", facts


def _history(config: HistoryConfig, folder: Path) -> History | None:
    if not config.hours:
        return None
    return History(
        folder,
        NAMES,
        records=max(1, round(3600 * config.hours / config.interval_s)),
        max_bytes=config.max_bytes,
        batch=max(1, round(config.write_s / config.interval_s)),
    )
