"""What model.onnx says of itself: keys that begin with `edgebit.`, all texts."""

import json
from typing import Any

from edgebit import __version__
from edgebit.bundle.archive import hash_file
from edgebit.bundle.model_format import Conf
from edgebit.checkpoint.checkpoint import Checkpoint


def source_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """SHA-256 of each file that weights come from, by its name."""
    return {path.name: hash_file(path).sha256 for path in checkpoint.weight_files()}


def metadata(checkpoint: Checkpoint, conf: Conf, *, hashes: dict[str, str], chosen: dict[str, str]) -> dict[str, str]:
    """All keys and their values.

    conf: with the tokenizer's own begin-of-text and stop tokens; chosen: how the graph was written
    """
    config = checkpoint.config
    values: dict[str, Any] = {
        "version": __version__,
        "source": config.name,
        "source_sha256": json.dumps(hashes),
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
        "vocab_size": conf.vocab_size,
        "context_max": conf.context_max,
        "bos_token": conf.bos_token,
        "stop_tokens": list(conf.stop_tokens),
        "generation": generation,
    }
