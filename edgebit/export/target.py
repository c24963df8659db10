"""Where an export goes: what is there already is not lost by chance."""

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
