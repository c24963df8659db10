"""What is exported: a model file, bundle or checkpoint, and where its head comes from."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hints import Hints
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.errors import ExportError


@dataclass(frozen=True, slots=True)
class Source:
    """An open model to export."""

    checkpoint: Checkpoint
    head: Checkpoint  # where the head's rows are read from
    notes: tuple[str, ...]  # what is not as it was trained


@contextlib.contextmanager
def open_source(path: Path, head_from: Path | None, hints: Hints) -> Iterator[Source]:
    """Open `path`, with `hints` of what its files do not say, and, for the head alone, `head_from`.

    Raises ExportError where the two are no form of one model, and what open_checkpoint() raises.
    """
    with contextlib.closing(open_checkpoint(path, hints)) as checkpoint:
        if head_from is None:
            yield Source(checkpoint, checkpoint, tuple(checkpoint.notes))
            return
        with contextlib.closing(open_checkpoint(head_from)) as head:
            ours, theirs = checkpoint.config.conf, head.config.conf
            for key in ("vocab_size", "hidden_size", "n_layers", "ffn_size", "head_tied"):
                if getattr(ours, key) != getattr(theirs, key):
                    raise ExportError(
                        f"{head_from} is not what {path} was made from: {key} is {getattr(theirs, key)} there, "
                        f"{getattr(ours, key)} here"
                    )
            if ours.head_tied:
                raise ExportError(f"{path} has no head of its own: leave --head-from out")
            yield Source(checkpoint, head, tuple(note for note in checkpoint.notes if "its head" not in note))
