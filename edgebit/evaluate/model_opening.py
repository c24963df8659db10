"""Opens a model that is to be judged: what is said of a damaged one would be said of another model."""

from pathlib import Path

from edgebit.bundle.archive import locate_model
from edgebit.bundle.model_reader import ModelFile
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model


def open_sound_model(path: Path) -> Model:
    """The model file at `path`, or in the bundle at `path`, once the sum of its weights is checked.

    Raises BundleError naming the file where it is damaged, EngineError where the engine cannot run it.
    """
    place = locate_model(path)
    with ModelFile(place.path, place.offset, place.size) as file:
        file.verify()
    return Model.open(Library.load(), place.path, offset=place.offset, size=place.size)
