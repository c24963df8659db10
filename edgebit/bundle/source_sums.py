"""What a model file's META says of the files that it was made from."""

from collections.abc import Mapping
from typing import Any


def source_sums(meta: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 in hex of those files, by name, as far as META has them."""
    source = meta.get("source")
    files = source.get("files") if isinstance(source, dict) else None
    entries = [entry for entry in files if isinstance(entry, dict)] if isinstance(files, list) else []
    pairs = [(entry.get("name"), entry.get("sha256")) for entry in entries]
    return {name: sha256 for name, sha256 in pairs if isinstance(name, str) and isinstance(sha256, str)}
