"""edgebit fleet export: a bundle for other update managers and orchestrators."""

from pathlib import Path
from typing import Any

import click

from edgebit.bundle.archive import open_bundle
from edgebit.errors import BuildError
from edgebit.fleet.export import (
    BASE_IMAGE,
    DEVICE_ROOT,
    export_hawkbit,
    export_kubernetes,
    export_mender,
    export_oci,
    export_thin_edge,
)

_BUNDLE = click.argument("bundle", type=click.Path(exists=True, path_type=Path))
_OUT = click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to fill.")
_FORCE = click.option("--force", is_flag=True, help="Write over what is in the folder.")
_ROOT = click.option("--root", default=DEVICE_ROOT, show_default=True, help="Where edgebit lives on the device.")


@click.group("export")
def export() -> None:
    """Put a bundle into the form that another update manager takes. Each has a README.md that says how to go on.

    \b
    edgebit fleet export mender chat.bundle --device-type raspberrypi4 --out mender/
    edgebit fleet export k8s chat.bundle --image registry.local/edgebit:1 --mqtt mqtt://broker.local --out k8s/
    """


@export.command(short_help="Mender: an update module, and its artifact.")
@_BUNDLE
@_OUT
@_FORCE
@_ROOT
@click.option("--device-type", "device_types", multiple=True, required=True, help="As Mender knows the device.")
@click.option("--artifact-name", default="", help="[default: the bundle's name and id]")
def mender(bundle: Path, out: Path, force: bool, **options: Any) -> None:
    """Mender: an update module, and the artifact made by mender-artifact.

    \b
    edgebit fleet export mender chat.bundle --device-type raspberrypi4 --out mender/
    """
    _refuse_full(out, force)
    _show(export_mender(open_bundle(bundle), out, **options))


@export.command(short_help="hawkBit: an update for SWUpdate.")
@_BUNDLE
@_OUT
@_FORCE
@_ROOT
@click.option("--hardware", multiple=True, required=True, help="Revision of the devices, as SWUpdate knows it.")
@click.option("--certificate", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM, to sign with.")
@click.option("--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its private key, PEM.")
def hawkbit(bundle: Path, out: Path, force: bool, **options: Any) -> None:
    """hawkBit: an update for SWUpdate, which installs what hawkBit hands out.

    \b
    edgebit fleet export hawkbit chat.bundle --hardware 1.0 --certificate fleet.pem --key fleet.key --out hawkbit/
    """
    _refuse_full(out, force)
    _show(export_hawkbit(open_bundle(bundle), out, **options))


@export.command("thin-edge")
@_BUNDLE
@_OUT
@_FORCE
@_ROOT
def thin_edge(bundle: Path, out: Path, force: bool, root: str) -> None:
    """thin-edge.io: a software management plugin.

    \b
    edgebit fleet export thin-edge chat.bundle --out thin-edge/
    """
    _refuse_full(out, force)
    _show(export_thin_edge(open_bundle(bundle), out, root=root))


@export.command(short_help="OCI: a Dockerfile and its files, or a whole image.")
@_BUNDLE
@_OUT
@_FORCE
@click.option(
    "--base",
    type=click.Path(exists=True, path_type=Path),
    metavar="LAYOUT",
    help="An OCI layout with python3, folder or tar: the image is written here, without an engine.",
)
@click.option("--base-name", default=BASE_IMAGE, show_default=True, help="What the Dockerfile begins from.")
def oci(bundle: Path, out: Path, force: bool, base: Path | None, base_name: str) -> None:
    """OCI: a Dockerfile with what it copies, and with --base the image itself.

    \b
    edgebit fleet export oci chat.bundle --out image/ && docker build -t edgebit image/
    """
    _refuse_full(out, force)
    _show(export_oci(open_bundle(bundle), out, base=base, base_name=base_name))


@export.command()
@_BUNDLE
@_OUT
@_FORCE
@click.option("--image", required=True, help="The image's name, as the nodes pull it.")
@click.option("--mqtt", required=True, metavar="URL", help="The broker, as the nodes see it.")
def k8s(bundle: Path, out: Path, force: bool, image: str, mqtt: str) -> None:
    """Kubernetes and k3s: a DaemonSet, a daemon on each node.

    \b
    edgebit fleet export k8s chat.bundle --image registry.local/edgebit:1 --mqtt mqtt://broker.local --out k8s/
    """
    _refuse_full(out, force)
    _show(export_kubernetes(open_bundle(bundle), out, image=image, mqtt=mqtt))


def _refuse_full(out: Path, force: bool) -> None:
    if not force and out.is_dir() and any(out.iterdir()):
        raise BuildError(f"{out} is there already and not empty. Give another --out, or --force to write over it")


def _show(made: list[Path]) -> None:
    for path in made:
        click.echo(f"wrote {path}")
    click.echo(f"How to go on: {made[0].parent / 'README.md'}")
