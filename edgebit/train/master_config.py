"""The configuration of what can be trained on; read without PyTorch, so that a dry run can refuse the rest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebit.errors import TrainError


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a master or a float twin. Raises TrainError where it is neither, with the way out."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror}. Give the folder of a checkpoint") from error
    except ValueError as error:
        raise TrainError(f"{path}: no JSON: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != "bitnet":
        raise TrainError(
            f"{path}: model_type is not bitnet, and no other is trained on. Make a BitNet of it first: edgebit distill"
        )
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    if (kind := rope.get("rope_type", rope.get("type", "default"))) != "default":
        raise TrainError(f"{path}: RoPE of kind {kind} is not trained on. Take a model without RoPE scaling")
    if "rope_theta" not in {**rope, **config}:
        raise TrainError(f"{path}: rope_theta is missing. Write it in, as the model was trained")
    quantised = config.get("quantization_config")
    if quantised and _form(quantised) != ("autobitlinear", "online"):
        raise TrainError(
            f"{folder}: a packed checkpoint, whose ternary weights are final: nothing is left that training "
            "could move. Take the master that it was made from (bfloat16, quantization_mode online)"
        )
    return config


def _form(quantised: Mapping[str, Any]) -> tuple[Any, Any]:
    return quantised.get("linear_class"), quantised.get("quantization_mode")
