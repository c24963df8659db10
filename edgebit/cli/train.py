"""`edgebit train`: a model of one's own from files of text or conversations."""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from edgebit.cli.data_options import data_options
from edgebit.cli.data_summary import echo_dry_run
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import printable, printable_json
from edgebit.cli.training_watch import training_watch
from edgebit.train.data.preparation import DataSettings
from edgebit.train.requirements import require_packages
from edgebit.train.schedule import Schedule
from edgebit.train.shape import ModelShape

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_DATA = click.Path(exists=True, path_type=Path)
_SHAPE = ModelShape()
_SIZES = {
    "hidden_size": "--hidden-size", "num_hidden_layers": "--layers", "num_attention_heads": "--heads",
    "num_key_value_heads": "--kv-heads", "intermediate_size": "--ffn-size", "max_position_embeddings": "--context",
}  # fmt: skip


def _shape_options(command: Any) -> Any:
    for name, option in reversed(_SIZES.items()):
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
@data_options
@click.option("--eval", "evaluate_on", multiple=True, type=_DATA, help="Data to evaluate on, instead of a share.")
@click.option(
    "--row-length", type=click.IntRange(2), default=256, show_default=True, help="Tokens; documents share it."
)
@click.option("--batch-tokens", type=click.IntRange(2), default=4096, show_default=True, help="Of a step.")
@click.option(
    "--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Parts of a step: less memory."
)
@click.option("--steps", type=click.IntRange(1), help="[default: 2000]")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Times through the data, instead of --steps.")
@click.option(
    "--learning-rate", type=float, default=Schedule(steps=1).learning_rate, show_default=True, help="Highest."
)
@click.option("--weight-decay", type=float, default=Schedule(steps=1).weight_decay, show_default=True,
              help="Of the first stage; the second has none.")  # fmt: skip
@click.option("--warmup", type=click.IntRange(0), help="Steps.  [default: a tenth of all, at most 100]")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="[default: as many as there are cores]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--compile/--no-compile", "compiled", default=True, show_default=True, help="torch.compile, where it works."
)
@click.option(
    "--eval-every", type=click.IntRange(0), default=200, show_default=True, help="Steps; 0: at the end alone."
)
@click.option("--save-every", type=click.IntRange(1), default=200, show_default=True, help="Steps.")
@click.option("--dry-run", is_flag=True, help="Say what the data hold, and train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    paths: tuple[Path, ...], out: Path, data: DataSettings, resume: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Train a BitNet b1.58 on DATA: text files, JSON Lines, or folders of them.

    What comes out is a master: a Hugging Face checkpoint that transformers loads and `edgebit build` takes. Ctrl-C, or
    a kill, loses the steps since the last save; --resume goes on, and the losses are those of a training never broken.

    \b
    edgebit train sentences.jsonl --out ./assistant
    edgebit train sentences.jsonl --out ./assistant --resume
    edgebit train more.jsonl --from ./assistant --steps 300 --learning-rate 5e-4 --out ./better
    """
    _check_usage(options, data)
    if dry_run:
        given = replace(data, tokenizer=options["start"] or data.tokenizer)
        sizes = {name: options[name] for name in ("row_length", "batch_tokens")}
        return echo_dry_run(paths, given, **sizes, as_json=as_json)
    require_packages()
    from edgebit.train.from_data import train_from_data

    plan = _plan(paths, data, options)
    with progress_bar() as show, training_watch(show) as listener:
        trained = train_from_data(plan, out, resume=resume, listener=listener, progress=show)
    last = trained.outcome.records[-1]
    if not trained.outcome.finished:
        click.echo(f"stopped after step {last.step}, and saved. Go on with the same command and --resume", err=True)
        sys.exit(130)
    facts = _facts(trained, out)
    click.echo(printable_json(facts, indent=2) if as_json else printable("\n".join(_lines(facts))))
    return None


def _check_usage(options: dict[str, Any], data: DataSettings) -> None:
    """Raise UsageError where options exclude each other."""
    sizes = [option for name, option in _SIZES.items() if options[name] is not None]
    if options["start"] is not None and (sizes or options["as_float"] or data.tokenizer):
        given = next(iter(sizes), "--float" if options["as_float"] else "--tokenizer")
        raise click.UsageError(f"{given} is the master's own with --from. Leave it out")
    if options["steps"] is not None and options["epochs"] is not None:
        raise click.UsageError("--steps and --epochs say the same. Give one of them")
    if options["batch_tokens"] < options["row_length"]:
        raise click.UsageError(f"a batch of {options['batch_tokens']} tokens holds no row of {options['row_length']}")


def _plan(paths: tuple[Path, ...], data: DataSettings, options: dict[str, Any]) -> Any:
    from edgebit.train.from_data import Plan
    from edgebit.train.trainer import Settings

    sizes = {name: options[name] for name in _SIZES if options[name] is not None}
    rows = options["batch_tokens"] // options["row_length"]
    shared = {field.name: options[field.name] for field in fields(Schedule) if field.name in options}
    schedule = Schedule(**{**shared, "steps": options["steps"] or 2000})
    settings = Settings(
        schedule=schedule, batch_rows=rows, accumulate=options["accumulate"], device=options["device"],
        compile=options["compiled"], threads=options["threads"], evaluate_every=options["eval_every"],
        save_every=options["save_every"],
    )  # fmt: skip
    return Plan(
        paths=paths, data=data, evaluate_on=options["evaluate_on"], shape=ModelShape(**sizes), start=options["start"],
        ternary=not options["as_float"], row_length=options["row_length"], settings=settings, epochs=options["epochs"],
        seed=options["seed"],
    )  # fmt: skip


def _facts(trained: Any, out: Path) -> dict[str, Any]:
    last, rounding, held_out = trained.outcome.records[-1], trained.rounding, trained.held_out
    return {
        "out": str(out), "parameters": trained.parameters, "steps": last.step, "tokens": last.tokens, "loss": last.loss,
        "held_out": None if held_out is None else {
            "loss": held_out.loss, "accuracy": held_out.accuracy, "tokens": held_out.tokens,
        },
        "moved": rounding.moved, "weights": rounding.weights, "pictures": [str(path) for path in trained.pictures],
    }  # fmt: skip


def _lines(facts: dict[str, Any]) -> list[str]:
    kind = "master" if facts["weights"] else "float twin"
    lines = [
        f"{facts['out']}: a {kind} of {facts['parameters']:,} parameters",
        f"  learnt    {facts['steps']:,} steps, {facts['tokens']:,} tokens, last loss {facts['loss']:.4f}",
    ]
    if found := facts["held_out"]:
        share = f"{found['accuracy']:.1%} of {found['tokens']:,} tokens predicted"
        lines.append(f"  held out  loss {found['loss']:.4f}, {share}, by it as written")
    if facts["weights"]:
        moved = f"{facts['moved']:,} of {facts['weights']:,} weights"
        lines.append(f"  bfloat16  {moved} rounded to the other side, so that every code stays")
    lines.append(f"  curve     {', '.join(facts['pictures'])}")
    if facts["weights"]:
        lines.append(f"Next: edgebit build {facts['out']} --target rpi --out {Path(facts['out']).name}.bundle")
    return lines
