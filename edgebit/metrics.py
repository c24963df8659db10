"""Service: the figures of a device, now and of the time behind it: from the device over MQTT."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.monitoring.export import Table
from edgebit.daemon.monitoring.exposition import prometheus_text
from edgebit.daemon.monitoring.prometheus import families_of
from edgebit.daemon.monitoring.quantities import QUANTITIES
from edgebit.errors import DeviceError, NoAnswerError
from edgebit.monitor.history import ask_rows
from edgebit.monitor.published import body_of, inside, words
from edgebit.mqtt_client.client import DeviceClient
from edgebit.mqtt_client.device_states import RETAINED_WAIT_S, known_words

_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class Rows:
    """A device's rows."""

    table: Table
    whole: bool  # False: there are more than are read at once


@dataclass(frozen=True, slots=True)
class Now:
    """What a device says of this moment; anybody may have published it."""

    device: str
    info: Mapping[str, Any]
    metrics: Mapping[str, Any]

    def prometheus(self) -> str:
        """As the device's own port would give it."""
        about = {
            "device": self.device,
            "version": words(self.info.get("edgebit")),
            "model": words(inside(self.info, "model", "name")),
            "bundle": words(self.info.get("bundle")),
        }
        return prometheus_text(families_of(self.metrics, about))


def ask_table(client: DeviceClient, device: str, fields: Mapping[str, Any]) -> Rows:
    """Rows that `fields`, with `step_s`, ask the op `history` for. Raises DeviceError, NoAnswerError, BrokerError."""
    history = ask_rows(client, device, fields)
    if history.step_s != fields["step_s"]:
        steps = f"rows of {history.step_s:g} s instead of {fields['step_s']:g} s"
        raise DeviceError(f"{device} answered with {steps}. Is it a daemon of another version?")
    known = {name for row in history.rows for name in row}
    order = ["t", "n", *(name for figure in QUANTITIES for name in _columns(figure.name))]
    columns = [name for name in order if name in known] + sorted(known - set(order))
    rows = [[row.get(name) for name in columns] for row in history.rows]
    table = Table(columns=columns, rows=rows, step_s=history.step_s, device=device)
    return Rows(table, history.following is None)


def hear_now(client: DeviceClient, device: str, timeout_s: float) -> Now:
    """The next `metrics` message of a device, which comes each report.interval_s. Raises NoAnswerError, BrokerError."""
    heard: dict[str, Mapping[str, Any]] = {}

    def hear(name: str, kind: str, payload: bytes, retained: bool) -> None:
        body = body_of(payload)
        if body is not None:
            heard[kind] = body

    client.watch((device,), ("availability", "info", "metrics"), hear)
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < timeout_s:
        client.wait(_WAIT_S)
        if "availability" not in heard and passed_s > RETAINED_WAIT_S:
            raise NoAnswerError(f"the broker knows no device {device!r}. {known_words(_known(client))}")
        state = heard.get("availability", {}).get("state", "online")
        if state != "online":
            raise NoAnswerError(f"{device} is {words(state) or 'not online'}: it says nothing now. Ask once it is back")
        if "metrics" in heard and "availability" in heard:
            return Now(device, heard.get("info", {}), heard["metrics"])
    raise NoAnswerError(
        f"{device} told no figures within {timeout_s:g} s. Give a --timeout above its report.interval_s"
    )


def _known(client: DeviceClient) -> set[str]:
    known: set[str] = set()
    client.watch((), ("availability",), lambda name, *_: known.add(name))
    client.wait(RETAINED_WAIT_S)
    return known


def _columns(figure: str) -> tuple[str, str, str]:
    return figure, f"{figure}_min", f"{figure}_max"
