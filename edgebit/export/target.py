"""The folder that an export goes to: what is there already is not lost by chance."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgebit.bundle.part_file import faults_named
from edgebit.errors import ExportError


def check_out_folder(out: Path, *, force: bool) -> None:
    """Raise ExportError where the folder `out` cannot be made or may not be replaced: `force` replaces a model."""
    if not out.absolute().parent.is_dir():
        raise ExportError(f"the folder {out.absolute().parent} is not there. Make it: mkdir -p {out.absolute().parent}")
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
    """A folder beside `out` to write to, which becomes `out` at the end, and goes away with any error."""
    part, old = out.with_name(out.name + ".part"), out.with_name(out.name + ".old")
    shutil.rmtree(part, ignore_errors=True)
    with faults_named(part, ExportError):
        part.mkdir()
    try:
        yield part
        with faults_named(out, ExportError):
            if out.exists():
                out.rename(old)
            part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(old, ignore_errors=True)
