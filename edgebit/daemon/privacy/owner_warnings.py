"""What the owner should mend, told once: in the log, and as an alert to whoever listens for the device's events."""

import logging
from collections.abc import Mapping

from edgebit.daemon.contract.events import EventPublisher

log = logging.getLogger("edgebit.owner")


class OwnerWarnings:
    """Follows warnings by their names: one that comes is an alert, one that goes is an alert cleared."""

    def __init__(self, tell: EventPublisher) -> None:
        self._tell = tell
        self._told: dict[str, str] = {}

    def step(self, found: Mapping[str, str]) -> None:
        """`found`: what is wrong now, in words that change at most now and then."""
        for name, words in found.items():
            before = self._told.get(name)
            if before != words:
                log.warning("%s", words)
            if before is None:
                self._tell("alert", name=name, severity="warning", message=words)
        for name in [name for name in self._told if name not in found]:
            log.info("%s: mended", name)
            self._tell("alert_cleared", name=name, severity="warning", message="mended")
        self._told = dict(found)
