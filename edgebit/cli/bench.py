"""`edgebit bench`: what the engine does on this machine, beside its limits and other engines."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from edgebit.bench.measure import HEAD_PLANES, BenchOptions, measure
from edgebit.bench.peers import parse_peer
from edgebit.bench.plot import write_plot
from edgebit.bench.report import Report, make_report
from edgebit.bench.shapes import shape_model
from edgebit.bundle.archive import locate_model
from edgebit.cli.terminal import printable
from edgebit.errors import EdgebitError, PeerError
from edgebit.runtime.cores import default_threads
from edgebit.runtime.native import KV_TYPES, Library, Model
from edgebit.synthesize import SHAPES

_DEFAULT_PREFILL, _DEFAULT_CONTEXTS = (128, 512), (0, 2048)
_MOST = 1 << 20
_OWN_LOAD = 0.5  # above the threads that are measured: what the bench itself adds to the load average
_FILE_WIDTH = 110  # columns of a table that goes into a file or pipe


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
    """
    if (model is None) == (shape is None):
        raise click.UsageError("give either MODEL or --shape")
    if layout is not None and shape is None:
        raise click.UsageError("--layout belongs to --shape: a model has its own")
    if plot is not None and plot.suffix != ".svg":
        raise click.UsageError(f"--plot {plot}: the plot is an SVG; give a name that ends in .svg")
    peers = tuple(parse_peer(text) for text in against)
    if len({peer.name for peer in peers}) < len(peers):
        raise click.UsageError("two peers of --against have the same name")
    left_out: list[str] = []
    with _progress() as listener:
        path = model if model is not None else shape_model(str(shape), layout or "t2", listener)
        place = locate_model(path)
        with Model.open(Library.load(isa=isa), place.path, offset=place.offset, size=place.size) as opened:
            context_max = opened.info.context_max
        options = BenchOptions(
            model=place,
            context_max=context_max,
            threads=threads or tuple(sorted({1, default_threads()})),
            rounds=rounds,
            prefill=_fitting(prefill, _DEFAULT_PREFILL, 0, context_max, "--prefill", left_out),
            decode_tokens=decode_tokens,
            contexts=_fitting(contexts, _DEFAULT_CONTEXTS, decode_tokens + 1, context_max, "--context", left_out),
            sequences=sequences or (),
            kv=kv,
            isa=isa,
            peers=peers,
        )
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
        _print(report)
    if report["failures"]:
        raise PeerError(
            "; ".join(
                f"{failure['name']} at {failure['threads']} threads: {failure['reason']}"
                for failure in report["failures"]
            )
        )


def _write_report(report: Report, out: Path) -> None:
    try:
        out.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EdgebitError(f"{out} cannot be written: {error.strerror}. Give --out another place") from error


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


# ---- tables ----


def _print(report: Report) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    model, settings = report["model"], report["settings"]
    for line in _head(report):
        console.print(Text(printable(line)), soft_wrap=True)
    console.print()
    tests = [
        *(("prefill", str(size), f"prefill {size:,}") for size in settings["prefill"]),
        *(("decode", str(size), f"decode at {size:,}" if size else "decode") for size in settings["contexts"]),
        *(("all_logits", str(size), "decode, all logits") for size in settings["contexts"] if not size),
        *(("sequences", str(count), f"{count} sequence{'s' * (count > 1)}") for count in settings["sequences"]),
    ]
    console.print(_speeds(report, tests))
    console.print()
    console.print(_starts(report))
    console.print()
    for limits in report["limits"]:
        console.print(
            f"Limits at {_threads(limits['threads'])}: memory read at {_range(limits['read_bytes_s'], 1e9, 1)} GB/s, "
            f"int8 products {_range(limits['int8_mac_s'], 1e9, 0)} G/s.",
            soft_wrap=True,
        )
    ours = next(engine for engine in report["engines"] if not engine["peer"])
    for size, step in ours["step_bytes"].items():
        middle, low = (ours["head_rows"][plane][size]["median"] for plane in HEAD_PLANES)
        console.print(
            f"A decode step behind {int(size):,} tokens reads {step['median'] / 1e6:,.1f} MB; of the head's "
            f"{model['vocab_size']:,} rows {middle:,.0f} again in the middle plane and {low:,.0f} in the low one.",
            soft_wrap=True,
        )
    for engine in report["engines"]:
        for figure, doubt in engine["doubts"].items():
            who = f"{engine['name']} at {_threads(engine['threads'])}"
            words = f"Not counted: {figure.replace('/', ' ')} of {who}: {doubt}."
            console.print(Text(printable(words)), soft_wrap=True)
    load = max(reading["load_1_min"] or 0 for reading in report["machine"]["load"])
    if load > max(settings["threads"]) + _OWN_LOAD:
        console.print(
            f"Other work went on: load average up to {load}. Figures are lower than this machine can do.",
            soft_wrap=True,
        )
    for words in settings["left_out"]:
        console.print(f"Left out: {words}.", soft_wrap=True)


