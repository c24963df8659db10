"""Floats out of ggml's quantised types, by the gguf package: what an embedding or a head may be stored as."""

from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from edgebit.errors import CheckpointError


def dequantise(rows: NDArray[np.uint8], type_name: str, where: str) -> NDArray[np.float32]:
    """[rows, row bytes] of a type that the gguf package knows, to float32, [rows, columns].

    Raises CheckpointError where that package is not installed or does not know the type; `where` names the tensor.
    """
    try:
        package = import_module("gguf")
    except ImportError as error:
        raise CheckpointError(
            f"{where} is of type {type_name}, which the gguf package reads. Install it: pip install 'edgebit[gguf]'"
        ) from error
    try:
        values = package.quants.dequantize(rows, package.GGMLQuantizationType[type_name])
    except (NotImplementedError, KeyError) as error:
        raise CheckpointError(f"{where} is of type {type_name}, which this gguf package does not read") from error
    return np.asarray(values, np.float32)
