"""Service: any model in the native engine, a checkpoint as well as a model file or bundle."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgebit.bundle.archive import locate_model
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.model_file_checkpoint import is_model_file
from edgebit.convert import convert
from edgebit.progress import Progress, unwatched
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model


@contextmanager
def native_model(
    source: Path, *, template: str | None = None, hints: Hints = NO_HINTS, progress: Progress = unwatched
) -> Iterator[Model]:
    """`source` opened; of a checkpoint, a model file that goes away again.

    template: of a checkpoint, as edgebit.convert takes it
    """
    with tempfile.TemporaryDirectory() as made:
        path = source
        if not is_model_file(source):
            path = Path(made) / "model.ebm"
            convert(source, path, template=template, probes=False, hints=hints, progress=progress)
        place = locate_model(path)
        with Model.open(Library.load(), place.path, offset=place.offset, size=place.size) as model:
            yield model
