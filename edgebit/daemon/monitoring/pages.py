"""What lies on the local port: the figures of the last snapshot for Prometheus, and the levels of health of now."""

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from edgebit.daemon.monitoring.exposition import prometheus_text
from edgebit.daemon.monitoring.health import Health
from edgebit.daemon.monitoring.prometheus import families_of
from edgebit.daemon.monitoring.scrape_port import Page, ScrapePort, metrics_page

Level = Literal["alive", "ready", "healthy"]


class Pages:
    """The pages of the port; show() from the main thread, the rest from the port's."""

    def __init__(self, health: Callable[[], Health]) -> None:
        self._health = health
        self._lock = threading.Lock()
        self._metrics: Mapping[str, Any] = {}
        self._about: Mapping[str, str] = {}

    def port(self, listen: str) -> ScrapePort:
        """The port that serves them."""
        return ScrapePort(
            listen,
            {
                "/metrics": self._figures,
                "/alive": lambda: self._level("alive"),
                "/ready": lambda: self._level("ready"),
                "/healthy": lambda: self._level("healthy"),
            },
        )

    def show(self, metrics: Mapping[str, Any], about: Mapping[str, str]) -> None:
        """Put the body of a `metrics` message in place, and who speaks."""
        with self._lock:
            self._metrics, self._about = metrics, about

    def _figures(self) -> Page:
        with self._lock:
            metrics, about = self._metrics, self._about
        body = {**metrics, "health": self._health().to_json()}
        return metrics_page(prometheus_text(families_of(body, about)))

    def _level(self, level: Level) -> Page:
        health = self._health()
        return Page(200 if getattr(health, level) else 503, json.dumps(health.to_json()))
