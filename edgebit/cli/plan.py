"""edgebit plan: what a model will need and reach on a device, before anything is built."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

from edgebit.cli.name_or_file import complete_name_or_file
from edgebit.cli.targets import complete_target
from edgebit.cli.terminal import print_table, printable
from edgebit.footprint import KV_TYPES
from edgebit.plan.adapter_memory import adapter_facts_of
from edgebit.plan.device_plan import MIB, SYSTEM_BYTES, Plan, PlanOptions, make_plan, make_plans
from edgebit.plan.host_check import Check, Checks, check_plan, measure_host
from edgebit.plan.model_facts import facts_of
from edgebit.roofline import ENGINE_SHARE, LAYOUT_BITS, Estimate, Range
from edgebit.runtime.library import Library
from edgebit.synthesize import SHAPES
from edgebit.targets import HOST, find_target, list_targets

_FIGURES = {"clock_ghz": "GHz", "read_gb_s": "GB/s", "read_core_gb_s": "GB/s", "memory_mib": "MiB", "idle_w": "W",
            "load_w": "W", "cycles_per_weight": "cycles"}  # fmt: skip


@click.command()
@click.argument("model", shell_complete=complete_name_or_file(SHAPES))
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="NAME|FILE",
    shell_complete=complete_target,
    help="A device (`edgebit targets`); may be repeated.  [default: host, this machine]",
)
@click.option("--all", "every", is_flag=True, help="All targets that have figures.")
@click.option("--context", type=click.IntRange(min=1), metavar="TOKENS", help="KV cache length.  [default: 2048]")
@click.option("--threads", type=click.IntRange(1, 256), help="Worker threads.  [default: one for each big core]")
@click.option("--kv", type=click.Choice(KV_TYPES), default=KV_TYPES[0], show_default=True, help="Type of the KV cache.")
@click.option(
    "--layout",
    type=click.Choice(["auto", *LAYOUT_BITS]),
    default="auto",
    show_default=True,
    help="Of the projections; auto: as stored, or the fastest on the target.",
)
@click.option(
    "--memory", type=click.IntRange(min=1), metavar="MIB", help="RAM, where the device has more than the least."
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An adapter file that is loaded beside MODEL; may be repeated.",
)
@click.option("--check", is_flag=True, help="Measure on this machine, and compare. MODEL must be a file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: str,
    names: tuple[str, ...],
    every: bool,
    context: int | None,
    threads: int | None,
    kv: str,
    layout: str,
    memory: int | None,
    adapters: tuple[Path, ...],
    check: bool,
    as_json: bool,
) -> None:
    """Predict RAM, speed and energy of MODEL on a device, and whether it fits.

    MODEL is a checkpoint's folder or GGUF file, a model file, a bundle, or a shape: 2b4t, 1bitllm-3b, tiny. These are
    estimates, from bytes, bandwidth and cycles; for this machine they are made from a measurement, which takes a few
    seconds.

    \b
    edgebit plan 2b4t --target rpi5
    edgebit plan chat.bundle --check
    edgebit plan chat.bundle --target rpi-zero2w --adapter garden.adapter
    """
    if every and names:
        raise click.UsageError("--all and --target: leave one of them out")
    facts = facts_of(model)
    options = PlanOptions(
        context=context, kv=kv, layout=layout, threads=threads, memory_mib=memory,
        adapters=tuple(adapter_facts_of(path, facts.conf) for path in adapters),
    )  # fmt: skip
    chosen = [target.name for target in list_targets() if target.read_gb_s] if every else list(names) or [HOST]
    if check and chosen != [HOST]:
        raise click.UsageError("--check is for this machine: leave --target and --all out")
    plans: list[Plan] = []
    checked: Checks | None = None
    for name in chosen:
        if name == HOST:
            library = Library.load()
            target, machine = measure_host(library)
            plans.append(make_plan(facts, target, options, machine))
            checked = check_plan(plans[-1], facts, machine, library) if check else None
        else:
            plans += make_plans(facts, find_target(name), options)
    if as_json:
        click.echo(json.dumps(_as_dict(plans, checked), indent=2, ensure_ascii=False))
    else:
        _print(plans, checked, Console())


def _print(plans: list[Plan], checked: Checks | None, console: Console) -> None:
    first = plans[0]
    title = f"{first.model}, context {first.context}, KV cache {first.kv}"
    console.print(printable(title), markup=False, highlight=False)
    console.print("decode with an empty context and at its end, and prefill, in tok/s", highlight=False)
    console.print()
    heads = ("device", "layout", "RAM of MiB", "fits", "decode", "at end", "prefill", "J/token")
    columns = (Column(head, no_wrap=True) for head in heads)
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)  # so that most fit into 80 columns
    for plan in plans:
        available = "?" if plan.available_bytes is None else f"{plan.available_bytes / MIB:,.0f}"
        table.add_row(
            plan.target.name,
            plan.layout,
            f"{plan.memory_bytes / MIB:,.0f} of {available}",
            _FITS[plan.fits],
            _rate(plan.decode),
            _rate(plan.decode_full),
            _rate(plan.prefill),
            "?" if plan.joules_per_token is None else f"{plan.energy_class} {_range(plan.joules_per_token)}",
        )
    print_table(table)
    for plan in plans:
        console.print()
        _print_reasons(plan, console)
    if checked is not None:
        _print_checks(checked, console)
    console.print()
    console.print(
        f"Estimates, not measurements: from {100 * ENGINE_SHARE:.0f} % of the lowest bandwidth and cycles to all of the"
        f" highest. {SYSTEM_BYTES // MIB} MiB are left to the system. Heat is not in it.",
        style="dim",
    )


_FITS = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "?"}


def _print_reasons(plan: Plan, console: Console) -> None:
    def say(text: str) -> None:
        console.print(f"  {printable(text)}", markup=False, highlight=False, soft_wrap=True)

    console.print(f"[bold]{plan.target.name}[/bold]", highlight=False)
    say("RAM, MiB: " + ", ".join(f"{name} {size / MIB:,.0f}" for name, size in plan.memory.items()))
    say(f"layout {plan.layout}, {plan.threads} threads: {plan.layout_reason}")
    say(f"a decode step reads {plan.bytes_per_token / 1e6:,.0f} MB" + _bounds(plan.decode))
    sources = dict(plan.target.sources)
    for figure, unit in _FIGURES.items():
        if figure in sources:
            say(f"{figure} {_figure(getattr(plan.target, figure))} {unit}: {sources[figure]}")
    for note in plan.notes:
        say(note)


def _bounds(decode: Estimate | None) -> str:
    if decode is None:
        return ""
    return "; bound by " + ", ".join(f"{bound} ({part})" for part, bound in decode.bounds.items() if part != "norms")


def _figure(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        known = {key: cycles for key, cycles in dataclasses.asdict(value).items() if cycles is not None}
        return ", ".join(f"{key} {cycles}" for key, cycles in known.items())
    return " to ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print_checks(checked: Checks, console: Console) -> None:
    console.print()
    console.print("[bold]checked[/bold] with one run of the engine alone", highlight=False)
    heads = ("", "predicted", "measured", "ratio", "")
    table = Table(*(Column(head, no_wrap=True) for head in heads), box=None, header_style="bold")
    rows = {
        "prefill, tok/s": (checked.prefill, 1),
        f"decode after {checked.context} tokens, tok/s": (checked.decode, 1),
        "RAM, MiB": (checked.memory, MIB),
    }
    for name, (check, unit) in rows.items():
        if check is None:
            table.add_row(name, "?", "?", "?", "")
        else:
            predicted = Range(check.predicted.low / unit, check.predicted.high / unit)
            place = "within" if check.within else "[yellow]outside[/yellow]"
            table.add_row(name, _range(predicted), f"{check.measured / unit:,.1f}", f"{check.ratio:.2f}", place)
    print_table(table)


def _rate(estimate: Estimate | None) -> str:
    return "?" if estimate is None else _range(estimate.tokens_s)


def _range(value: Range) -> str:
    digits = 1 if value.low < 10 else 0
    if value.low < 1:  # two that say something
        digits = 1 - math.floor(math.log10(value.low)) if value.low > 0 else 2
    return f"{value.low:.{digits}f}-{value.high:.{digits}f}"


def _as_dict(plans: list[Plan], checked: Checks | None) -> dict[str, Any]:
    found: dict[str, Any] = {"estimate": True, "plans": [_plan_as_dict(plan) for plan in plans]}
    if checked is not None:
        found["check"] = {
            "context": checked.context,
            "decode_tok_s": _check_as_dict(checked.decode),
            "prefill_tok_s": _check_as_dict(checked.prefill),
            "memory_bytes": _check_as_dict(checked.memory),
        }
    return found


def _check_as_dict(check: Check | None) -> dict[str, Any] | None:
    if check is None:
        return None
    return {
        "predicted": list(check.predicted),
        "measured": check.measured,
        "ratio": check.ratio,
        "within": check.within,
    }


def _plan_as_dict(plan: Plan) -> dict[str, Any]:
    return {
        "model": plan.model,
        "target": plan.target.name,
        "layout": plan.layout,
        "layout_reason": plan.layout_reason,
        "kv": plan.kv,
        "context": plan.context,
        "threads": plan.threads,
        "memory": dict(plan.memory),
        "memory_bytes": plan.memory_bytes,
        "available_bytes": plan.available_bytes,
        "fits": plan.fits,
        "bytes_per_token": plan.bytes_per_token,
        "decode": _estimate_as_dict(plan.decode),
        "decode_full": _estimate_as_dict(plan.decode_full),
        "prefill": _estimate_as_dict(plan.prefill),
        "joules_per_token": None if plan.joules_per_token is None else list(plan.joules_per_token),
        "energy_class": plan.energy_class,
        "sources": dict(plan.target.sources),
        "notes": list(plan.notes),
    }


def _estimate_as_dict(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "tok_s": list(estimate.tokens_s),
        "bounds": dict(estimate.bounds),
        "missing": list(estimate.missing),
    }
