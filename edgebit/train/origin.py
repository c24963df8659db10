"""What a training has from the model it begins with: by what a resume knows that model again, and what goes along."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgebit.bundle.archive import hash_file
from edgebit.checkpoint.checkpoint import RESPONSE_SCHEMA
from edgebit.errors import SchemaError, TrainError
from edgebit.progress import Progress, unwatched
from edgebit.runtime.json_schema import schema_section


def weight_sums(files: Sequence[Path], progress: Progress = unwatched) -> tuple[str, ...]:
    """SHA-256 of each file of weights: reading them once, about as long as a training takes to load them.

    Raises TrainError where one cannot be read.
    """
    size = sum(path.stat().st_size for path in files if path.is_file())
    done = 0

    def read(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        progress("reading weights", done, size)

    with _reading_faults_named():
        return tuple(hash_file(path, read).sha256 for path in files)


def response_schema_of(folder: Path) -> dict[str, bytes]:
    """The response schema of a checkpoint as a file by its name, which goes along; nothing where it has none.

    Raises SchemaError where answers cannot be held to it, TrainError where it cannot be read.
    """
    path = folder / RESPONSE_SCHEMA
    if not path.is_file():
        return {}
    with _reading_faults_named():
        content = path.read_bytes()
    try:
        schema_section(content)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error
    return {path.name: content}


@contextmanager
def _reading_faults_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainError(f"{error.filename}: cannot be read: {error.strerror}") from error
