"""A bundle in the form that others take: Mender, hawkBit, thin-edge.io, container engines, Kubernetes.

Each export fills a folder: the adapter's own README, and what it lists.
"""

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgebit.bundle.archive import Bundle
from edgebit.bundle.manifest import MANIFEST_NAME, MODEL_MEMBER
from edgebit.errors import BuildError
from edgebit.fleet.oci_image import USER, image_arch, write_image
from edgebit.fleet.swu_file import Content, write_swu
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.resources import package_dir

DEVICE_ROOT = "/var/lib/edgebit"  # where an update manager, as root, has edgebit live
BASE_IMAGE = "python:3.13-slim"
MEMORY_MARGIN_MIB = 192  # Python, the daemon, and a KV cache

_ADAPTERS = package_dir() / "fleet" / "adapters"
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
_REVISION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FOLDER = re.compile(r"/[A-Za-z0-9_./+-]*")


def export_mender(bundle: Bundle, out: Path, *, device_types: Sequence[str], root: str = DEVICE_ROOT) -> list[Path]:
    """Write the update module, and the artifact where mender-artifact is installed; gives the files.

    Raises BuildError, with the command to run, where it is not.
    """
    made = [_script(out, "mender", root)]
    artifact = out / f"{_file_name(bundle)}.mender"
    payload = _plain_bundle(bundle, out)
    argv = ["mender-artifact", "write", "module-image", "--type", "edgebit", "--compression", "none"]
    argv += ["--artifact-name", _file_name(bundle)]
    argv += [word for kind in device_types for word in ("--device-type", kind)]
    argv += ["--software-name", "edgebit", "--software-version", bundle.id]
    argv += ["--file", str(payload), "--output-path", str(artifact)]
    if shutil.which("mender-artifact") is None:
        raise BuildError(
            "there is no mender-artifact on this machine, which makes the artifact. Install it (sudo apt install"
            f" mender-artifact), or run where it is: {shlex.join(argv)}"
        )
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"mender-artifact failed: {(done.stderr or done.stdout).strip()}")
    if payload != bundle.path:
        payload.unlink()
    return [*made, artifact]


def export_hawkbit(
    bundle: Bundle,
    out: Path,
    *,
    hardware: Sequence[str],
    root: str = DEVICE_ROOT,
    certificate: Path | None = None,
    key: Path | None = None,
) -> list[Path]:
    """Write an update for SWUpdate, which hawkBit hands out; gives the file.

    hardware: revisions that may take it. certificate, key: PEM, to sign with.
    """
    if (certificate is None) != (key is None):
        raise BuildError("--certificate and --key go together")
    for revision in hardware:
        if not _REVISION.fullmatch(revision):
            raise BuildError(f"--hardware {revision!r} is not made of letters, digits and . _ -")
    if not bundle.path.is_file():
        raise _no_file(bundle)
    _check_root(root)
    _begin(out, "hawkbit")
    file_name, folder = f"{_file_name(bundle)}.bundle", _ADAPTERS / "hawkbit"
    sequence = bundle.manifest.release.sequence if bundle.manifest.release else 0
    names = {
        "VERSION": f"{sequence}.0.0+{bundle.id}",  # what `swupdate --no-downgrading` compares
        "NAME": bundle.manifest.name,
        "ID": bundle.id,
        "HARDWARE": ", ".join(f'"{revision}"' for revision in hardware),
        "FILE": file_name,
        "ROOT": root,
    }
    update = out / f"{_file_name(bundle)}.swu"
    with tempfile.TemporaryDirectory() as work:
        script = Path(work, "edgebit-install")
        script.write_text(_with(names, (folder / "edgebit-install").read_text(encoding="utf-8")), encoding="utf-8")
        description = _with(names, (folder / "sw-description").read_text(encoding="utf-8"))
        contents = [Content(file_name, bundle.path), Content("edgebit-install", script, executable=True)]
        write_swu(update, description, contents, (certificate, key) if certificate and key else None)
    return [update]


def export_thin_edge(bundle: Bundle, out: Path, *, root: str = DEVICE_ROOT) -> list[Path]:
    """Write the plugin, and the bundle under the name that its url may have; gives the files."""
    made = _script(out, "thin_edge", root)
    copy = out / f"{_file_name(bundle)}.bundle"
    if not bundle.path.is_file():
        raise _no_file(bundle)
    shutil.copyfile(bundle.path, copy)
    return [made, copy]


