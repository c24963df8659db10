"""What a device tells of itself to a deploy: its bundles, whether the daemon runs, its log, sensors and refusals."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

from edgebit import __version__
from edgebit.bundle.slots import Slot, Slots
from edgebit.bundle.trust import describe_policy
from edgebit.daemon.install.device_access import port_fault
from edgebit.daemon.install.service import Service
from edgebit.daemon.install.settings import CONFIG_NAME
from edgebit.errors import EdgebitError

_LOG_PIECE = 1 << 20

Answer = dict[str, Any]  # of a verb, as JSON


def device_status(root: Path, slots: Slots, service: Service) -> Answer:
    """What is on the device and whether it runs."""
    active, previous = slots.active(), slots.previous()
    return {
        "edgebit": __version__,
        "root": str(root),
        "slots": {slot.name: _describe(slots, slot) for slot in slots.slots().values()},
        "active": active.name if active else None,
        "previous": previous.name if previous else None,
        "refused": slots.refused(),
        "service": service.kind(),
        "up": service.is_up(),
        "pid": service.pid(),
        "store_bytes": sum(place.stat().st_size for place in (root / "store").glob("*")),
        "free_bytes": shutil.disk_usage(root).free,
        "trust": _trust(slots),
        **_settings(root),
    }


def read_log(log: Path, lines: int, after: int | None) -> Answer:
    """The log's last lines, or what came after byte `after`."""
    try:
        size = log.stat().st_size
        with log.open("rb") as file:
            if after is None or after > size:  # shorter than before: it was begun anew
                file.seek(max(0, size - _LOG_PIECE) if after is None else 0)
                data = file.read(_LOG_PIECE)
                if after is None:
                    data = b"".join(data.splitlines(keepends=True)[-lines:]) if lines else b""
            else:
                file.seek(after)
                data = file.read(_LOG_PIECE)
            return {"text": data.decode("utf-8", "replace"), "next": file.tell()}
    except FileNotFoundError:
        return {"text": "", "next": 0}


def read_sensors(root: Path) -> Answer:
    """What the sensors say to whoever asks: the daemon may have other rights, and has its meter's port open."""
    from edgebit.daemon.config.reader import read_config
    from edgebit.daemon.sensors.console import files_of
    from edgebit.daemon.sensors.kinds import sampler_of
    from edgebit.daemon.sensors.listing import take_all

    config = read_config(root / CONFIG_NAME)
    with closing(sampler_of(files_of(config), config.sensors, config.power, root / "state")) as sampler:
        return take_all(sampler)


def read_refusals(root: Path, lines: int) -> Answer:
    """The last refusals, by hashed names, and how many there were in all that is kept."""
    from edgebit.daemon.privacy.security_log import FILE, read_security_log, summary

    facts = read_security_log(root / "state" / FILE)
    return {"summary": summary(facts), "lines": facts[-lines:] if lines else []}


def about(slot: Slot) -> Answer:
    """A slot in short."""
    return {"slot": slot.name, "id": slot.id, "status": slot.status, "tries_left": slot.tries_left}


def _describe(slots: Slots, slot: Slot) -> Answer:
    manifest = slots.manifest(slot)
    return {
        **about(slot),
        "name": manifest.name,
        "model": manifest.model.name,
        "edgebit": manifest.edgebit,
        "target": manifest.target.name,
        "bytes": sum(entry.size for entry in manifest.files.values()),
    }


def _trust(slots: Slots) -> Answer | None:
    try:
        return describe_policy(slots.policy())
    except EdgebitError as error:
        return {"error": str(error)}


def _settings(root: Path) -> Answer:
    from edgebit.daemon.config.reader import read_config

    if not (root / CONFIG_NAME).exists():
        return {"device": None, "broker": None}
    try:
        config = read_config(root / CONFIG_NAME)
    except EdgebitError as error:
        return {"device": None, "broker": None, "config_error": str(error)}
    meter = {"port": config.power.port, "fault": port_fault(config.power.port)} if config.power.port else None
    return {"device": config.device_name, "broker": config.mqtt.url, "meter": meter}
