"""Opens a checkpoint, whatever its format."""

from contextlib import closing
from pathlib import Path

from edgebit.bundle.archive import looks_like_bundle
from edgebit.bundle.model_format import Role
from edgebit.bundle.other_kinds import refuse_exported
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.gguf_file.checkpoint import open_gguf
from edgebit.checkpoint.gguf_file.container import GGUF_MAGIC
from edgebit.checkpoint.gguf_file.split import first_parts, part_paths
from edgebit.checkpoint.hints import HINT_OPTIONS, NO_HINTS, Hints
from edgebit.checkpoint.hugging_face.checkpoint import open_hugging_face
from edgebit.checkpoint.hugging_face.families import FLOAT_FAMILIES
from edgebit.checkpoint.model_file_checkpoint import is_model_file, open_model_file
from edgebit.checkpoint.untrained import UNTRAINED_NOTE
from edgebit.errors import CheckpointError

_SUFFIXES = {".json", ".jinja", ".model", ".txt", ".safetensors", ".bin", ".pt", ".pth"}  # of a checkpoint's files


def open_checkpoint(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """Open the checkpoint at `path`: a GGUF file, a folder with one, a Hugging Face checkpoint's folder, a model file
    or a bundle.

    Headers are checked, weights are not read yet; but a model file's are, for their sum: damaged ones would get a new
    sum in what is made of them. Raises CheckpointError naming the file, and the tensor where one is at fault, or the
    hint that does not go with this checkpoint; BundleError for a model file's faults.
    """
    return _checked(_open(path, hints))


def open_float_model(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """Open a Hugging Face checkpoint in floating point as if its weights were a master's: rounded when they are read.

    Its notes say so. Raises CheckpointError as open_checkpoint() does, and where the model is ternary already.
    """
    if hints != NO_HINTS:
        raise CheckpointError(f"{path}: {HINT_OPTIONS} go with a GGUF file alone. Leave them out")
    if find_gguf(path) is not None or is_model_file(path):
        raise CheckpointError(f"{path}: a float model is read from a Hugging Face checkpoint's folder, no other format")
    if _is_ternary(path):
        raise CheckpointError(f"{path}: the model is ternary already, not in floating point. Convert it as it is")
    checkpoint = _checked(open_hugging_face(path, FLOAT_FAMILIES))
    checkpoint.notes.append(UNTRAINED_NOTE)
    return checkpoint


def _is_ternary(path: Path) -> bool:
    """Whether the folder holds what open_checkpoint() takes, as far as config.json and one tensor show."""
    try:
        checkpoint = open_hugging_face(path)
    except CheckpointError:
        return False
    with closing(checkpoint):
        try:
            checkpoint.scaling(Role.Q_PROJ, 0)
        except CheckpointError:
            return False
    return True


def _open(path: Path, hints: Hints) -> Checkpoint:
    gguf = find_gguf(path)
    if gguf is not None:
        return open_gguf(gguf, hints)
    if hints != NO_HINTS:
        raise CheckpointError(f"{path}: {HINT_OPTIONS} go with a GGUF file alone. Leave them out")
    if is_model_file(path):
        return open_model_file(path, verify=True)
    refuse_exported(path, CheckpointError)
    return open_hugging_face(path)


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    """The same. Raises CheckpointError, and closes it, where RoPE turns by more than a model file can say."""
    wrong = [value for value in checkpoint.config.rope_inv_freq.tolist() if not 0 <= value <= 1]
    if wrong:
        checkpoint.close()
        raise CheckpointError(
            f"{checkpoint.path}: RoPE turns a pair of elements by {wrong[0]:g} a position; 0 to 1 are possible. "
            "Look at its base, its factors and its scaling"
        )
    return checkpoint


def model_files(path: Path, hints: Hints = NO_HINTS) -> list[Path]:
    """The files that the model at `path` is read from, of whatever format, and those that `hints` name: no output may
    replace one.
    """
    if hints.i2s_reference is not None:
        return [*model_files(path), *model_files(hints.i2s_reference)]
    if not path.is_dir():
        return part_paths(path)
    if looks_like_bundle(path):
        return [file for file in path.rglob("*") if file.is_file()]
    suffixes = _SUFFIXES if (path / "config.json").is_file() else {*_SUFFIXES, ".gguf"}
    return [file for file in path.iterdir() if file.suffix.lower() in suffixes]


def is_gguf(path: Path) -> bool:
    """Whether the file begins as a GGUF file does. Raises CheckpointError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def find_gguf(path: Path) -> Path | None:
    """The GGUF file at `path`, or the only one (the first part of the only one) in the folder `path` without a
    config.json; None: there is none. Raises CheckpointError where there are several, or the folder cannot be
    read.
    """
    if path.is_file():
        return path if path.suffix.lower() == ".gguf" or is_gguf(path) else None
    try:
        found = [] if not path.is_dir() or (path / "config.json").is_file() else first_parts(path)
    except OSError as error:
        raise CheckpointError(f"{path}: the folder cannot be read: {error.strerror}") from error
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise CheckpointError(f"{path}: there are {len(found)} GGUF files: {names}. Name the one to read")
    return found[0] if found else None
