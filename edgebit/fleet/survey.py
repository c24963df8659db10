"""Asking every device of a fleet how it is, side by side."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from edgebit.deploy.device import device_of, has_edgebit
from edgebit.device_probe import probe
from edgebit.errors import EdgebitError, TransportError
from edgebit.fleet.inventory import FleetDevice
from edgebit.transport import Transport, open_transport

# The hottest of what Linux itself measures; a device without such sensors says nothing.
_TEMPERATURES = "cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceStatus:
    """How one device is."""

    name: str
    reachable: bool
    why: str = ""  # nothing more is known of it
    installed: bool = False
    service: str | None = None  # what keeps its daemon running; "none": it has no python3, and edgebit-run alone
    up: bool = False  # the daemon is kept running, or edgebit-run is in place
    bundle: str | None = None  # the active one's id
    bundle_name: str = ""
    slot: str = ""
    state: str = ""  # of the slot: staged, trying, good, bad
    previous: str | None = None  # the bundle that a roll-back would return to
    refused: int = 0  # bundles that were taken back there
    device: str | None = None  # its name in topics
    free_bytes: int = 0
    temperature_c: float | None = None


def survey(devices: Sequence[FleetDevice], parallel: int) -> Iterator[DeviceStatus]:
    """How each device is, as the answers come in."""
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        try:
            for asked in as_completed([pool.submit(ask_device, device) for device in devices]):
                yield asked.result()
        finally:
            pool.shutdown(cancel_futures=True)


def ask_device(device: FleetDevice) -> DeviceStatus:
    """How a device is. One that is out of reach says so in its status: this is no error here."""
    try:
        with open_transport(device.url, device.way) as transport:
            state = probe(transport)
            heat = _temperature(transport)
            if not has_edgebit(state):
                return DeviceStatus(name=device.name, reachable=True, free_bytes=state.free_bytes, temperature_c=heat)
            try:
                status = device_of(transport, state).status()
            except TransportError:
                raise
            except EdgebitError as error:
                return DeviceStatus(name=device.name, reachable=True, why=str(error), temperature_c=heat)
    except EdgebitError as error:
        return DeviceStatus(name=device.name, reachable=False, why=str(error))
    active = status["slots"].get(status["active"] or "", {})
    previous = status["slots"].get(status["previous"] or "", {})
    return DeviceStatus(
        name=device.name,
        reachable=True,
        installed=True,
        service=status["service"],
        up=status["up"],
        bundle=active.get("id"),
        bundle_name=active.get("name", ""),
        slot=status["active"] or "",
        state=active.get("status", ""),
        previous=previous.get("id"),
        refused=len(status["refused"]),
        device=status["device"],
        free_bytes=status["free_bytes"],
        temperature_c=heat,
    )


def _temperature(transport: Transport) -> float | None:
    told = transport.run(["sh", "-c", _TEMPERATURES]).stdout.split()
    readings = [int(text) / 1000 for text in told if text.lstrip("-").isdigit()]
    return max(readings, default=None)
