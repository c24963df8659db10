"""A hidden file in an exported folder that says what the export wrote, so that nothing else is ever replaced."""

import json
from pathlib import Path
from typing import Any

from edgebit.bundle.archive import hash_file

RECORD_NAME = ".edgebit-export.json"
_HASHED = 64 << 20  # bytes: of larger files, which are weights, size and time of writing say enough


def write_record(folder: Path) -> None:
    """The file, of all others in the folder. Raises OSError."""
    files = {path.name: _state(path) for path in sorted(folder.iterdir())}
    (folder / RECORD_NAME).write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")


def difference(folder: Path) -> str | None:
    """What in the folder is not as an export wrote it; None: nothing. Raises OSError where it cannot be read."""
    try:
        files = json.loads((folder / RECORD_NAME).read_bytes())["files"]
        recorded: dict[str, Any] = dict(files)
    except FileNotFoundError:
        return f"no {RECORD_NAME} says what it wrote"
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"{RECORD_NAME} was changed since"
    for path in sorted(folder.iterdir()):
        if path.name == RECORD_NAME and not path.is_symlink():
            continue
        if path.name not in recorded:
            return f"{path.name} is of another"
        if path.is_symlink() or not path.is_file() or _state(path, recorded[path.name]) != recorded[path.name]:
            return f"{path.name} was changed since, or is of another"
    return None


def _state(path: Path, recorded: Any = None) -> dict[str, Any]:
    """What is the same as long as nobody writes to it; of a size that is not the recorded one, no more than that."""
    stat = path.stat()
    size = {"size": stat.st_size}
    if recorded is not None and recorded.get("size") != stat.st_size:
        return size
    return size | ({"mtime_ns": stat.st_mtime_ns} if stat.st_size > _HASHED else {"sha256": hash_file(path).sha256})