def _head(report: Report) -> list[str]:
    machine, model, edgebit = report["machine"], report["model"], report["edgebit"]
    load = machine["load"][0]["load_1_min"]
    return [
        f"{machine['cpu']}, {machine['usable_cores']} cores, {edgebit['isa']}, load average {load}, {report['date']}",
        f"{model['name']}: {model['ternary_weights'] / 1e6:,.1f} M ternary weights; "
        f"{model['golden_probes']} golden probes equal; KV cache in {report['settings']['kv']}",
        f"tok/s, medians of rounds: {report['settings']['rounds']}",
    ]


def _speeds(report: Report, tests: list[tuple[str, str, str]]) -> Table:
    """A row for each test, thread count and engine: what it does, and how that stands to the limit or to edgebit."""
    ratios = {(ratio["peer"], ratio["threads"], ratio["figure"]): ratio for ratio in report["ratios"]}
    table = _table("test", "thr", "engine", "tok/s", "least to most", "of limit", "edgebit is")
    for kind, size, title in tests:
        for engine in report["engines"]:
            if size not in engine[kind]:
                continue
            value = engine[kind][size]
            share = engine.get({"prefill": "int8_share", "decode": "read_share"}.get(kind, ""), {}).get(size)
            ratio = ratios.get((engine["name"], engine["threads"], f"{kind}/{size}"))
            table.add_row(
                title,
                str(engine["threads"]),
                engine["name"],
                _speed(value["median"]),
                f"{_speed(value['min'])} to {_speed(value['max'])}",
                f"{share['median']:.0%}" if share else "",
                f"{_range(ratio, 1, 2)} x" if ratio else "not counted" if f"{kind}/{size}" in engine["doubts"] else "",
            )
            title = ""
    return table


def _starts(report: Report) -> Table:
    table = _table("start and memory", "thr", "engine", "one token", "first token", "peak RSS", "with context")
    for engine in report["engines"]:
        start, memory = engine["start"], engine["peak_rss_bytes"]
        peaks = [f"{memory[kind] / 2**20:,.0f} MiB" if kind in memory else "" for kind in ("prefill", "context")]
        rows = [("start to end", _ms(start.get("start_s")), _ms(start.get("first_token_s")), *peaks)]
        if "native_start_s" in start:
            rows.append(("the same, edgebit-run", _ms(start["native_start_s"]), "", "", ""))
        if "library_load_s" in start:
            rows.append(("library alone", _ms(start["library_load_s"]), "", "", ""))
        for title, *cells in rows:
            table.add_row(title, str(engine["threads"]), engine["name"], *cells)
    return table


def _table(*columns: str) -> Table:
    """The first and the third column may be folded on a narrow terminal; the others are figures."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        words = number in (0, 2)
        table.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def _speed(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _ms(value: dict[str, Any] | None) -> str:
    return f"{value['median'] * 1e3:,.1f} ms" if value else ""


def _range(value: dict[str, Any], unit: float, digits: int) -> str:
    median, least, most = (f"{value[key] / unit:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({least} to {most})" if len(value["samples"]) > 1 else median
