"""Opens a checkpoint, whatever its format."""

from pathlib import Path

from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hugging_face.checkpoint import open_hugging_face
from edgebit.checkpoint.model_file_checkpoint import is_model_file, open_model_file


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint, model file or bundle at `path`; headers are checked, weights are not read yet.

    Raises CheckpointError naming the file, and the tensor where one is at fault; BundleError for a model file's faults.
    """
    if is_model_file(path):
        return open_model_file(path)
    return open_hugging_face(path)
