"""Keys of a section that may not be just anything of their type: what they may be stands beside the default."""

import os
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any

from edgebit.daemon.config.secret_files import located


def within(least: float, most: float, default: float | None) -> Any:
    """A number from least to most; a default of None is allowed beside."""
    return field(default=default, metadata={"within": (least, most)})


def one_of(*choices: str) -> Any:
    """One of these words; the first is the default."""
    return field(default=choices[0], metadata={"choices": choices})


def file_name() -> Any:
    """The name of a file that must be there and readable, counted from the configuration's folder; empty: none.

    "credential:NAME" is one that systemd hands over.
    """
    return field(default="", metadata={"file": True})


def with_absolute_files(section: Any, folder: Path) -> dict[str, str]:
    """The section's file names that are set, counted from `folder`."""
    return {
        key.name: str(located(name) or (folder / Path(name).expanduser()).absolute())
        for key in fields(section)
        if key.metadata.get("file") and (name := getattr(section, key.name))
    }


def fault(section: Any) -> str | None:
    """What is wrong with a section's values, in words that begin with the key's name; None where all are fine."""
    return next((why for key in fields(section) if (why := _fault(key, getattr(section, key.name)))), None)


def _fault(key: "Field[Any]", value: Any) -> str | None:
    least, most = key.metadata.get("within", (None, None))
    if least is not None and value is not None and not least <= value <= most:
        return f"{key.name} is {value}, it must lie between {least} and {most}"
    choices = key.metadata.get("choices")
    if choices and value not in choices:
        quoted = [f'"{choice}"' for choice in choices]
        return f"{key.name} is {', '.join(quoted[:-1])} or {quoted[-1]}, not {value!r}"
    if key.metadata.get("file") and value and not os.access(value, os.R_OK):
        return f"{key.name}: {value} is not there or cannot be read"
    return None
