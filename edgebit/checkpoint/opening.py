"""Opens a checkpoint, whatever its format."""

from pathlib import Path

from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hugging_face.checkpoint import open_hugging_face


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint at `path`; headers are checked, weights are not read yet.

    Raises CheckpointError naming the file, and the tensor where one is at fault.
    """
    return open_hugging_face(path)
