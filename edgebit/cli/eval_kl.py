"""`edgebit eval kl` and `reference`: how far a model is from another, or from what was saved of it."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edgebit.checkpoint.opening import model_files
from edgebit.cli.eval_options import (
    FILE,
    EngineOptions,
    TextOptions,
    cost,
    end_of_part,
    engine_options,
    json_option,
    model_argument,
    rounded,
    speed_line,
    text_options,
    watched,
)
from edgebit.cli.json_lines_file import check_lines_file, json_lines
from edgebit.cli.out_file import OUT_FILE, check_out_file, force_option
from edgebit.cli.terminal import printable
from edgebit.evaluate.divergence import Compared, Divergence, check_vocabularies, measure_divergence, side_by_side
from edgebit.evaluate.model_opening import open_sound_model
from edgebit.evaluate.perplexity import perplexity_of
from edgebit.evaluate.reference_file import open_reference, write_reference
from edgebit.evaluate.text import ScoredText, take_ids
from edgebit.evaluate.windows import computed_tokens, open_engine
from edgebit.runtime.engine import KV_TYPES, Engine
from edgebit.runtime.model import Model

_CONTEXT = 8  # tokens that are shown before a place
_LEAST_KL = 1e-5  # nats, of a place that is shown: less is rounding, of a saved reference


@click.command(short_help="How far a model is from another on a text.")
@model_argument
@click.option("--against", type=click.Path(exists=True, path_type=Path), help="The reference: a bundle or model file.")
@click.option("--reference", type=FILE, help="Or a file that `edgebit eval reference` has saved, with its own text.")
@text_options
@click.option("--per-token", type=OUT_FILE, help="Also write each token's numbers, a JSON object a line.")
@engine_options
@force_option
@click.option("--against-kv", type=click.Choice(KV_TYPES), help="Type of the KV cache of --against.  [default: --kv]")
@json_option
def command(
    path: Path,
    against: Path | None,
    reference: Path | None,
    chosen: TextOptions,
    per_token: Path | None,
    opened: EngineOptions,
    against_kv: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure how far the next tokens that BUNDLE foresees are from a reference's, over a text: KL divergence.

    The reference is another bundle, run beside it, or what was saved of one. Both must have the same vocabulary.

    \b
    edgebit eval kl int8.bundle --against exact.bundle
    edgebit eval kl chat.bundle --reference exact.ref --json
    """
    if (against is None) == (reference is None):
        raise click.UsageError("give either --against or --reference")
    if reference is not None and (chosen.given or against_kv is not None):
        raise click.UsageError("--reference has its own text and windows: leave --text and the like out")
    beside_files = model_files(against) if against is not None else [Path(str(reference))]
    check_lines_file(
        per_token, option="--per-token", force=force, inputs=[*model_files(path), *beside_files, *chosen.files]
    )
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(open_sound_model(path))
        if against is not None:
            beside = _side_by_side(stack, model, against, chosen, opened, against_kv)
        else:
            beside = _beside_reference(stack, model, Path(str(reference)), opened)
        write = stack.enter_context(json_lines(per_token))
        report = stack.enter_context(watched("tokens", "mean KL", ".6f"))
        started = time.monotonic()
        result = measure_divergence(beside.parts, beside.text, report=report)
        costs = cost(computed_tokens(beside.engine), time.monotonic() - started, beside.engine.isa, opened)
        text = beside.text
        for place in range(1, 1 + result.tokens) if per_token is not None else ():
            write(_row(result.compared, place, text))
    worst = [_row(result.compared, place, text) for place in result.worst]
    figures = {"reference": str(against or reference), **_figures(result, text), "worst": worst, **costs}
    click.echo(json.dumps(figures) if as_json else _table(figures))
    end_of_part(result.complete, result.tokens, text.scored, "tokens")


@dataclass(frozen=True, slots=True)
class _Beside:
    """A model that is opened beside its reference, and what comes of the two."""

    engine: Engine
    text: ScoredText
    parts: Iterator[Compared]


def _side_by_side(
    stack: contextlib.ExitStack,
    model: Model,
    against: Path,
    chosen: TextOptions,
    opened: EngineOptions,
    against_kv: str | None,
) -> _Beside:
    other = stack.enter_context(open_sound_model(against))
    check_vocabularies(model, other)
    text = chosen.read(model if model.section("TOKN") is not None else other)  # the tokens are the same
    windows = chosen.windows(min(model, other, key=lambda each: each.info.context_max))
    ours = stack.enter_context(open_engine(model, windows, threads=opened.threads, kv=opened.kv))
    theirs = stack.enter_context(open_engine(other, windows, threads=opened.threads, kv=against_kv or opened.kv))
    return _Beside(ours, text, side_by_side(ours, theirs, text.ids, windows))


