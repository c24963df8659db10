"""What model.onnx says of itself: keys that begin with `edgebit.`, all texts."""

import json
from pathlib import Path
from typing import Any

from edgebit import __version__
from edgebit.bundle.archive import hash_file
from edgebit.bundle.model_format import Conf
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.model_file_checkpoint import ModelFileCheckpoint


def source_sums(checkpoint: Checkpoint) -> dict[str, str]:
    """SHA-256 of each file that weights come from, by its name; of a model file, also those that it was made from."""
    made_from = checkpoint.source_sums() if isinstance(checkpoint, ModelFileCheckpoint) else {}
    return made_from | {path.name: hash_file(path).sha256 for path in checkpoint.weight_files()}


def file_sums(folder: Path, known: dict[str, str]) -> dict[str, str]:
    """SHA-256 of the files in a folder by name, as far as they are not `known`."""
    names = sorted(path.name for path in folder.iterdir())
    return {name: known.get(name) or hash_file(folder / name).sha256 for name in names}


def metadata(checkpoint: Checkpoint, conf: Conf, *, files: dict[str, str], chosen: dict[str, str]) -> dict[str, str]:
    """All keys and their values.

    conf: with the tokenizer's own begin-of-text and stop tokens, and the context that the graph has; files: SHA-256 of
    the folder's, by name; chosen: how the graph was written
    """
    config = checkpoint.config
    values: dict[str, Any] = {
        "version": __version__,
        "source": config.name,
        "source_sha256": json.dumps(source_sums(checkpoint)),
        "files_sha256": json.dumps(files),
        "licence": config.licence or "",
        "family": checkpoint.family,
        "conf": json.dumps(runner_conf(conf, config.generation)),
        **chosen,
    }
    return {f"edgebit.{key}": str(value) for key, value in values.items()}


def runner_conf(conf: Conf, generation: dict[str, float]) -> dict[str, Any]:
    """What a program that runs the graph must know."""
    return {
        "n_layers": conf.n_layers,
        "n_heads": conf.n_heads,
        "n_kv_heads": conf.n_kv_heads,
        "head_dim": conf.head_dim,
        "hidden_size": conf.hidden_size,
        "ffn_size": conf.ffn_size,
        "vocab_size": conf.vocab_size,
        "context_max": conf.context_max,
        "bos_token": conf.bos_token,
        "stop_tokens": list(conf.stop_tokens),
        "generation": generation,
    }
