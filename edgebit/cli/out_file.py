"""The name of a file that a command writes, and the option to replace one that is there."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from edgebit.bundle.part_file import check_place
from edgebit.errors import OutputError


class _OutFile(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`value` as a path; a usage error where it ends as a folder's name does, which a Path does not tell."""
        if os.fspath(value).endswith(os.sep):
            self.fail(f"{value} is the name of a folder. Give the file's: {value}NAME", param, ctx)
        return super().convert(value, param, ctx)


OUT_FILE = _OutFile(path_type=Path)
force_option = click.option("--force", is_flag=True, help="Replace a file that is there.")


def check_out_file(out: Path, *, force: bool, example: str, inputs: Iterable[Path], option: str = "--out") -> None:
    """check_place() for a command without an error of its own for it."""
    check_place(out, OutputError, force=force, example=example, inputs=inputs, option=option)


def named_files(*files: Any) -> list[Path]:
    """The paths of files that click has opened; of standard input and of None there is none."""
    return [Path(file.name) for file in files if file is not None and isinstance(file.name, str)]
