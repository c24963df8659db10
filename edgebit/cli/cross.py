"""edgebit cross: the images that compile the engine for other machines, and whether what they compile repeats."""

import dataclasses
import datetime
import json
import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.table import Table

from edgebit.cli.targets import complete_target
from edgebit.cli.terminal import print_table, printable
from edgebit.cross.container import ENGINE_VARIABLE, ENGINES, ContainerEngine, find_container_engine
from edgebit.cross.images import (
    ImageState,
    Recipe,
    build_image,
    image_state,
    image_triples,
    plan_image,
    pull_digest,
    read_images,
    read_versions,
    recipe_of,
    require_image,
    shell_command,
    write_pins,
)
from edgebit.cross.reproduce import check_reproducible
from edgebit.cross.toolchain import BUILDERS
from edgebit.errors import BuildError
from edgebit.resources import cross_dir
from edgebit.targets import find_target

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

_target = click.argument("target_name", metavar="TARGET", shell_complete=complete_target)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_engine = click.option(
    "--engine",
    "engine_name",
    type=click.Choice(ENGINES),
    help=f"Who runs containers.  [default: ${ENGINE_VARIABLE}, else the first that answers]",
)
_base = click.option("--base", metavar="IMAGE", help="Build on IMAGE, a Debian 12, not on the pinned base.")
_mirror = click.option("--mirror", metavar="URL", help="Debian's archive, or a dated copy of it.")
_network = click.option(
    "--network", metavar="NAME", help="Of the build's steps: `host` where the engine's own has no way out."
)
_dry_run = click.option("--dry-run", is_flag=True, help="Print what would be run, and run nothing.")


@click.group()
def command() -> None:
    """Build, list and enter the images that `edgebit build --builder docker` compiles in.

    \b
    edgebit cross build rpi
    edgebit build ./bitnet-2b --target rpi --builder docker
    """


