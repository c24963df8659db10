"""All of monitoring put together for the daemon: figures, alerts, golden probes, the service manager, the port."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from edgebit.daemon.config.sections import Config
from edgebit.daemon.contract.events import EventPublisher
from edgebit.daemon.monitoring.health import GoldenProbe, Probes
from edgebit.daemon.monitoring.monitor import Figures, Monitor
from edgebit.daemon.monitoring.notify import Notifier
from edgebit.daemon.monitoring.pages import Pages
from edgebit.daemon.monitoring.vitals import Situation, Vitals
from edgebit.daemon.sensors.reading import Reading

log = logging.getLogger("edgebit.monitor")

Spawn = Callable[[str, Callable[[], None]], None]


class Watch:
    """turn() in the main thread, each time it turns; the rest in any."""

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        *,
        situation: Callable[[], Situation],
        readings: Callable[[], Mapping[str, Reading]],
        working: Callable[[], Figures],
        for_alerts: Callable[[], Figures],
        warnings: Callable[[], Mapping[str, str]],
        metrics: Callable[[], dict[str, Any]],
        about: Callable[[], Mapping[str, str]],
        publish_event: EventPublisher,
        spawn: Spawn,
    ) -> None:
        """`working` gives figures that the scheduler knows, `for_alerts` those that only alerts look at.

        `warnings` are what the owner should mend, by what it is about: alerts too.

        `metrics` gives the body of that message, `about` who speaks.

        `spawn` runs a function in a thread of a name.
        """
        self._metrics = metrics
        self._about = about
        self._warnings = warnings
        self._publish_event = publish_event
        self._probe = GoldenProbe(config.health.probe_interval_s, lambda run: spawn("probe", run))
        self._vitals = Vitals(
            situation, self._probe, step_max_s=config.health.step_max_s, notifier=Notifier.from_environment()
        )
        self._monitor = Monitor(
            config.history,
            config.alerts,
            state_dir / "history",
            readings=readings,
            working=working,
            for_alerts=lambda: {**for_alerts(), "probe_fault": float(self._probe.fault is not None)},
        )
        self._pages = Pages(self._vitals.health)
        self._port = self._pages.port(config.prometheus.listen) if config.prometheus.listen else None
        self._spawn = spawn
        self._serving = False
        self.outcomes = self._monitor.outcomes
        self.alerts = self._monitor.alerts
        self.history = self._monitor.history

    @property
    def fault(self) -> str | None:
        """The golden probe that differed, where one did: no answer can be trusted."""
        return self._probe.fault

    def turn(self, probes: Probes | None, *, busy: bool) -> str | None:
        """Do what is due; `probes` are those of the model, if there is one. Gives why the daemon should end, if so."""
        if probes is not None:
            self._probe.tend(probes, busy=busy)
        if self._port is not None and not self._serving:
            self._serving = True
            self._spawn("prometheus", self._port.run)
        try:
            self.take_figures()
        except Exception:  # whatever is wrong with a figure, requests are answered
            log.exception("no figures could be taken")
        return self._vitals.turn()

    def take_figures(self) -> None:
        """Take a snapshot when it is time, and look at what the owner should mend: tell which alerts have changed."""
        warned, events = self._monitor.warn(self._warnings()), self._monitor.tick()
        if self._port is not None and (warned or events is not None):
            self._pages.show(self._metrics(), self._about())
        for event, facts in (*warned, *(events or ())):
            self._publish_event(event, **facts)

    def figures(self, counters: Iterable[Mapping[str, int]]) -> dict[str, Any]:
        """The figures of now for `metrics`; `counters` are those of other parts."""
        return self._monitor.metrics(counters)

    def health(self) -> dict[str, Any]:
        """The answer to a request for `health`."""
        return {**self._vitals.health().to_json(), "probes": self._probe.to_json()}

    def stopping(self, timeout_s: float) -> None:
        """The daemon is about to end: say so, and let the model go."""
        self._vitals.stopping()
        self._probe.stop(timeout_s)

    def close(self) -> None:
        """Write what waits, and serve no more."""
        self._monitor.close()
        if self._port is not None:
            self._port.close()
