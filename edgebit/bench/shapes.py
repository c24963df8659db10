"""Full-size models with random weights, made once and kept in the user's cache: `edgebit bench --shape`."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edgebit.bundle.model_format import VERSION
from edgebit.convert import convert
from edgebit.errors import BundleError
from edgebit.resources import cache_dir
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.synthesize import synthesize

_PROBE_CONTEXT = 128  # tokens: golden probes need less


def shape_model(
    shape: str,
    layout: Literal["t2", "t1"] = "t2",
    listener: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Path:
    """The model file of `shape`, one of SHAPES of edgebit.synthesize, in `layout`; made where the cache has none.

    Raises CheckpointError or BundleError where the cache cannot be written.
    """
    folder = cache_dir() / "shapes"
    path = folder / f"{shape}-{layout}-v{VERSION}.ebm"
    if not _holds(path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(f"{folder} cannot be made: {error.strerror}. Set XDG_CACHE_HOME to a folder") from error
        with tempfile.TemporaryDirectory(dir=folder, prefix="checkpoint-") as checkpoint:
            listener(f"random weights in the shape {shape}", 0, 0)
            synthesize(shape, Path(checkpoint))
            convert(
                Path(checkpoint),
                path,
                layout=layout,
                progress=lambda what, done, total: listener(f"convert {what}", done, total),
            )
    return path


def _holds(path: Path) -> bool:
    """Whether this engine takes the file and comes to its golden probes: one that was made before a change of the
    format, or of what the engine computes, is made anew, and its probes are then checked like any model's."""
    if not path.is_file():
        return False
    try:
        with Model.open(Library.load(), path) as model, Engine(model, ctx_len=_PROBE_CONTEXT) as engine:
            engine.check_probes()
    except BundleError:
        return False
    return True
