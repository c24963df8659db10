"""edgebit tune: finds the engine's settings that serve a scenario best on this machine, and writes them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from edgebit.cli.terminal import printable
from edgebit.daemon.install.settings import CONFIG_NAME
from edgebit.daemon.tune import SCENARIOS, Limits, Outcome, engine_settings, lines, tune_and_write


@click.command()
@click.argument("model", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A device folder of this machine: its active bundle is measured, its edgebitd.toml written.",
)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="The configuration to write.")
@click.option(
    "--scenario", type=click.Choice(list(SCENARIOS)), default="edge", show_default=True, help="What the device is for."
)
@click.option("--threads-max", type=click.IntRange(1, 256), metavar="N", help="Use no more threads.")
@click.option("--memory-max", type=click.IntRange(min=1), metavar="MIB", help="Use no more memory.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=40, show_default=True, help="Measure so long, about."
)
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: Path | None,
    root: Path | None,
    config: Path | None,
    scenario: str,
    threads_max: int | None,
    memory_max: int | None,
    seconds: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure threads, KV cache types and batch lengths with MODEL on this machine, and set the best ones.

    MODEL is a bundle or model file; with --root it is the active one there. On a device without edgebit the daemon
    does the same: python3 edgebitd.pyz tune --root ROOT.

    \b
    edgebit tune chat.bundle --scenario mobile
    edgebit tune --root ~/.local/share/edgebit --scenario server
    """
    if (model is None) == (root is None):
        raise click.UsageError("give MODEL or --root, one of them")
    place = model if model is not None else (root or Path()).resolve() / "active"
    config_path = config if config is not None or root is None else root / CONFIG_NAME
    outcome = tune_and_write(
        place.resolve(),
        scenario,
        Limits(threads=threads_max, memory_mib=memory_max, seconds=seconds),
        config_path,
        write=not dry_run,
        progress=lambda text: click.echo(f"measuring {text}", err=True),
    )
    if as_json:
        click.echo(json.dumps(_as_dict(outcome), indent=2, ensure_ascii=False))
    else:
        click.echo(printable("\n".join([*lines(outcome.tuning), "", outcome.said])))


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    tuning = outcome.tuning
    return {
        "scenario": tuning.scenario,
        "engine": engine_settings(tuning),
        "changed": outcome.changed,
        "reasons": list(tuning.reasons),
        "measured": [
            {
                **dataclasses.asdict(row.setting),
                **dataclasses.asdict(row.speed),
                "answer_s": row.seconds,
                "core_s": row.core_seconds,
                "memory_bytes": row.memory_bytes,
            }
            for row in tuning.rows
        ],
    }
