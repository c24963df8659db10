"""The folder that an export goes to: what is there already is not lost by chance."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgebit.bundle.part_file import faults_named
from edgebit.bundle.work_folder import work_folder
from edgebit.errors import ExportError


def check_out_folder(out: Path, *, force: bool) -> None:
    """Raise ExportError where the folder `out` cannot be made or may not be replaced: `force` replaces a model."""
    if not out.absolute().parent.is_dir():
        raise ExportError(f"the folder {out.absolute().parent} is not there. Make it: mkdir -p {out.absolute().parent}")
    with faults_named(out, ExportError):
        if not out.exists() and not out.is_symlink():
            return
    if not out.is_dir() or out.is_symlink():
        raise ExportError(f"{out} is there already, and no folder. Give another --out")
    inside = list(out.iterdir())
    if not inside:
        return
    if not force:
        raise ExportError(f"{out} is there already. Give another --out, or --force to replace it")
    if not (out / "config.json").is_file() or any(not path.is_file() for path in inside):
        raise ExportError(f"{out} holds more than a model, and --force would remove it. Give another --out")


@contextmanager
def replace_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `out` at the end, and goes away with any error."""
    with ExitStack() as stack:
        with faults_named(out, ExportError):
            work = stack.enter_context(work_folder(out))
            made, before = work / "made", work / "before"
            made.mkdir()
        yield made
        with faults_named(out, ExportError):
            _bring_to_disk(made)
            if out.exists():
                out.rename(before)
            try:
                made.rename(out)
            except BaseException:
                if before.exists():
                    before.rename(out)
                raise


def _bring_to_disk(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
