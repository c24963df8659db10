"""`edgebit tokenize`: text to token ids and back, for scripts."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from edgebit.bundle.archive import locate_model, looks_like_bundle
from edgebit.checkpoint.hints import Hints, PreTokenizerName
from edgebit.checkpoint.opening import find_gguf, open_checkpoint
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, read_tokenizer
from edgebit.cli.checkpoint_options import pre_tokenizer_option
from edgebit.errors import EdgebitError
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Ids as a JSON list instead of numbers with spaces.")
@click.option("--bos", is_flag=True, help="Put the model's begin-of-text token first.")
@click.option("--special", is_flag=True, help="Names of special tokens in the text become those tokens.")
@click.option("--decode", is_flag=True, help="The other way: ids on standard input, their bytes on standard output.")
@pre_tokenizer_option
def command(
    path: Path, as_json: bool, bos: bool, special: bool, decode: bool, pre_tokenizer: PreTokenizerName | None
) -> None:
    """Token ids of the text on standard input, which may be any bytes.

    MODEL is a model file, a bundle, a checkpoint's folder or GGUF file, a tokenizer.json or a tokenizer.model.

    \b
    edgebit tokenize chat.bundle < text.txt
    echo -n "Hello world" | edgebit tokenize chat.bundle
    echo "9906 1917" | edgebit tokenize chat.bundle --decode
    """
    if decode and (as_json or bos or special):
        raise click.UsageError("--decode goes with none of --json, --bos and --special")
    with _opened(path, pre_tokenizer) as (tokenizer, bos_token):
        given = sys.stdin.buffer.read()
        if decode:
            sys.stdout.buffer.write(tokenizer.decode(_read_ids(given), skip_special=False))
            return
        if bos and bos_token is None:
            raise EdgebitError(f"{path}: this model has no begin-of-text token, so leave --bos out")
        ids = tokenizer.encode(given, parse_special=special)
        if bos and bos_token is not None:
            ids = [bos_token, *ids]
        click.echo(json.dumps(ids) if as_json else " ".join(map(str, ids)))


def _read_ids(given: bytes) -> list[int]:
    """Ids with white space between, or as a JSON list."""
    try:
        text = given.decode("ascii").strip()
        ids = json.loads(text) if text.startswith("[") else [int(word) for word in text.split()]
    except (ValueError, RecursionError) as error:
        raise EdgebitError(f"standard input: token ids are needed, such as 1 2 3 or [1, 2, 3]: {error}") from error
    if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 1 << 31 for i in ids):
        raise EdgebitError("standard input: token ids are whole numbers from 0 on")
    return list(ids)


@contextmanager
def _opened(path: Path, pre_tokenizer: PreTokenizerName | None) -> Iterator[tuple[Tokenizer, int | None]]:
    """The tokenizer that lies at `path`, and the begin-of-text token."""
    library = Library.load()
    read = _read(path, pre_tokenizer)
    if read is not None:
        with Tokenizer.from_section(library, read.section()) as tokenizer:
            yield tokenizer, read.bos_token
        return
    place = locate_model(path)
    with (
        Model.open(library, place.path, offset=place.offset, size=place.size) as model,
        Tokenizer.from_model(model) as tokenizer,
    ):
        yield tokenizer, model.info.bos_token


def _read(path: Path, pre_tokenizer: PreTokenizerName | None) -> CheckpointTokenizer | None:
    """The tokenizer of a checkpoint, or in a file of its own; None where `path` is a model file or bundle."""
    if find_gguf(path) is not None:
        any_dialect = Hints(i2s_dialect="x86", pre_tokenizer=pre_tokenizer)  # no weights are read
        with closing(open_checkpoint(path, any_dialect)) as checkpoint:
            tokenizer = checkpoint.tokenizer()
        if tokenizer is None:
            raise EdgebitError(f"{path} has no tokenizer: it works with token ids only")
        return tokenizer
    if pre_tokenizer is not None:
        raise EdgebitError(f"{path} is no GGUF file, and --pre-tokenizer goes with one alone. Leave it out")
    is_checkpoint = path.is_dir() and not looks_like_bundle(path)
    return read_tokenizer(path) if is_checkpoint or path.suffix in (".json", ".model") else None
