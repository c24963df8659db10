"""edgebit build: from a checkpoint to a bundle for a device."""

import dataclasses
import json
import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from edgebit.build import BuildOptions, BuildResult, build_bundle, default_out
from edgebit.checkpoint.hints import Hints
from edgebit.cli.checkpoint_options import checkpoint_options
from edgebit.cli.conversion_options import embedding_option, template_option
from edgebit.cli.ending_signals import signals_as_ctrl_c
from edgebit.cli.keys import key_password
from edgebit.cli.out_file import OUT_FILE, force_option
from edgebit.cli.targets import complete_target
from edgebit.cross.toolchain import BUILDERS
from edgebit.errors import BuildError
from edgebit.keys import Signing, find_public_key, find_secret_key, load_secret_key, plan_signing
from edgebit.targets import find_target


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--target",
    "target_name",
    required=True,
    metavar="NAME|FILE",
    shell_complete=complete_target,
    help="A device (`edgebit targets`).",
)
@click.option("--out", type=OUT_FILE, help="The bundle.  [default: MODEL-TARGET.bundle]")
@click.option(
    "--builder", type=click.Choice(BUILDERS), default="auto", show_default=True, help="Who compiles the engine."
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "t2", "t1"]),
    default="auto",
    show_default=True,
    help="Of ternary weights: t2 takes the fewest cycles, t1 the fewest bytes; auto: as the target's figures say.",
)
@checkpoint_options
@embedding_option
@template_option
@click.option("--sign", "sign_with", multiple=True, metavar="KEY", help="Sign it (`edgebit keys`); also by several.")
@click.option(
    "--key-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file whose first line is the keys' password.",
)
@click.option("--sequence", type=click.IntRange(0), help="Devices take none lower later.  [default: the time]")
@click.option("--expires", metavar="DATE|DAYSd", help="Last day that it may be installed.  [default: none]")
@click.option("--trust", multiple=True, metavar="KEY", help="Devices that keep it trust these keys from then on.")
@click.option("--onnx-library", is_flag=True, help="Put libedgebit_ort.so in: for ONNX Runtime on the device.")
@click.option("--name", help="The bundle's name.  [default: of its file]")
@force_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: Path,
    target_name: str,
    out: Path | None,
    builder: str,
    layout: Literal["auto", "t2", "t1"],
    embedding: Literal["exact", "int8"],
    hints: Hints,
    template: str | None,
    sign_with: tuple[str, ...],
    key_password_file: Path | None,
    sequence: int | None,
    expires: str | None,
    trust: tuple[str, ...],
    onnx_library: bool,
    name: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Convert MODEL, cross-build the engine, check both, and write a bundle.

    MODEL is a checkpoint's folder (config.json, tokenizer.json, safetensors), a GGUF file, or a model file. The builder
    `auto` takes the image where you built it (edgebit cross build TARGET), else zig where it is installed (pip install
    ziglang cmake ninja), else this machine's cross compiler, and says which.

    \b
    edgebit build ./bitnet-b1.58-2B-4T --target rpi --out chat.bundle
    """
    signals_as_ctrl_c()
    target = find_target(target_name)
    options = BuildOptions(
        model=model,
        target=target,
        out=out or default_out(model, target),
        builder=builder,
        layout=layout,
        embedding=embedding,
        hints=hints,
        template=template,
        onnx_library=onnx_library,
        name=name,
        force=force,
        signing=_signing(sign_with, key_password_file, sequence=sequence, expires=expires, trust=trust),
    )
    console = Console(stderr=True)
    with BuildDisplay(console) as display:
        result = build_bundle(options, display)
    if as_json:
        click.echo(json.dumps(_as_dict(result), indent=2, ensure_ascii=False))
    else:
        _print_summary(result)


def _signing(
    sign_with: Sequence[str],
    password_file: Path | None,
    *,
    sequence: int | None,
    expires: str | None,
    trust: Sequence[str],
) -> Signing | None:
    """What the options say of signing, with the keys unlocked; None without --sign."""
    if not sign_with:
        if sequence is not None or expires is not None or trust or password_file is not None:
            raise BuildError("--sequence, --expires, --trust and --key-password-file go with --sign KEY")
        return None
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or str(int(time.time()))
    if not epoch.isdecimal() or len(epoch) > 11:
        raise BuildError(f"SOURCE_DATE_EPOCH is {epoch!r}, and no number of seconds. Correct it, or unset it")
    places = [find_secret_key(text) for text in sign_with]
    keys = [load_secret_key(place, partial(key_password, password_file, f"key {place}")) for place in places]
    trusted = [find_public_key(text) for text in trust]
    now = datetime.fromtimestamp(int(epoch), UTC)
    return plan_signing(keys, now=now, sequence=sequence, expires=expires, trust=trusted)


class BuildDisplay:
    """Shows stages as they end, with their times, and a bar for the one in progress."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("  {task.description}"), BarColumn(bar_width=30), TimeElapsedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._stage, self._began = "", 0.0

    def __enter__(self) -> "BuildDisplay":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._end_stage()
        self._bar.stop()

    def stage(self, name: str) -> None:
        self._end_stage()
        self._stage, self._began = name, time.monotonic()
        self._task = self._bar.add_task(name, total=None)

    def progress(self, done: int, total: int) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", style="dim", markup=False, highlight=False, soft_wrap=True)

    def _end_stage(self) -> None:
        if self._task is None:
            return
        self._bar.remove_task(self._task)
        self._task = None
        seconds = time.monotonic() - self._began
        self._console.print(f"[green]✓[/green] {self._stage:<16} {seconds:6.1f} s", highlight=False)


