"""`edgebit compare`: several engines on the same prompts, and how their answers, speeds and memory stand."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from edgebit.bundle.conf_section import SIZE_MAX
from edgebit.cli.ending_signals import signals_as_ctrl_c
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.compare.comparison import Questions, run_comparison
from edgebit.compare.contestant import Settings, choose_contestants
from edgebit.compare.report import Report, all_equal, all_succeeded, make_report
from edgebit.engines.choice import ENGINES
from edgebit.errors import EdgebitError, EngineError
from edgebit.runtime.cores import default_threads
from edgebit.runtime.engine import KV_TYPES

_SHOWN = 40  # characters of an answer where it parts
_MIB = 1 << 20


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--prompt", "asked", multiple=True, help="A prompt. May be given several times.")
@click.option("--prompts", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file: one a line.")
@click.option("--system", help="A system message put before each prompt.")
@click.option("--raw", is_flag=True, help="Continue prompts as plain text, without the model's chat template.")
@click.option("-n", "--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Of each answer.")
@click.option("--engine", "engines", multiple=True, type=click.Choice(list(ENGINES)),
              help="Run each MODEL in this one. May be given several times.")  # fmt: skip
@click.option("--also-fallback", is_flag=True, help="Run exported folders a second time, without our operators.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Of each.  [default: one for each big core]")
@click.option("--ctx", type=click.IntRange(0, SIZE_MAX["context_max"]), default=0,
              help="Context in tokens.  [default: the model's own]")  # fmt: skip
@click.option("--kv", type=click.Choice(KV_TYPES), default="f32", show_default=True,
              help="Type of the native engine's KV cache; the others' is f32.")  # fmt: skip
@click.option("--strict", is_flag=True, help="End with exit code 1 where answers differ.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/schemas/compare.json).")
def command(
    models: tuple[Path, ...],
    asked: tuple[str, ...],
    prompts: Path | None,
    system: str | None,
    raw: bool,
    max_tokens: int,
    engines: tuple[str, ...],
    also_fallback: bool,
    threads: int | None,
    ctx: int,
    kv: str,
    strict: bool,
    as_json: bool,
) -> None:
    """Ask each MODEL the same prompts, greedily, in processes of their own, and compare answers, speed, memory, load.

    A MODEL is a bundle or model file (run by our own engine), a folder of `edgebit export onnx` (ONNX Runtime) or a
    Hugging Face checkpoint (transformers). A single one is run by every engine that is installed; what an engine does
    not take is made of it, in a temporary folder. One that fails does not end the others.

    \b
    edgebit compare chat.bundle ./chat-onnx --prompt "Why is the sky blue?"
    edgebit compare ./bitnet-b1.58-2B-4T --prompts questions.txt --json
    """
    signals_as_ctrl_c()
    if raw and system is not None:
        raise click.UsageError("--system belongs to the chat template, --raw goes without it")
    questions = Questions(prompts=(*asked, *_read_prompts(prompts)), system=system, raw=raw, max_tokens=max_tokens)
    if not questions.prompts:
        raise click.UsageError("give what to ask: --prompt TEXT or --prompts FILE")
    settings = Settings(threads=threads or default_threads(), ctx_len=ctx, kv=kv)
    contestants = choose_contestants(models, engines, settings, also_fallback=also_fallback)
    with tempfile.TemporaryDirectory(prefix="edgebit-compare-") as folder, progress_bar() as progress:
        outcomes = run_comparison(contestants, questions, progress, Path(folder))
    report = make_report(outcomes, questions)
    if as_json:
        click.echo(printable_json(report))
    else:
        _print(report)
    if not all_succeeded(report):
        failed = sum(engine["error"] is not None for engine in report["engines"])
        raise EngineError(f"{failed} of {len(outcomes)} did not answer all prompts; their rows say why")
    if strict and not all_equal(report):
        click.echo("the answers differ", err=True)
        sys.exit(EdgebitError.exit_code)


def _read_prompts(path: Path | None) -> list[str]:
    """A prompt a line; empty ones are left out."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EdgebitError(f"{path} cannot be read as text in UTF-8: {error}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise EdgebitError(f"{path} has no prompt in it: write one a line")
    return found


def _print(report: Report) -> None:
    table = Table("", "engine", "load", "prefill", "decode", "peak RSS", "answers", box=None, header_style="bold")
    for number in range(2, 6):
        table.columns[number].justify, table.columns[number].no_wrap = "right", True
    for engine in report["engines"]:
        failed = engine["error"] is not None
        table.add_row(
            Text(printable(engine["name"]), style="bold red" if failed else ""),
            Text(printable(engine["description"] or engine["engine"])),
            _figure(engine["load_s"], "s", 2),
            _figure(engine["prefill_tok_s"], "tok/s", 1),
            _figure(engine["decode_tok_s"], "tok/s", 1),
            _figure(engine["peak_rss_bytes"], "MiB", 0, _MIB),
            Text(printable(f"failed: {engine['error']}"), style="red") if failed else _agreement(engine, report),
        )
    print_table(table)
    for engine in report["engines"]:
        for note in engine["notes"]:
            click.echo(printable(f"{engine['name']}: {note}"))
    for line in _partings(report):
        click.echo(printable(line))


def _figure(value: float | None, unit: str, digits: int, divisor: float = 1) -> str:
    return "" if value is None else f"{value / divisor:,.{digits}f} {unit}"


def _agreement(engine: dict[str, Any], report: Report) -> str:
    agreement, count = engine["agreement"], len(report["prompts"])
    if agreement is None:
        return "the others are compared with these"
    if agreement["share"] == 1:
        return f"equal, {count} of {count}"
    return f"equal {round(agreement['share'] * count)} of {count}; {agreement['equal_tokens_least']} tokens at least"


def _partings(report: Report) -> list[str]:
    """A line for each answer that differs: where, and how both go on."""
    lines = []
    for engine in report["engines"]:
        if engine["agreement"] is None:
            continue
        base = next(other for other in report["engines"] if other["name"] == report["compared_with"])
        for number, parting in enumerate(engine["agreement"]["prompts"]):
            if not parting["same_prompt_tokens"]:
                lines.append(f"{engine['name']}, prompt {number + 1}: its tokens are others than {base['name']}'s")
            if parting["parts_at"] is not None:
                ours, theirs = (one["answers"][number]["text"] for one in (engine, base))
                lines.append(
                    f"{engine['name']}, prompt {number + 1}: parts at token {parting['parts_at'] + 1}: "
                    f"{_rest(ours, theirs)!r} where {base['name']} has {_rest(theirs, ours)!r}"
                )
    return lines


def _rest(text: str, other: str) -> str:
    """Of a text: some of what follows the beginning that both have."""
    shorter = min(len(text), len(other))
    same = next((place for place in range(shorter) if text[place] != other[place]), shorter)
    return text[same : same + _SHOWN]
