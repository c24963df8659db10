"""The licence of a checkpoint, as far as its folder says it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebit.errors import CheckpointError

# Words that stand in the first lines of a licence file, and the SPDX name.
_MARKS = (
    ("apache license", "apache-2.0"),
    ("mit license", "mit"),
    ("permission is hereby granted, free of charge", "mit"),
    ("llama 3.1 community license", "llama3.1"),
    ("llama 3.2 community license", "llama3.2"),
    ("meta llama 3 community license", "llama3"),
    ("falcon llm license", "falcon-llm-license"),
    ("cc-by-4.0", "cc-by-4.0"),
    ("attribution 4.0 international", "cc-by-4.0"),
)
_READ_BYTES = 4096


def find_licence(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The licence's short name, lower-case: from README.md's front matter, config.json's license, or a LICENSE file.

    None where nothing is said; "other" where a licence file is of a kind that is not known. Raises CheckpointError
    where such a file is there and cannot be read.
    """
    readme = folder / "README.md"
    if readme.is_file():
        text = _head(readme)
        front = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
        named = re.search(r"^license:[ \t]*[\"']?([\w.+-]+)", front.group(1), re.MULTILINE) if front else None
        if named:
            return named.group(1).lower()
    if isinstance(config.get("license"), str) and config["license"].strip():
        return str(config["license"]).strip().lower()
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"):
        if (folder / name).is_file():
            text = " ".join(_head(folder / name).lower().split())
            return next((licence for mark, licence in _MARKS if mark in text), "other")
    return None


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_READ_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}. Its licence may stand there") from error
