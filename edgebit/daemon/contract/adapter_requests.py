"""The requests that load and unload adapters: a file comes in as many parts as its size and a payload's limit need."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from edgebit.daemon.contract.fields import optional
from edgebit.daemon.contract.messages import LoadAdapterRequest, Refusal, UnloadAdapterRequest

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_adapter_name(text: str) -> bool:
    """Whether an adapter can be called so: in requests, and in the name of its file."""
    return _NAME.fullmatch(text) is not None


def read_adapter_name(fields: Mapping[str, Any]) -> str | None:
    """The adapter that an answer is to be computed with; None: the model alone. Raises Refusal 400."""
    name: str | None = optional(fields, "adapter", (str,))
    if not name:
        return None
    if not is_adapter_name(name):
        raise Refusal(
            400, "bad_field", "adapter is 1 to 64 letters, digits, '_', '.' and '-', and begins with none of the last"
        )
    return name


def read_unload_adapter(fields: Mapping[str, Any]) -> UnloadAdapterRequest:
    """Raises Refusal 400."""
    return UnloadAdapterRequest(adapter=_required_name(fields))


def read_load_adapter(fields: Mapping[str, Any], size_max: int) -> LoadAdapterRequest:
    """A part of a file of at most `size_max` bytes; without `size` and `sha256` it is the whole file.

    Raises Refusal: 400 for what is missing or does not fit together, 413 for a file that is too large.
    """
    name, data = _required_name(fields), _data(fields)
    offset = optional(fields, "offset", (int,)) or 0
    size = optional(fields, "size", (int,))
    size = len(data) if size is None else size
    if size > size_max:
        words = f"the adapter has {size} bytes, this device takes {size_max}"
        raise Refusal(413, "adapter_too_large", words)
    if offset < 0 or offset + len(data) > size:
        raise Refusal(400, "bad_field", "offset: the part does not lie within the size of the file")
    sha256 = optional(fields, "sha256", (str,))
    if sha256 is None:
        if len(data) < size:
            raise Refusal(400, "missing_field", "sha256 of the whole file is missing, and this is a part of it")
        sha256 = hashlib.sha256(data).hexdigest()
    if not _SHA256.fullmatch(sha256):
        raise Refusal(400, "bad_field", "sha256 is 64 digits of 0-9 a-f")
    return LoadAdapterRequest(adapter=name, data=data, offset=offset, size=size, sha256=sha256)


def _required_name(fields: Mapping[str, Any]) -> str:
    name = read_adapter_name(fields)
    if name is None:
        raise Refusal(400, "missing_field", "adapter, the name, is missing or empty")
    return name


def _data(fields: Mapping[str, Any]) -> bytes:
    given = optional(fields, "data", (str,))
    if not given:
        raise Refusal(400, "missing_field", "data, a part of the file in base64, is missing or empty")
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "bad_field", f"data is not base64: {error}") from error
