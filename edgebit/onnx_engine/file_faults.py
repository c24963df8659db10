"""What keeps a file from being read, in words that are true of what lies there, with what mends it."""

import os
import shlex
from pathlib import Path

from edgebit.errors import OnnxError


def unreadable(path: Path, error: OSError, way: str) -> OnnxError:
    """The error for a file that cannot be read; `way` mends it where it is not its permissions that are wrong."""
    if isinstance(error, PermissionError):
        closed = path if os.access(path.parent, os.X_OK) else path.parent
        way = f"Let everybody read it: chmod a+rX {shlex.quote(str(closed))}"
    return OnnxError(f"{path} cannot be read: {error.strerror or error}. {way}")


def no_file(path: Path) -> str | None:
    """What lies at `path` in the place of a file; None: a file, or nothing."""
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir() raises where a name is too long for any file
        return "is a folder"
    return "is no file" if os.path.exists(path) and not os.path.isfile(path) else None  # noqa: PTH110, PTH113
