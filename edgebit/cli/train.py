"""`edgebit train`: a model of one's own from files of text or conversations."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgebit.checkpoint.hugging_face.lora_config import LoraConfig
from edgebit.cli.data_options import data_options
from edgebit.cli.data_summary import echo_dry_run
from edgebit.cli.lora_options import lora_options
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import printable, printable_json
from edgebit.cli.training_options import SCHEMA_TAKEN_OVER, check_training_options, settings_of, training_options
from edgebit.cli.training_watch import training_watch
from edgebit.train.data.preparation import DataSettings
from edgebit.train.master_config import read_config
from edgebit.train.requirements import require_packages
from edgebit.train.same_training import SIZE_OPTIONS
from edgebit.train.shape import ModelShape

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_DATA = click.Path(exists=True, path_type=Path)
_SHAPE = ModelShape()


def _shape_options(command: Any) -> Any:
    for name, option in reversed(SIZE_OPTIONS.items()):
        what = click.option(option, name, type=click.IntRange(1), help=f"[default: {getattr(_SHAPE, name)}]")
        command = what(command)
    return command


@click.command(short_help="Train a model of your own.")
@click.argument("paths", metavar="DATA...", nargs=-1, required=True, type=_DATA)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the model.")
@click.option("--from", "start", type=_FOLDER, help="A master to train on from, instead of a new model.")
@click.option("--float", "as_float", is_flag=True, help="Without any rounding: the float twin, to compare with.")
@click.option("--resume", is_flag=True, help="Go on at the step that was saved last.")
@_shape_options
@lora_options
@data_options
@click.option("--replay", multiple=True, type=_DATA, help="Old data to rehearse, so that what is known stays.")
@click.option("--replay-share", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5,
              show_default=True, help="Of the rows.")  # fmt: skip
@training_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    paths: tuple[Path, ...],
    out: Path,
    data: DataSettings,
    lora: LoraConfig | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a BitNet b1.58 on DATA: text files, JSON Lines, or folders of them.

    What comes out is a master: a Hugging Face checkpoint that transformers loads and `edgebit build` takes; or, with
    --lora, an adapter of --from as peft keeps them, of a few weights that run beside those of the model. Ctrl-C, or
    a kill, loses the steps since the last save; --resume goes on, and the losses are those of a training never broken.

    \b
    edgebit train sentences.jsonl --out ./assistant
    edgebit train sentences.jsonl --out ./assistant --resume
    edgebit train more.jsonl --from ./assistant --steps 300 --learning-rate 5e-4 --out ./better
    edgebit train new.jsonl --from ./assistant --lora 8 --replay sentences.jsonl --out ./adapter
    """
    _check_usage(options, data)
    if dry_run:
        if options["start"] is not None and lora is None:
            read_config(options["start"])
        given = replace(data, tokenizer=options["start"] or data.tokenizer)
        others = {name: options[name] for name in ("evaluate_on", "replay", "row_length", "batch_tokens")}
        return echo_dry_run(paths, given, **others, as_json=as_json)
    require_packages()
    from edgebit.train.from_data import train_from_data
    from edgebit.train.lora.from_data import train_adapter

    if lora is not None:
        _lora_defaults(options)
    plan = _plan(paths, data, options)
    with progress_bar() as show, training_watch(show) as listener:
        if lora is None:
            trained = train_from_data(plan, out, resume=resume, listener=listener, progress=show)
        else:
            trained = train_adapter(plan, lora, out, resume=resume, listener=listener, progress=show)
    last = trained.outcome.records[-1]
    if not trained.outcome.finished:
        click.echo(f"stopped after step {last.step}, and saved. Go on with the same command and --resume", err=True)
        sys.exit(130)
    facts = _facts(trained, out)
    click.echo(printable_json(facts, indent=2) if as_json else printable("\n".join(_lines(facts))))
    return None


