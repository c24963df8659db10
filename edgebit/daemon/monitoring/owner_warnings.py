"""What the owner should mend, such as a file that is wrong: alerts that no figure tells, as long as each holds."""

import logging
from collections.abc import Mapping
from typing import Any

from edgebit.daemon.contract.events import EventName

log = logging.getLogger("edgebit.owner")

SEVERITY = "warning"


class OwnerWarnings:
    """Follows warnings by their names: one that comes is an alert, one that goes is an alert cleared."""

    def __init__(self) -> None:
        self._raised: Mapping[str, dict[str, Any]] = {}

    def step(self, found: Mapping[str, str], wall: float) -> list[tuple[EventName, dict[str, Any]]]:
        """`found`: what is wrong now, in words; `wall` in Unix seconds. Gives the events that have to be told."""
        before, raised = self._raised, {}
        events: list[tuple[EventName, dict[str, Any]]] = []
        for name, words in found.items():
            was = before.get(name)
            since = was["since"] if was is not None else round(wall)
            raised[name] = {"name": name, "severity": SEVERITY, "since": since, "message": words}
            if was is None or was["message"] != words:
                log.warning("%s", words)
            if was is None:
                events.append(("alert", raised[name]))
        for name in [name for name in before if name not in found]:
            log.info("%s: mended", name)
            events.append(("alert_cleared", {**before[name], "message": "mended"}))
        self._raised = raised
        return events

    def active(self) -> list[dict[str, Any]]:
        """The fields of each that holds. From any thread."""
        return list(self._raised.values())
