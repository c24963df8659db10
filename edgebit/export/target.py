"""The folder that an export goes to: what is there already is not lost by chance."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgebit.bundle.part_file import faults_named
from edgebit.bundle.work_folder import leftovers, work_folder
from edgebit.errors import ExportError
from edgebit.export.exchange import ending_signals_wait, exchange
from edgebit.export.record import RECORD_NAME, difference, write_record

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
)
_MADE, _BEFORE = "made", "before"  # in a work folder: what is written, and what it takes the place of


def check_out_folder(out: Path, *, force: bool, inputs: Iterable[Path]) -> None:
    """Raise ExportError where the folder `out` cannot be made or may not be replaced.

    `force` replaces what an export has written and nobody has changed or put anything to; inputs: the files that are
    read, none of which may lie in `out`, by whatever name. What a killed export took away from `out` is put back first.
    """
    if not out.absolute().parent.is_dir():
        raise ExportError(f"the folder {out.absolute().parent} is not there. Make it: mkdir -p {out.absolute().parent}")
    with faults_named(out, ExportError):
        _put_back(out)
        if not out.exists() and not out.is_symlink():
            return
        for each in inputs:
            place = each.resolve()
            if any(folder.exists() and folder.samefile(out) for folder in (place, *place.parents)):
                raise ExportError(f"{each} is what is read, and would be lost: it lies in {out}. Give another --out")
    _check_replaceable(out, force=force)


def _check_replaceable(out: Path, *, force: bool) -> None:
    if not out.is_dir() or out.is_symlink():
        raise ExportError(f"{out} is there already, and no folder. Give another --out")
    with faults_named(out, ExportError):
        if not any(out.iterdir()):
            return
        why = difference(out)
    if why is not None:
        raise ExportError(
            f"{out} is no folder that edgebit alone wrote: {why}. Give another --out, or delete the folder"
        )
    if not force:
        raise ExportError(f"{out} is there already. Give another --out, or --force to replace it")


@contextmanager
def replace_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """A folder to write to, which becomes `out` at the end, and goes away with any error.

    Raises ExportError where it cannot be written, or `out` has become what check_out_folder() refuses.
    """
    with ExitStack() as signals, ExitStack() as stack:
        with faults_named(out, ExportError):
            work = stack.enter_context(work_folder(out, is_kept=_holds_an_export))
            made = work / _MADE
            made.mkdir()
        yield made
        with faults_named(out, ExportError):
            write_record(made)
            _bring_to_disk(made)
        signals.enter_context(ending_signals_wait())  # until the work folder is gone too
        if os.path.lexists(out):
            _check_replaceable(out, force=force)
        with faults_named(out, ExportError):
            _put_in_place(made, out, work / _BEFORE)
        with suppress(OSError):  # it is in place
            _sync(out.parent)


def _put_in_place(made: Path, out: Path, before: Path) -> None:
    if not out.exists():
        made.rename(out)
        return
    if exchange(made, out):
        return
    out.rename(before)
    try:
        made.rename(out)
    except OSError:
        before.rename(out)
        raise


def _put_back(out: Path) -> None:
    """Where an export was killed between the two renames, what it was to replace is `out` again."""
    for leftover in leftovers(out):
        if (leftover / _BEFORE).is_dir() and not os.path.lexists(out):
            (leftover / _BEFORE).rename(out)


def _holds_an_export(work: Path) -> bool:
    """Whether a work folder has one that is whole."""
    return any((work / name / RECORD_NAME).exists() for name in (_MADE, _BEFORE))


def _bring_to_disk(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
