"""All that a training needs to go on at the exact step, in files of which the last two are kept.

A file is one line that says what it is, the SHA-256 of the rest, and the rest, as torch.save() writes it.
"""

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from edgebit.bundle.part_file import PartFile
from edgebit.errors import TrainError

FOLDER = "training-state"
_MAGIC = b"edgebit training state 1\n"
_KEPT = 2
_NAME = re.compile(r"step-(\d{8,})\.state")


def write_state(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write what was reached after `step` steps, and keep the one before. Raises TrainError, as on a full disk."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    data = content.getbuffer()
    path = folder / f"step-{step:08d}.state"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{folder}: cannot be made: {error.strerror}") from error
    with PartFile(path, TrainError) as part:
        part.write(_MAGIC + hashlib.sha256(data).digest())
        part.write(data)
        part.commit()
    for old in states(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def states(folder: Path) -> list[Path]:
    """The states there are, the oldest first."""
    found = [path for path in folder.glob("step-*.state") if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")))


def newest_state(folder: Path, note: Callable[[str], None]) -> dict[str, Any] | None:
    """The last state that is whole; None: there is none at all. A damaged one is noted, and the one before it taken.

    Raises TrainError where all are damaged.
    """
    found = states(folder)
    for path in reversed(found):
        try:
            return _read(path)
        except TrainError as error:
            note(str(error))
    if found:
        raise TrainError(f"{folder}: every training state is damaged. Begin anew: delete {folder}")
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror}") from error
    start = len(_MAGIC) + hashlib.sha256().digest_size
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
        raise TrainError(f"{path}: the training state is damaged, and left out")
    loaded = torch.load(io.BytesIO(data[start:]), weights_only=True, map_location="cpu")
    assert isinstance(loaded, dict)
    return loaded
