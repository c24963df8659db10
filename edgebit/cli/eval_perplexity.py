"""`edgebit eval perplexity`: how well a model foresees a text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgebit.checkpoint.opening import model_files
from edgebit.cli.eval_options import (
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
from edgebit.cli.out_file import OUT_FILE, force_option
from edgebit.evaluate.model_opening import open_sound_model
from edgebit.evaluate.perplexity import Perplexity, TokenScores, measure_perplexity
from edgebit.evaluate.text import ScoredText
from edgebit.evaluate.windows import computed_tokens, open_engine


@click.command(short_help="How well a model foresees a text.")
@model_argument
@text_options
@click.option("--per-token", type=OUT_FILE, help="Also write each token's numbers, a JSON object a line.")
@engine_options
@force_option
@json_option
def command(
    path: Path, chosen: TextOptions, per_token: Path | None, opened: EngineOptions, force: bool, as_json: bool
) -> None:
    """Measure the perplexity of BUNDLE, a bundle or model file, on a text, by sliding windows.

    Each token is scored once, with at least window - stride tokens before it where there are so many.

    \b
    edgebit eval perplexity chat.bundle
    edgebit eval perplexity chat.bundle --text wiki.txt --window 2048 --stride 512 --json
    """
    check_lines_file(per_token, option="--per-token", force=force, inputs=[*model_files(path), *chosen.files])
    with open_sound_model(path) as model:
        text, windows = chosen.read(model), chosen.windows(model)
        with (
            open_engine(model, windows, threads=opened.threads, kv=opened.kv) as engine,
            json_lines(per_token) as write,
            watched("tokens", "perplexity") as report,
        ):

            def write_all(scores: TokenScores) -> None:
                for row in _rows(scores, text):
                    write(row)

            each = write_all if per_token is not None else None
            result = measure_perplexity(engine, text, windows, report=report, each=each)
            figures = _figures(result, text) | cost(computed_tokens(engine), result.seconds, engine.isa, opened)
    click.echo(json.dumps(figures) if as_json else _table(figures))
    end_of_part(result.complete, result.tokens, text.scored, "tokens")


def _figures(result: Perplexity, text: ScoredText) -> dict[str, Any]:
    return {
        "text": text.name,
        "complete": result.complete,
        "tokens": result.tokens,
        "bytes": result.bytes,
        "perplexity": result.perplexity,
        "perplexity_error": result.perplexity_error,
        "nll": result.nll,
        "nll_error": result.nll_error,
        "bits_per_byte": result.bits_per_byte,
        "window": result.windows.length,
        "stride": result.windows.stride,
        "bos": text.has_bos,
    }


def _table(figures: dict[str, Any]) -> str:
    error, nll_error = (
        f" ± {rounded(figures[name])}" if figures[name] is not None else ""
        for name in ("perplexity_error", "nll_error")
    )
    lines = [
        f"perplexity      {rounded(figures['perplexity'])}{error}",
        f"nll a token     {figures['nll']:.5f}{nll_error}",
    ]
    if figures["bits_per_byte"] is not None:
        lines.append(f"bits per byte   {figures['bits_per_byte']:.5f}")
    of_bytes = f" ({figures['bytes']} bytes)" if figures["bytes"] is not None else ""
    lines += [
        f"scored          {figures['tokens']} tokens{of_bytes} of {figures['text']}, window {figures['window']}, "
        f"stride {figures['stride']}",
        speed_line(figures, "speed           "),
    ]
    return "\n".join(lines)


def _rows(scores: TokenScores, text: ScoredText) -> Iterator[dict[str, Any]]:
    for i, log_prob in enumerate(scores.log_prob):
        place = scores.first + i
        yield {
            "position": place - text.has_bos,
            "token": text.ids[place],
            "text": text.words(place, place + 1),
            "log_prob": float(log_prob),
            "rank": int(scores.rank[i]),
            "best": int(scores.best[i]),
            "best_log_prob": float(scores.best_log_prob[i]),
        }