def _check_usage(options: dict[str, Any], data: DataSettings) -> None:
    """Raise UsageError where options exclude each other."""
    sizes = [option for name, option in SIZE_OPTIONS.items() if options[name] is not None]
    if options["start"] is not None and (sizes or options["as_float"] or data.tokenizer):
        given = next(iter(sizes), "--float" if options["as_float"] else "--tokenizer")
        raise click.UsageError(f"{given} is the master's own with --from. Leave it out")
    if options["replay"] and options["start"] is None:
        raise click.UsageError("--replay goes with --from: a new model has nothing to rehearse")
    check_training_options(options)


def _plan(paths: tuple[Path, ...], data: DataSettings, options: dict[str, Any]) -> Any:
    from edgebit.train.from_data import Plan

    sizes = {name: options[name] for name in SIZE_OPTIONS if options[name] is not None}
    return Plan(
        paths=paths, data=data, evaluate_on=options["evaluate_on"], shape=ModelShape(**sizes), start=options["start"],
        ternary=not options["as_float"], row_length=options["row_length"], settings=settings_of(options),
        epochs=options["epochs"], seed=options["seed"], replay=options["replay"], replay_share=options["replay_share"],
    )  # fmt: skip


def _facts(trained: Any, out: Path) -> dict[str, Any]:
    last, rounding, held_out, old = trained.outcome.records[-1], trained.rounding, trained.held_out, trained.old
    return {
        "out": str(out), "parameters": trained.parameters, "steps": last.step, "tokens": last.tokens, "loss": last.loss,
        "held_out": None if held_out is None else {
            "loss": held_out.loss, "accuracy": held_out.accuracy, "tokens": held_out.tokens,
        },
        "rehearsed": None if old is None else {
            "tokens": old.after.tokens, "loss_before": old.before.loss, "loss": old.after.loss,
            "accuracy_before": old.before.accuracy, "accuracy": old.after.accuracy,
        },
        **({} if rounding is None else {"moved": rounding.moved, "weights": rounding.weights}),
        "response_schema": None if trained.response_schema is None else str(trained.response_schema),
        "pictures": [str(path) for path in trained.pictures],
    }  # fmt: skip


def _lines(facts: dict[str, Any]) -> list[str]:
    weights = facts.get("weights")
    kind = "an adapter" if weights is None else "a master" if weights else "a float twin"
    lines = [
        f"{facts['out']}: {kind} of {facts['parameters']:,} parameters",
        f"  learnt    {facts['steps']:,} steps, {facts['tokens']:,} tokens, last loss {facts['loss']:.4f}",
    ]
    if found := facts["held_out"]:
        share = f"{found['accuracy']:.1%} of {found['tokens']:,} tokens predicted"
        lines.append(f"  held out  loss {found['loss']:.4f}, {share}, by it as written")
    if old := facts["rehearsed"]:
        change = f"loss {old['loss_before']:.4f} before, {old['loss']:.4f} now"
        predicted = f"{old['accuracy_before']:.1%} before, {old['accuracy']:.1%} now predicted"
        lines.append(f"  rehearsed {change}; {predicted}, of {old['tokens']:,} tokens held out")
    if weights:
        moved = f"{facts['moved']:,} of {weights:,} weights"
        lines.append(f"  bfloat16  {moved} rounded to the other side, so that every code stays")
    if facts["response_schema"]:
        lines.append(SCHEMA_TAKEN_OVER.format("the master"))
    lines.append(f"  curve     {', '.join(facts['pictures'])}")
    name = Path(facts["out"]).name
    if weights is None:
        lines.append(f"Next: edgebit adapter convert {facts['out']} --for MODEL --out {name}.adapter")
    elif weights:
        lines.append(f"Next: edgebit build {facts['out']} --target rpi --out {name}.bundle")
    return lines


def _lora_defaults(options: dict[str, Any]) -> None:
    """Pairs are few weights and learn fast: without decay, and before anything would have been compiled."""
    context = click.get_current_context()
    for name, value in (("weight_decay", 0.0), ("compiled", False)):
        if context.get_parameter_source(name) == ParameterSource.DEFAULT:
            options[name] = value
