"""The folder that an export goes to: what is there already is not lost by chance."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgebit.bundle.other_kinds import GRAPH_NAME
from edgebit.bundle.part_file import check_no_input, faults_named
from edgebit.bundle.work_folder import work_folder
from edgebit.errors import ExportError
from edgebit.export.model_card import has_our_card
from edgebit.resources import ORT_SONAME

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
)
_FILES = {  # that an export has
    *TOKENIZER_FILES,
    *("model.safetensors", "config.json", "generation_config.json", "README.md"),
    *(GRAPH_NAME, f"{GRAPH_NAME}.data", ORT_SONAME, "genai_config.json", "edgebit.tokn", "edgebit.prmt"),
}


def check_out_folder(out: Path, *, force: bool, inputs: Iterable[Path]) -> None:
    """Raise ExportError where the folder `out` cannot be made or may not be replaced.

    `force` replaces what an export has written and nobody has put anything to, but none of `inputs`, which are read.
    """
    if not out.absolute().parent.is_dir():
        raise ExportError(f"the folder {out.absolute().parent} is not there. Make it: mkdir -p {out.absolute().parent}")
    with faults_named(out, ExportError):
        if not out.exists() and not out.is_symlink():
            return
    if not out.is_dir() or out.is_symlink():
        raise ExportError(f"{out} is there already, and no folder. Give another --out")
    check_no_input(out, ExportError, inputs)
    inside = list(out.iterdir())
    if not inside:
        return
    foreign = sorted(path.name for path in inside if path.name not in _FILES or not path.is_file())
    if foreign or not has_our_card(out):
        why = f"{foreign[0]} is of another" if foreign else "no README.md says that it did"
        raise ExportError(f"{out} is no folder that edgebit export alone wrote: {why}. Give another --out")
    if not force:
        raise ExportError(f"{out} is there already. Give another --out, or --force to replace it")


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