def _print_summary(result: BuildResult) -> None:
    manifest = result.manifest
    bits = f", {result.bits_per_weight:.2f} bits a weight" if result.bits_per_weight is not None else ""
    passed = [check for check in result.checks if check.status == "passed"]
    click.echo(f"{result.out}: {result.size / (1 << 20):.1f} MiB, bundle {result.bundle_id}")
    click.echo(f"  model    {manifest.model.name}, {manifest.model.parameters / 1e6:.1f} M weights{bits}")
    if manifest.release is not None:
        until = f", until {manifest.release.expires:%Y-%m-%d %H:%M} UTC" if manifest.release.expires else ""
        click.echo(f"  signed   by key {' and '.join(result.signed_by)}, sequence {manifest.release.sequence}{until}")
    if manifest.build.builder == "installed":
        engine = "the installed one"
    else:
        engine = f"for {manifest.target.name}, by {manifest.build.compiler or manifest.build.builder}"
        engine += ", from the cache" if result.native_from_cache else ""
    click.echo(f"  engine   {engine}")
    click.echo(f"  checked  {len(passed)} checks passed" + _probes_text(result))
    for check in result.checks:
        if check.status != "passed":
            click.echo(f"  {check.status}  {check.name}: {check.detail}")


def _probes_text(result: BuildResult) -> str:
    ran = [
        check.name.removeprefix("probes on ")
        for check in result.checks
        if check.name.startswith("probes on ") and check.status == "passed"
    ]
    masks = [found[1] for name in ran if (found := re.fullmatch(r"this machine \((\w+)\)", name))]
    if masks and "this machine" in ran:
        ran = [f"this machine, with all it has and with {' and '.join(masks)} alone"]
    return f"; golden probes ran on {', '.join(ran)}" if ran else ""


def _as_dict(result: BuildResult) -> dict[str, object]:
    return {
        "out": str(result.out),
        "bundle": result.bundle_id,
        "size": result.size,
        "bits_per_weight": result.bits_per_weight,
        "native_from_cache": result.native_from_cache,
        "signed_by": result.signed_by,
        "manifest": json.loads(result.manifest.to_bytes()),
        "checks": [dataclasses.asdict(check) for check in result.checks],
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
    }
