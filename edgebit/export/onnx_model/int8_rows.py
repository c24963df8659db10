"""The head, or the embedding, as int8 rows: those of a model file, or made as `edgebit convert` makes them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.model_file_checkpoint import ModelFileCheckpoint
from edgebit.ternary.absmean import row_int8


def has_int8_rows(checkpoint: Checkpoint, role: Role) -> bool:
    """Whether that is all the checkpoint has."""
    return isinstance(checkpoint, ModelFileCheckpoint) and checkpoint.stored_int8_rows(role) is not None


def int8_rows(checkpoint: Checkpoint, role: Role) -> Iterator[tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """Codes, [rows, columns], and scales, [rows], a piece at a time: the same numbers that the engine computes with."""
    if isinstance(checkpoint, ModelFileCheckpoint):
        stored = checkpoint.stored_int8_rows(role)
        if stored is not None:
            yield from stored
            return
    for _, values in checkpoint.rows(role):
        yield row_int8(values)