def export_oci(bundle: Bundle, out: Path, *, base: Path | None = None, base_name: str = BASE_IMAGE) -> list[Path]:
    """Write a Dockerfile with what it copies, and, with a base at hand, the image itself; gives the files.

    base: an OCI layout, a folder or a tar.
    """
    image_arch(bundle)
    _begin(out, "oci")
    folder = out / "bundle"
    if folder.exists():
        shutil.rmtree(folder)
    for name in bundle.members:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        bundle.extract(name, place)
        place.chmod(0o755 if name.startswith("bin/") else 0o644)
    (folder / MANIFEST_NAME).write_bytes(bundle.manifest_bytes)
    made = [_filled(out, "oci", "Dockerfile", {"BASE": base_name, "USER": str(USER)})]
    if base is not None:
        image = out / f"{_file_name(bundle)}.oci.tar"
        write_image(image, bundle, base, tag=f"edgebit:{bundle.id}")
        made.append(image)
    return made


def export_kubernetes(bundle: Bundle, out: Path, *, image: str, mqtt: str) -> list[Path]:
    """Write the manifest of a DaemonSet that runs the bundle's image; gives the files.

    mqtt: the broker as the nodes see it, mqtt[s]://[USER@]HOST[:PORT]; a password belongs into a Secret.
    Raises BuildError for what cannot stand in a manifest.
    """
    if not _IMAGE.fullmatch(image):
        raise BuildError(f"{image!r} is no image's name. Write it as registry/name:tag")
    broker = parse_broker_url(mqtt)
    if broker.password is not None:
        raise BuildError("a password does not belong in a manifest: make a Secret of it, as README.md shows")
    if broker.user is not None and not re.fullmatch(r"[A-Za-z0-9_.@-]+", broker.user):
        raise BuildError(f"the broker's user {broker.user!r} has characters that a manifest would have to quote")
    user = f'    user = "{broker.user}"\n    password_file = "mqtt.password"\n' if broker.user else ""
    model_mib = bundle.manifest.files[MODEL_MEMBER].size >> 20
    _begin(out, "kubernetes")
    names = {
        "MQTT": str(broker),
        "MQTT_USER": user,
        "ID": bundle.id,
        "ARCH": image_arch(bundle),
        "UID": str(USER),
        "IMAGE": image,
        "MEMORY": str(model_mib + MEMORY_MARGIN_MIB),
    }
    return [_filled(out, "kubernetes", "daemonset.yaml", names)]


def _script(out: Path, adapter: str, root: str) -> Path:
    """The adapter's program for the device."""
    _check_root(root)
    _begin(out, adapter)
    script = _filled(out, adapter, "edgebit", {"ROOT": root})
    script.chmod(0o755)
    return script


def _check_root(root: str) -> None:
    """It is written into a program."""
    if not _FOLDER.fullmatch(root) or ".." in root.split("/"):
        raise BuildError(f"{root!r} is no absolute path of plain names. Choose another --root")


def _begin(out: Path, adapter: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_ADAPTERS / adapter / "README.md", out / "README.md")


def _filled(out: Path, adapter: str, name: str, names: Mapping[str, str]) -> Path:
    text = _with(names, (_ADAPTERS / adapter / name).read_text(encoding="utf-8"))
    (out / name).write_text(text, encoding="utf-8")
    return out / name


def _with(names: Mapping[str, str], text: str) -> str:
    for key, value in names.items():
        text = text.replace(f"@{key}@", value)
    return text


def _plain_bundle(bundle: Bundle, out: Path) -> Path:
    """The bundle as a file called NAME.bundle: itself, or a copy."""
    if not bundle.path.is_file():
        raise _no_file(bundle)
    if bundle.path.suffix == ".bundle":
        return bundle.path
    copy = out / f"{_file_name(bundle)}.bundle"
    shutil.copyfile(bundle.path, copy)
    return copy


def _file_name(bundle: Bundle) -> str:
    return f"{bundle.manifest.name}-{bundle.id}"


def _no_file(bundle: Bundle) -> BuildError:
    return BuildError(f"{bundle.path} is a folder; this takes a bundle in one file. Build it with --out NAME.bundle")