@command.command(short_help="Build a target's image.")
@_target
@_engine
@_base
@_mirror
@_network
@click.option("--fresh", is_flag=True, help="Use no layer of an earlier build.")
@_dry_run
@_as_json
def build(
    target_name: str,
    engine_name: str | None,
    base: str | None,
    mirror: str | None,
    network: str | None,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build the image for TARGET: Debian's cross compiler with the libc of its triple, or for Android Google's NDK.

    For Linux it fetches about 100 MB of packages from Debian's archive. Targets of one triple share an image.

    \b
    edgebit cross build rpi
    edgebit cross build rpi --base debian:bookworm --network host
    """
    recipe = recipe_of(find_target(target_name).triple)
    engine = find_container_engine(engine_name)
    argv = plan_image(recipe, engine, base=base, mirror=mirror, network=network, fresh=fresh)
    if dry_run:
        _print_plan(argv, engine, recipe, as_json)
        return
    if base is None and not recipe.base_has_digest:
        click.echo(f"base: {recipe.base}, pinned by its name alone (cross/images.toml)", err=True)
    click.echo(f"{recipe.tag}: building with {engine.name} {engine.version}", err=True)
    state = build_image(recipe, engine, argv, lambda line: click.secho(printable(line), dim=True, err=True))
    if as_json:
        click.echo(json.dumps(_as_dict(state, engine), indent=2))
    else:
        click.echo(f"{recipe.tag} is ready: {_mib(state.size)}, recipe {recipe.id}, on {state.base}")


@command.command("list", short_help="List the images, and whether they are built.")
@_engine
@_as_json
def list_images(engine_name: str | None, as_json: bool) -> None:
    """List the images: for which targets, whether they are built, from which pins.

    \b
    edgebit cross list
    """
    engine, missing = None, ""
    try:
        engine = find_container_engine(engine_name)
    except BuildError as error:
        missing = str(error)
    rows = []
    for triple, targets in image_triples().items():
        recipe = recipe_of(triple)
        rows.append((image_state(recipe, engine) if engine else ImageState(recipe=recipe, state="missing"), targets))
    if as_json:
        images = [{**_as_dict(state, engine), "targets": targets} for state, targets in rows]
        said = {"engine": dataclasses.asdict(engine) if engine else None, "problem": missing or None, "images": images}
        click.echo(json.dumps(said, indent=2))
        return
    table = Table(box=None, header_style="bold")
    for heading in ("image", "state", "size", "recipe"):
        table.add_column(heading, no_wrap=True)
    table.add_column("targets")
    for state, targets in rows:
        shown = state.state if engine else "no engine"
        recipe = state.recipe
        table.add_row(recipe.tag, shown, _mib(state.size), recipe.id, " ".join(targets) or "your own")
    print_table(table)
    if missing:
        click.echo(missing, err=True)


@command.command(short_help="Open a shell in a target's image.")
@_target
@_engine
@_dry_run
@_as_json
def shell(target_name: str, engine_name: str | None, dry_run: bool, as_json: bool) -> None:
    """Open a shell in TARGET's image, in your working folder, with the engine's sources in /src, read-only.

    $CC links programs for TARGET: with glibc for the image's floor and all that is newer, static with musl, with
    Android's libc from the image's API level on. There is no network in it.

    \b
    edgebit cross shell rpi
    """
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run: a shell prints what it likes")
    target = find_target(target_name)
    engine = find_container_engine(engine_name)
    state = require_image(target, engine)
    assert state.id is not None
    argv = shell_command(state.recipe, engine, state.id)
    if dry_run:
        _print_plan(argv, engine, state.recipe, as_json)
        return
    if not sys.stdin.isatty():
        raise BuildError("edgebit cross shell needs a terminal. In a script, take the command of --dry-run")
    os.execv(argv[0], argv)


@command.command(short_help="Build twice with each builder, and compare the bytes.")
@_target
@click.option(
    "--builder",
    "builders",
    type=click.Choice([name for name in BUILDERS if name != "auto"]),
    multiple=True,
    help="Only this one; may be given again.  [default: all that can be had here]",
)
@_as_json
def check(target_name: str, builders: tuple[str, ...], as_json: bool) -> None:
    """Build the engine for TARGET twice with each builder, and compare the bytes.

    Two builders with the same compiler, as Debian's on this machine and in the image, must give equal bytes too.

    \b
    edgebit cross check rpi
    """
    target = find_target(target_name)
    checks, rebuilds = check_reproducible(target, builders, lambda line: click.echo(line, err=True))
    if as_json:
        built = [
            {
                "builder": one.builder,
                "compiler": one.toolchain.compiler,
                "toolchain_id": one.toolchain_id,
                "builds": one.sums,
            }
            for one in rebuilds
        ]
        click.echo(json.dumps({"checks": [dataclasses.asdict(one) for one in checks], "builders": built}, indent=2))
    else:
        for one in checks:
            click.echo(f"{one.status:<8} {one.name}: {one.detail}")
        for built_by in rebuilds:
            for name, digest in built_by.sums[0].items():
                click.echo(f"{digest}  {name} ({built_by.builder})")
    failed = [one.name for one in checks if one.status == "failed"]
    if failed:
        raise BuildError(
            f"the bytes do not repeat: {', '.join(failed)}. A compiler at fault, or a bug of edgebit: report it"
        )
    if not rebuilds:
        raise BuildError("nothing was built: none of the builders can be had. See above what each of them needs")


@command.command(short_help="Write today's package versions into cross/images.toml.")
@_engine
@_base
@_mirror
@_network
@_dry_run
def pin(engine_name: str | None, base: str | None, mirror: str | None, network: str | None, dry_run: bool) -> None:
    """Write today's versions of the images' packages, and the base's digest, into cross/images.toml.

    It asks Debian's archive from a container of the base. Images are then built anew, with `edgebit cross build`.

    \b
    edgebit cross pin --dry-run
    """
    path = cross_dir() / "images.toml"
    engine = find_container_engine(engine_name)
    said = read_images(path)["base"]
    digest = pull_digest(engine, said["image"])
    if not digest:
        digest = said["digest"]
        click.echo(f"{said['image']} cannot be pulled: its digest stays {digest or 'unknown'}", err=True)
    versions = read_versions(engine, base or said["image"], network=network, mirror=mirror)
    changes = write_pins(path, versions, digest, datetime.datetime.now(datetime.UTC).date(), dry_run=dry_run)
    for line in changes:
        click.echo(line)
    click.echo(f"{path}: {len(changes)} changes{', not written' if dry_run else ''}")


def _print_plan(argv: tuple[str, ...], engine: ContainerEngine, recipe: Recipe, as_json: bool) -> None:
    if as_json:
        plan = {"image": recipe.tag, "recipe": recipe.id, "engine": dataclasses.asdict(engine), "command": argv}
        click.echo(json.dumps(plan, indent=2))
    else:
        click.echo(shlex.join(argv))


def _as_dict(state: ImageState, engine: ContainerEngine | None) -> dict[str, Any]:
    return {
        "image": state.recipe.tag,
        "triple": state.recipe.triple,
        "state": state.state if engine else "unknown",
        "id": state.id,
        "size": state.size,
        "recipe": state.recipe.id,
        "pinned": state.recipe.pinned,
        "base": state.base or state.recipe.base,
        "base_has_digest": state.recipe.base_has_digest,
    }


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size >> 20} MiB"
