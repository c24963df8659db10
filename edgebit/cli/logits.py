"""`edgebit logits`: the logits of given token ids, for scripts that compare engines."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
import numpy as np

from edgebit.bundle.archive import Member, locate_model, looks_like_bundle
from edgebit.bundle.part_file import PartFile
from edgebit.checkpoint.hints import HINT_OPTIONS, NO_HINTS, Hints
from edgebit.checkpoint.opening import find_gguf, model_files
from edgebit.cli.checkpoint_options import checkpoint_options
from edgebit.cli.out_file import OUT_FILE, check_out_file, force_option, named_files
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.token_ids import read_token_ids
from edgebit.convert import convert
from edgebit.errors import EdgebitError, OutputError
from edgebit.progress import Progress
from edgebit.runtime.cores import default_threads
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model

_CHUNK_TOKENS = 64  # tokens whose logits are in memory at once


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--ids-file",
    required=True,
    type=click.File("rb"),
    help="A JSON list of token ids; - is standard input.",
)
@click.option("--out", required=True, type=OUT_FILE, help="The .npy file to write.")
@click.option("--last", is_flag=True, help="Write the last position only, shape [1, vocabulary].")
@click.option("--threads", type=click.IntRange(1, 1024), help="Worker threads.  [default: one for each big core]")
@checkpoint_options
@force_option
def command(
    path: Path, ids_file: BinaryIO, out: Path, last: bool, threads: int | None, hints: Hints, force: bool
) -> None:
    """Write the logits of all positions, float32 [tokens, vocabulary], of MODEL: a model file, bundle or checkpoint.

    \b
    echo '[128000, 791, 13180]' > ids.json
    edgebit logits chat.bundle --ids-file ids.json --out logits.npy
    """
    check_out_file(out, force=force, example="NAME.npy", inputs=[*model_files(path, hints), *named_files(ids_file)])
    ids = read_token_ids(ids_file)
    with (
        progress_bar() as progress,
        _located(path, hints, progress) as place,
        Model.open(Library.load(), place.path, offset=place.offset, size=place.size) as model,
    ):
        vocab_size = model.info.vocab_size
        for token in ids:
            if not 0 <= token < vocab_size:
                raise EdgebitError(f"{ids_file.name}: id {token} is outside the vocabulary of {vocab_size}")
        if len(ids) > model.info.context_max:
            raise EdgebitError(f"{ids_file.name}: {len(ids)} ids, and the model's context has {model.info.context_max}")
        rows = 1 if last else min(len(ids), _CHUNK_TOKENS)
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 if last else len(ids), vocab_size)}
        with (
            Engine(model, ctx_len=len(ids), threads=threads or default_threads(), logits_rows=rows) as engine,
            PartFile(out, OutputError) as file,
        ):
            with file.faults():
                np.lib.format.write_array_header_1_0(file.file, header)
            _write_logits(engine, ids, file, last, progress)
            file.commit()


def _write_logits(engine: Engine, ids: list[int], file: PartFile, last: bool, progress: Progress) -> None:
    for first in range(0, len(ids), _CHUNK_TOKENS):
        progress("tokens", first, len(ids))
        chunk = ids[first : first + _CHUNK_TOKENS]
        is_end = first + len(chunk) == len(ids)
        wanted = [not last or (is_end and i == len(chunk) - 1) for i in range(len(chunk))]
        engine.eval_batch(chunk, [0] * len(chunk), wanted)
        for row in range(sum(wanted)):
            file.write(engine.logits(row).cast("B"))


@contextmanager
def _located(path: Path, hints: Hints, progress: Progress) -> Iterator[Member]:
    """Where the model lies; a checkpoint is converted to a file that lasts as long as the block."""
    if find_gguf(path) is not None or (path.is_dir() and not looks_like_bundle(path)):
        with tempfile.TemporaryDirectory(prefix="edgebit-") as folder:
            model = Path(folder) / "model.ebm"
            convert(path, model, hints=hints, probes=False, progress=progress)
            yield Member(model, 0, model.stat().st_size)
    elif hints != NO_HINTS:
        raise EdgebitError(f"{path} is no GGUF file, and {HINT_OPTIONS} go with one alone. Leave them out")
    else:
        yield locate_model(path)
