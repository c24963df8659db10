"""A reference checkpoint with another RoPE."""

import json
import shutil
from pathlib import Path
from typing import Any


def with_rope(source: Path, rope: dict[str, Any], folder: Path) -> Path:
    """A copy of the folder `source` whose config.json says `rope_scaling`: another model with the same weights."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": rope}))
    return folder