def _beside_reference(stack: contextlib.ExitStack, model: Model, path: Path, opened: EngineOptions) -> _Beside:
    reference = stack.enter_context(open_reference(path))
    reference.check(model)
    text = replace(take_ids(model, reference.ids, name=reference.head.text), has_bos=reference.head.has_bos)
    engine = stack.enter_context(open_engine(model, reference.windows, threads=opened.threads, kv=opened.kv))
    return _Beside(engine, text, reference.beside(engine))


@click.command(short_help="Save what a model foresees, for kl to compare with.")
@model_argument
@click.option("--out", required=True, type=OUT_FILE, help="The file to write.")
@click.option("--top", type=click.IntRange(1), help="Save so many tokens of each distribution.  [default: all up to a "
              "vocabulary of 1024, else 64]")  # fmt: skip
@text_options
@engine_options
@force_option
@json_option
def reference_command(
    path: Path, out: Path, top: int | None, chosen: TextOptions, opened: EngineOptions, force: bool, as_json: bool
) -> None:
    """Save what BUNDLE foresees of a text, for `edgebit eval kl --reference`, which then needs no such BUNDLE.

    \b
    edgebit eval reference exact.bundle --out exact.ref --limit-tokens 10000
    """
    check_out_file(out, force=force, example="NAME.ref", inputs=[*model_files(path), *chosen.files])
    with open_sound_model(path) as model:
        text, windows = chosen.read(model), chosen.windows(model)
        with (
            open_engine(model, windows, threads=opened.threads, kv=opened.kv) as engine,
            watched("tokens", "") as report,
        ):
            started = time.monotonic()
            is_written = write_reference(engine, text, windows, out, top=top, report=report)
            costs = cost(computed_tokens(engine), time.monotonic() - started, engine.isa, opened)
    if not is_written:
        click.echo(f"{out} was not written", err=True)
        raise click.Abort
    figures = {"out": str(out), "bytes": out.stat().st_size, "text": text.name, "tokens": text.scored, **costs}
    if as_json:
        click.echo(json.dumps(figures))
    else:
        click.echo(f"{out}: {figures['tokens']} tokens of {text.name}, {figures['bytes'] / 2**20:.1f} MiB")
        click.echo(speed_line(figures, "  "))


def _figures(result: Divergence, text: ScoredText) -> dict[str, Any]:
    return {
        "text": text.name,
        "complete": result.complete,
        "tokens": result.tokens,
        "kl_mean": result.kl_mean,
        "kl_error": result.kl_error,
        "kl_median": result.kl_median,
        "kl_99": result.kl_99,
        "kl_max": result.kl_max,
        "same_best": result.same_best,
        "delta_p": result.delta_p,
        "perplexity": perplexity_of(result.nll),
        "reference_perplexity": perplexity_of(result.reference_nll),
    }


def _row(compared: Compared, place: int, text: ScoredText) -> dict[str, Any]:
    """The numbers of the token at a place of the text."""
    i = place - 1
    best, reference_best = int(compared.best_q[i]), int(compared.best_p[i])
    return {
        "position": place - text.has_bos,
        "token": text.ids[place],
        "text": text.words(place, place + 1),
        "before": text.words(max(place - _CONTEXT, int(text.has_bos)), place),
        "kl": float(compared.kl[i]),
        "log_prob": float(compared.log_q[i]),
        "reference_log_prob": float(compared.log_p[i]),
        "best": best,
        "reference_best": reference_best,
    }


def _table(figures: dict[str, Any]) -> str:
    error = f" ± {figures['kl_error']:.6f}" if figures["kl_error"] is not None else ""
    lines = [
        f"KL a token      {figures['kl_mean']:.6f}{error} nats",
        f"  median, 99 %  {figures['kl_median']:.6f}, {figures['kl_99']:.6f}; at most {figures['kl_max']:.6f}",
        f"same best token {100 * figures['same_best']:.2f} %",
        f"mean |delta p|  {figures['delta_p']:.6f} of the token that comes",
        f"perplexity      {rounded(figures['perplexity'])}, the reference's {rounded(figures['reference_perplexity'])}",
        f"compared        {figures['tokens']} tokens of {figures['text']} with {figures['reference']}",
        speed_line(figures, "speed           "),
    ]
    for row in figures["worst"]:
        if row["kl"] < _LEAST_KL:
            break
        shown = "" if row["text"] is None else f": {printable(repr(row['before']))} then {printable(repr(row['text']))}"
        lines.append(f"  KL {row['kl']:9.5f} before token {row['position']}{shown}")
    return "\n".join(lines)
