"""Where an export goes: what is there already is not lost by chance."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgebit.errors import ExportError


def check_out_file(out: Path, *, force: bool) -> None:
    """Raise ExportError where the file `out` cannot be made, or is there already and `force` is not given."""
    if out.is_dir():
        raise ExportError(f"{out} is a folder. Give a file name: --out {out / 'NAME.gguf'}")
    if out.exists() and not out.is_file():
        raise ExportError(f"{out} is no plain file, and would be replaced by one. Give another --out")
    if out.exists() and not force:
        raise ExportError(f"{out} is there already. Give another --out, or --force to replace it")
    if not out.parent.is_dir():
        raise ExportError(f"the folder {out.parent} is not there. Make it: mkdir -p {out.parent}")


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
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    except OSError as error:
        raise ExportError(f"{part}: cannot be written: {error.strerror}") from error
    try:
        yield part
        if out.exists():
            out.rename(old)
        part.rename(out)
    except OSError as error:
        raise ExportError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(old, ignore_errors=True)
