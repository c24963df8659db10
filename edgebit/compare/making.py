"""Makes of a model what an engine takes that does not run it as it is."""

import hashlib
from dataclasses import replace
from pathlib import Path

from edgebit.compare.contestant import Contestant, is_run_as_it_is
from edgebit.convert import convert
from edgebit.errors import OnnxError
from edgebit.export.to_hugging_face import export_hugging_face
from edgebit.export.to_onnx import export_onnx
from edgebit.progress import Progress
from edgebit.resources import ort_library


def make(contestant: Contestant, folder: Path, progress: Progress) -> Contestant:
    """The contestant with a model that its engine takes: its own, or one in `folder`, made unless it is there already.

    Raises EdgebitError where it cannot be made.
    """
    if is_run_as_it_is(contestant.path, contestant.engine):
        return contestant
    source = contestant.path.resolve()
    place = hashlib.sha256(bytes(source)).hexdigest()[:16]  # two models may have the same name
    out = folder / f"{source.name}-{place}-{contestant.engine}"
    if not out.exists():
        if contestant.engine == "native":
            convert(contestant.path, out, progress=progress)
        elif contestant.engine == "onnx":
            export_onnx(contestant.path, out, library=_own_library(), progress=progress)
        else:
            export_hugging_face(contestant.path, out, progress=progress)
    return replace(contestant, path=out)


def _own_library() -> Path | None:
    """This machine's operators; None where they are not built, which the engine then says of its fallback."""
    try:
        return ort_library()
    except OnnxError:
        return None
