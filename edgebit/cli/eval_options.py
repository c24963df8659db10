"""What the commands of `edgebit eval` share: options, the opened model, the text, the bar, and the end of a part."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgebit.cli.generation import stop_on_interrupt
from edgebit.cli.out_file import named_files
from edgebit.cli.token_ids import read_token_ids
from edgebit.evaluate.progress import Report
from edgebit.evaluate.text import ScoredText, encode_text, take_ids
from edgebit.evaluate.windows import Windows
from edgebit.resources import evaluation_text
from edgebit.runtime.cores import default_threads
from edgebit.runtime.engine import KV_TYPES
from edgebit.runtime.memory import peak_rss_bytes
from edgebit.runtime.model import Model

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
model_argument = click.argument("path", metavar="BUNDLE", type=click.Path(exists=True, path_type=Path))

_MILLION = 1_000_000

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class TextOptions:
    """What is scored, and how it is cut."""

    text: BinaryIO | None
    token_ids: BinaryIO | None
    limit_tokens: int | None
    window: int | None
    stride: int | None
    bos: bool

    @property
    def files(self) -> list[Path]:
        """Those that are read."""
        return named_files(self.text, self.token_ids)

    @property
    def given(self) -> bool:
        """Whether any of them was."""
        return bool(self.text or self.token_ids or self.limit_tokens or self.window or self.stride or not self.bos)

    def read(self, model: Model) -> ScoredText:
        """The text as tokens of `model`; the shipped one where none is named."""
        if self.text is not None and self.token_ids is not None:
            raise click.UsageError("--text and --token-ids are two texts: give one")
        if self.token_ids is not None:
            ids, name = read_token_ids(self.token_ids), self.token_ids.name
            return take_ids(model, ids, name=name, limit=self.limit_tokens)
        if self.text is not None:
            data, name = self.text.read(), self.text.name
        else:
            shipped = evaluation_text()
            data, name = shipped.read_bytes(), shipped.name
        return encode_text(model, data, name=name, bos=self.bos, limit=self.limit_tokens)

    def windows(self, model: Model) -> Windows:
        """How it is cut for `model`."""
        return Windows.of(model, self.window, self.stride)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine is opened."""

    threads: int
    kv: str


def text_options(command: Command) -> Command:
    """Give a command the options of a text, as one TextOptions argument named `chosen`."""
    for option in reversed(
        (
            click.option("--text", type=click.File("rb"), help="UTF-8; - is standard input.  [default: a shipped one]"),
            click.option("--token-ids", type=click.File("rb"), help="Instead of a text: a JSON list of token ids."),
            click.option("--limit-tokens", type=click.IntRange(1), help="Take so many tokens of it only."),
            click.option("--window", type=click.IntRange(2), help="Tokens.  [default: the context, at most 2048]"),
            click.option("--stride", type=click.IntRange(1), help="From window to window.  [default: half a window]"),
            click.option(
                "--bos/--no-bos",
                default=True,
                help="Whether begin-of-text goes first, if the model has it.  [default: bos]",
            ),
        )
    ):
        command = option(command)
    return _gathered(command, "chosen", TextOptions, TextOptions.__slots__)


def engine_options(command: Command) -> Command:
    """Give a command the options of an engine, as one EngineOptions argument named `opened`."""
    threads = click.option(
        "--threads", type=click.IntRange(1, 1024), help="Worker threads.  [default: one for each big core]"
    )
    kv = click.option("--kv", type=click.Choice(KV_TYPES), default=KV_TYPES[0], show_default=True,
                      help="Type of the KV cache.")  # fmt: skip

    def make(threads: int | None, kv: str) -> EngineOptions:
        return EngineOptions(threads or default_threads(), kv)

    return _gathered(threads(kv(command)), "opened", make, EngineOptions.__slots__)


def _gathered(command: Command, name: str, make: Callable[..., object], names: tuple[str, ...]) -> Command:
    """`command`, called with make(...) of the arguments `names` as its argument `name`."""

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        command(**{name: make(**{each: arguments.pop(each) for each in names})}, **arguments)

    return wrapped


@contextlib.contextmanager
def watched(what: str, value_name: str, number: str = ".4f") -> Iterator[Report]:
    """A bar on standard error with the running value; its report says to end once Ctrl-C was pressed."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[value]}"))  # fmt: skip
    with (
        stop_on_interrupt() as interrupted,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task(what, total=None, value="")

        def report(done: int, total: int, value: float | None) -> bool:
            running = "" if value is None else f"{value_name} {rounded(value, number)}"
            bar.update(task, completed=done, total=total, value=running)
            return not interrupted()

        yield report


def rounded(value: float, number: str = ".4f") -> str:
    """A figure for people: in powers of ten from a million on, as a perplexity may be of a model that fits no text."""
    return f"{value:{number}}" if abs(value) < _MILLION else f"{value:.4e}"


def cost(tokens: int, seconds: float, isa: str, opened: EngineOptions) -> dict[str, Any]:
    """What an evaluation took, beside its figures; `tokens`: that the engine computed."""
    return {
        "computed_tokens": tokens,
        "seconds": round(seconds, 3),
        "tok_s": round(tokens / seconds, 2) if seconds else 0.0,
        "peak_rss_mib": round(peak_rss_bytes() / 2**20, 1),
        "isa": isa,
        "threads": opened.threads,
        "kv": opened.kv,
    }


def speed_line(figures: dict[str, Any], head: str) -> str:
    """The same for people, after `head`."""
    return (
        f"{head}{figures['tok_s']} tok/s: {figures['computed_tokens']} tokens computed in {figures['seconds']} s; "
        f"{figures['isa']}, {figures['threads']} threads, kv {figures['kv']}, peak RSS {figures['peak_rss_mib']} MiB"
    )


def end_of_part(complete: bool, done: int, total: int, what: str) -> None:
    """Say so where Ctrl-C has ended it early, and leave with its exit code."""
    if not complete:
        click.echo(f"Partial: {done} of {total} {what}; the figures are of these alone", err=True)
        raise click.Abort
