"""`edgebit bench`: what the engine does on this machine, beside its limits and other engines."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edgebit.bench.measure import BenchOptions, measure
from edgebit.bench.onnx_peer import OnnxPeer, kv_bytes_per_token, model_info
from edgebit.bench.peers import parse_peer
from edgebit.bench.plot import write_plot
from edgebit.bench.report import Report, make_report
from edgebit.bench.shapes import shape_model
from edgebit.bundle.archive import Member, locate_model
from edgebit.bundle.part_file import PartFile
from edgebit.cli.bench_tables import print_report
from edgebit.cli.terminal import printable
from edgebit.errors import OutputError, PeerError
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.runtime.cores import default_threads
from edgebit.runtime.engine import KV_TYPES
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.synthesize import SHAPES

_DEFAULT_PREFILL, _DEFAULT_CONTEXTS = (128, 512), (0, 2048)
_MOST = 1 << 20


class Numbers(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic in some versions of click only
    """Whole numbers with commas between them, "1,2,4", as a tuple in order and without repetitions."""

    name = "N,N,..."

    def __init__(self, least: int, most: int = _MOST) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """`value` as numbers; a usage error where one is none or out of range."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(dict.fromkeys(int(word) for word in value.split(",")))
        except ValueError:
            self.fail(f"{value!r}: whole numbers with commas between them are needed, such as 1,2,4", param, ctx)
        for number in numbers:
            if not self._least <= number <= self._most:
                self.fail(f"{number} is not from {self._least} to {self._most}", param, ctx)
        return numbers


