"""Chips of the kernel's hwmon class, found by their names: the number in hwmonN means nothing and may change.

Source: kernel documentation, hwmon/sysfs-interface.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.reading import Unreadable


@dataclass(frozen=True, slots=True)
class Chip:
    """One hwmon device."""

    name: str  # "ina219"
    folder: str  # "sys/class/hwmon/hwmon2"
    address: str  # where it sits, "1-0040"; stays the same when hwmonN does not
    label: str = ""  # the board maker's name for it, where there is one


def chips(files: DeviceFiles, *names: str) -> Iterator[Chip]:
    """Those of these names; one that vanishes meanwhile is left out."""
    for folder in files.entries("sys/class/hwmon", "hwmon"):
        try:
            name = files.label(f"{folder}/name")
        except Unreadable:
            continue
        if name in names:
            address = files.link_name(f"{folder}/device") or folder.rpartition("/")[2]
            yield Chip(name, folder, address, _label(files, folder))


def _label(files: DeviceFiles, folder: str) -> str:
    try:
        return files.label(f"{folder}/label")
    except Unreadable:
        return ""
