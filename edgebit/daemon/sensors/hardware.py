"""What a device is, in its maker's words."""

from pathlib import Path


def hardware_name(root: Path) -> str:
    """The device tree's name for it, "Raspberry Pi 4 Model B Rev 1.4", or a PC firmware's; empty where none is told."""
    for file in ("proc/device-tree/model", "sys/class/dmi/id/product_name"):
        try:
            text = (root / file).read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if name := text.strip("\0 \n"):
            return name[:128]
    return ""