@click.command()
@click.argument("model", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--shape", type=click.Choice(list(SHAPES)), help="Random weights in this shape instead of MODEL.")
@click.option("--layout", type=click.Choice(["t2", "t1"]), help="Of --shape's weights.  [default: t2]")
@click.option("--threads", type=Numbers(1, 256), help="Worker threads.  [default: one, and one for each big core]")
@click.option("--prefill", type=Numbers(1), help="Prompt lengths.  [default: 128,512]")
@click.option("--decode", "decode_tokens", type=click.IntRange(1, _MOST), default=32, show_default=True,
              help="Tokens of each decode test.")  # fmt: skip
@click.option("--context", "contexts", type=Numbers(0), help="Tokens before the decoded ones.  [default: 0,2048]")
@click.option(
    "--sequences", type=Numbers(1, 256), help="Also decode so many sequences in one pass, such as 1,2,4,8,16."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Repetitions of everything.")
@click.option("--kv", type=click.Choice(KV_TYPES), default=KV_TYPES[0], show_default=True, help="Type of the KV cache.")
@click.option("--isa", help="The highest instruction set that may be used, such as scalar or avx2.")
@click.option("--against", multiple=True, metavar="NAME=COMMAND",
              help="A llama-bench to measure beside it. May be given several times.")  # fmt: skip
@click.option("--engine", type=click.Choice(["native", "onnx"]), default="native", show_default=True,
              help="onnx: MODEL is a folder of `edgebit export onnx`, and ONNX Runtime runs it.")  # fmt: skip
@click.option("--beside", type=click.Path(exists=True, path_type=Path),
              help="onnx: also measure our own engine, with this bundle or model file.")  # fmt: skip
@click.option("--library", metavar="FILE", help="onnx: the library of operators, or none.  "
              "[default: $EDGEBIT_ORT_LIBRARY, then the folder's own]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/schemas/bench.json).")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write that object to a file.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the figures: FILE.svg.")
def command(
    model: Path | None,
    shape: str | None,
    layout: Literal["t2", "t1"] | None,
    threads: tuple[int, ...] | None,
    prefill: tuple[int, ...] | None,
    decode_tokens: int,
    contexts: tuple[int, ...] | None,
    sequences: tuple[int, ...] | None,
    rounds: int,
    kv: str,
    isa: str | None,
    against: tuple[str, ...],
    engine: str,
    beside: Path | None,
    library: str | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
) -> None:
    """Measure MODEL, a bundle or model file, on this machine: speeds, start, memory, shares of the machine's limits.

    Figures are medians over rounds, with the least and the most in brackets. Each round measures the machine's limits,
    edgebit and every peer one after the other, kept to as many cores as there are threads.

    \b
    edgebit bench chat.bundle --threads 1,2
    edgebit bench --shape 2b4t --sequences 1,2,4,8,16 --plot bench.svg
    edgebit bench --shape 2b4t --against 'llamacpp=/opt/llama-bench -m 2b4t-tq2_0.gguf'
    edgebit bench --engine onnx ./chat-onnx --beside chat.bundle --threads 1,2
    """
    if (model is None) == (shape is None):
        raise click.UsageError("give either MODEL or --shape")
    if layout is not None and shape is None:
        raise click.UsageError("--layout belongs to --shape: a model has its own")
    if plot is not None and plot.suffix != ".svg":
        raise click.UsageError(f"--plot {plot}: the plot is an SVG; give a name that ends in .svg")
    given_kv = click.get_current_context().get_parameter_source("kv") is ParameterSource.COMMANDLINE
    _check_engine(engine, model, beside, library, isa=isa, sequences=sequences, kv=kv if given_kv else None)
    peers = tuple(parse_peer(text) for text in against)
    if len({peer.name for peer in peers}) < len(peers):
        raise click.UsageError("two peers of --against have the same name")
    left_out: list[str] = []
    with _progress() as listener:
        path = model if model is not None else shape_model(str(shape), layout or "t2", listener)
        place, facts, context_max = _subject(path, engine, beside, isa)
        onnx = OnnxPeer(path, library) if engine == "onnx" else None
        options = BenchOptions(
            model=place,
            context_max=context_max,
            threads=threads or tuple(sorted({1, default_threads()})),
            rounds=rounds,
            prefill=_fitting(prefill, _DEFAULT_PREFILL, 0, context_max, "--prefill", left_out),
            decode_tokens=decode_tokens,
            contexts=_fitting(contexts, _DEFAULT_CONTEXTS, decode_tokens + 1, context_max, "--context", left_out),
            sequences=sequences or (),
            kv=kv if place is not None else "f32",
            isa=isa,
            peers=peers if onnx is None else (onnx, *peers),
            facts=facts,
        )
        if onnx is not None:
            listener("open the folder", 0, 0)
            onnx.check(options.ctx_len)
        measured = measure(options, listener)
    report = make_report(
        measured,
        model_name=f"{shape}, {layout or 't2'}" if shape else path.name,
        command=["edgebit", *sys.argv[1:]],
        left_out=left_out,
    )
    if out is not None:
        _write_report(report, out)
    if plot is not None:
        write_plot(report, plot)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        print_report(report)
    if report["failures"]:
        raise PeerError(
            "; ".join(
                f"{failure['name']} at {failure['threads']} threads: {failure['reason']}"
                for failure in report["failures"]
            )
        )


def _check_engine(
    engine: str, model: Path | None, beside: Path | None, library: str | None, **of_native: object
) -> None:
    """Raise UsageError where an option was given that does not go with the engine."""
    if engine == "native":
        given = "--beside" if beside is not None else "--library" if library is not None else None
        if given is not None:
            raise click.UsageError(f"{given} belongs to --engine onnx")
        return
    if model is None:
        raise click.UsageError("--engine onnx measures a folder of `edgebit export onnx`: give it as MODEL")
    for name, value in of_native.items():
        if value is not None and beside is None:
            raise click.UsageError(f"--{name} belongs to our own engine: leave it out, or give its model with --beside")


def _subject(
    path: Path, engine: str, beside: Path | None, isa: str | None
) -> tuple[Member | None, dict[str, Any] | None, int]:
    """Our own engine's model, else what the report tells of the folder; and the tokens that every model can have."""
    folder = OnnxFolder.open(path) if engine == "onnx" else None
    own = path if folder is None else beside
    if own is None:
        assert folder is not None
        info = model_info(folder)
        return None, {"info": info, "kv_bytes_per_token": kv_bytes_per_token(info)}, info["context_max"]
    place = locate_model(own)
    with Model.open(Library.load(isa=isa), place.path, offset=place.offset, size=place.size) as opened:
        context_max = opened.info.context_max
    return place, None, context_max if folder is None else min(context_max, folder.conf.context_max)


def _write_report(report: Report, out: Path) -> None:
    with PartFile(out, OutputError) as part:
        part.write((json.dumps(report, ensure_ascii=False, indent=1) + "\n").encode())
        part.commit()


def _fitting(
    asked: tuple[int, ...] | None, default: tuple[int, ...], more: int, most: int, option: str, left_out: list[str]
) -> tuple[int, ...]:
    """What was asked for, which must fit the model's context; of the default, what fits, and the rest is noted."""
    long = [f"{option} {size} needs a context of {size + more}, the model's is {most}" for size in asked or default
            if size + more > most]  # fmt: skip
    if asked and long:
        raise click.UsageError(long[0])
    left_out += long
    return tuple(size for size in asked or default if size + more <= most)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error while that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda what, done, total: bar.update(
            task, description=printable(what), completed=done, total=total or None
        )
