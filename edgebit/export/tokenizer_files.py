"""The tokenizer of an exported folder, as transformers and others read it."""

import json
import shutil
from pathlib import Path
from typing import Any

from edgebit.bundle.part_file import faults_named
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.errors import ExportError
from edgebit.export.target import TOKENIZER_FILES
from edgebit.export.tokenizer_json import tokenizer_config_json, tokenizer_json


def write_tokenizer(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """tokenizer.json and tokenizer_config.json; of a Hugging Face folder, its own files. Notes for the user."""
    own = [name for name in TOKENIZER_FILES if (checkpoint.path / name).is_file()]
    if checkpoint.path.is_dir() and "tokenizer.json" in own:
        for name in own:
            with faults_named(folder / name, ExportError):
                shutil.copyfile(checkpoint.path / name, folder / name)
        return []
    tokenizer = checkpoint.tokenizer()
    if tokenizer is None:
        return ["there is no tokenizer: the model takes token ids only"]
    write_tokenizer_files(folder, tokenizer, checkpoint.config.conf.context_max)
    return []


def write_tokenizer_files(folder: Path, tokenizer: CheckpointTokenizer, context_max: int) -> None:
    """tokenizer.json and tokenizer_config.json, from what a model file or GGUF kept."""
    write_json(folder / "tokenizer.json", tokenizer_json(tokenizer), indent=None)
    write_json(folder / "tokenizer_config.json", tokenizer_config_json(tokenizer, context_max))


def write_json(path: Path, value: dict[str, Any], indent: int | None = 2) -> None:
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    with faults_named(path, ExportError):
        path.write_text(text, encoding="utf-8")
