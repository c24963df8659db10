"""Adapters of a device: loaded in parts as large as it takes them, unloaded, listed."""

import base64
import hashlib
from typing import Any

from edgebit.bundle.adapter_format import parse_adapter
from edgebit.errors import NoAnswerError
from edgebit.mqtt_client.client import DeviceClient
from edgebit.progress import Progress, unwatched

PAYLOAD_BYTES = 65536  # that a device takes unless it says otherwise
FIELDS_BYTES = 1024  # of a payload, for all but the data
LEAST_BYTES = 64  # of a part, whatever the device says


def load_adapter(
    client: DeviceClient,
    device: str,
    data: bytes,
    source: str,
    *,
    name: str | None = None,
    timeout_s: float,
    report: Progress = unwatched,
) -> dict[str, Any]:
    """Send an adapter's file; gives the device's last reply. `source` names the file; `name`: another than its own.

    Raises BundleError where it is no adapter file, DeviceError where the device does not take it, NoAnswerError.
    """
    name = name or parse_adapter(data, source).name
    size = part_size(client.info(device))
    whole = {"adapter": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reply: dict[str, Any] = {}
    for offset in range(0, len(data), size):
        report(f"adapter {name} to {device}", offset, len(data))
        part = base64.b64encode(data[offset : offset + size]).decode()
        fields = {**whole, "offset": offset, "data": part}
        reply = client.ask(device, "load_adapter", fields, timeout_s=timeout_s)
    return reply


def unload_adapter(client: DeviceClient, device: str, name: str, *, timeout_s: float) -> bool:
    """Have the device forget an adapter; False where it has none of that name. Raises as load_adapter()."""
    return bool(client.ask(device, "unload_adapter", {"adapter": name}, timeout_s=timeout_s).get("unloaded"))


def list_adapters(client: DeviceClient, device: str) -> list[dict[str, Any]]:
    """What the device has said of its adapters. Raises NoAnswerError where it has said nothing."""
    info = client.info(device)
    if not info:
        raise NoAnswerError(f"the broker knows no device {device}. edgebit ask --list shows those that it knows")
    adapters = info.get("adapters")
    return [each for each in adapters if isinstance(each, dict)] if isinstance(adapters, list) else []


def part_size(info: dict[str, Any]) -> int:
    """Bytes of a file that fit a payload of the device, in base64."""
    limits = info.get("limits")
    most = limits.get("max_prompt_bytes") if isinstance(limits, dict) else None
    payload = most if isinstance(most, int) and most > 0 else PAYLOAD_BYTES
    return max((payload - FIELDS_BYTES) // 4 * 3, LEAST_BYTES)
