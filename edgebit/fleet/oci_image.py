"""A bundle as an OCI image, written without a container engine: a base image with python3, and one layer on top.

The same bundle and base give the same bytes. Source: OCI Image Format Specification 1.0 (layout, manifest, config).
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from edgebit.bundle.archive import Bundle
from edgebit.bundle.manifest import MANIFEST_NAME
from edgebit.bundle.part_file import PartFile
from edgebit.errors import BuildError

USER = 10001  # in the image: nobody's on any node
ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}  # as bundles and as images call them
FOLDER = "opt/edgebit"
ENTRYPOINT = ["python3", f"/{FOLDER}/edgebitd.pyz", "run", "--bundle", f"/{FOLDER}",
              "--config", "/etc/edgebit/edgebitd.toml", "--state", "/var/lib/edgebit"]  # fmt: skip

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_JSON_MAX = 4 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Blob:
    """A piece of an image: its digest, size, and who writes it."""

    digest: str
    size: int
    write: Callable[[IO[bytes]], None]


def image_arch(bundle: Bundle) -> str:
    """The architecture of the bundle as images call it. Raises BuildError where images have no name for it."""
    arch = bundle.manifest.target.arch
    if arch not in ARCHITECTURES:
        raise BuildError(f"there are no images for {arch}, only for {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[arch]


def write_image(out: Path, bundle: Bundle, base: Path, tag: str) -> str:
    """Write the image as an OCI archive, which docker load takes too; gives its digest.

    base: an OCI layout, a folder or a tar, with an image for the bundle's architecture.
    Raises BuildError where the base is none, or damaged.
    """
    arch, created = image_arch(bundle), datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    with _open_layout(base) as layout:
        manifest = layout.manifest(arch)
        layers = manifest["layers"]
        blobs = [layout.blob(layer) for layer in layers]
        config = layout.json(manifest["config"])
        layer = _layer_blob(bundle)
        settings = {**config.get("config", {}), "Entrypoint": ENTRYPOINT, "User": str(USER), "WorkingDir": "/"}
        settings.pop("Cmd", None)
        settings["Volumes"] = {"/var/lib/edgebit": {}}
        said = {"created": created.strftime("%Y-%m-%dT%H:%M:%SZ"), "created_by": f"edgebit bundle {bundle.id}"}
        config |= {
            "created": said["created"],
            "config": settings,
            "history": [*config.get("history", []), said],
            "rootfs": {"type": "layers", "diff_ids": [*config["rootfs"]["diff_ids"], layer.digest]},
        }
        config_blob = _json_blob(config)
        manifest_blob = _json_blob(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, config_blob),
                "layers": [*layers, _descriptor(_LAYER, layer)],
                "annotations": {"edgebit.bundle": bundle.id, "edgebit.name": bundle.manifest.name},
            }
        )
        entry = {
            **_descriptor(_MANIFEST, manifest_blob),
            "platform": {"os": "linux", "architecture": arch},
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }
        older = {
            "Config": _place(config_blob),
            "RepoTags": [tag],
            "Layers": [_place(blob) for blob in (*blobs, layer)],
        }  # what `docker load` reads that does not know OCI layouts (before Docker 25)
        small = {
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
            "index.json": {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]},
            "manifest.json": [older],
        }
        _write_archive(out, small, [*blobs, layer, config_blob, manifest_blob])
        return manifest_blob.digest


def _write_archive(out: Path, small: Mapping[str, Any], blobs: list[_Blob]) -> None:
    with PartFile(out, BuildError) as part:
        file = part.file
        with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
            for name, value in small.items():
                _add(tar, name, _dump(value))
            for _, blob in sorted({blob.digest: blob for blob in blobs}.items()):
                info = _info(_place(blob), blob.size)
                file.write(info.tobuf(tarfile.PAX_FORMAT))
                blob.write(file)
                file.write(bytes(-blob.size % tarfile.BLOCKSIZE))
        part.commit()


def _layer_blob(bundle: Bundle) -> _Blob:
    """What the bundle adds to the base; written twice, first for its sum."""

    def write(sink: IO[bytes]) -> None:
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name, owner in (("etc/edgebit", 0), (FOLDER, 0), ("var/lib/edgebit", USER)):
                info = _info(name, 0)
                info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o755, owner, owner
                tar.addfile(info)
            _add(tar, f"{FOLDER}/{MANIFEST_NAME}", bundle.manifest_bytes)
            for name in sorted(bundle.members):
                member = bundle.member(name)
                info = _info(f"{FOLDER}/{name}", member.size)
                info.mode = 0o755 if name.startswith("bin/") else 0o644
                with member.path.open("rb") as source:
                    source.seek(member.offset)
                    tar.addfile(info, source)

    return _summed(write)


class _Layout:
    """An OCI layout, read with every digest checked."""

    def __init__(self, name: Path, open_file: Callable[[str], IO[bytes]]) -> None:
        self._name = name
        self._open = open_file

    def manifest(self, arch: str) -> dict[str, Any]:
        """The manifest of the image for an architecture."""
        try:
            with self._open("index.json") as file:
                index = json.loads(file.read(_JSON_MAX))
            return self._find(index, arch, set())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._bad(f"is no OCI layout ({error!r})") from error

    def _find(self, index: dict[str, Any], arch: str, seen: set[str]) -> dict[str, Any]:
        found = []
        for entry in index["manifests"]:
            if entry["mediaType"] == _INDEX and entry["digest"] not in seen:
                return self._find(self.json(entry), arch, seen | {entry["digest"]})
            if entry["mediaType"] != _MANIFEST:
                continue
            manifest = self.json(entry)
            config = self.json(manifest["config"])
            if config.get("os") == "linux" and config.get("architecture") == arch:
                return manifest
            found.append(str(config.get("architecture")))
        raise self._bad(f"holds no image for linux/{arch}, only for {', '.join(found) or 'none'}")

    def json(self, descriptor: Mapping[str, Any]) -> dict[str, Any]:
        """A small blob, read and parsed."""
        sink = io.BytesIO()
        if descriptor["size"] > _JSON_MAX:
            raise self._bad(f"{descriptor['digest']} is larger than such a file may be")
        self.blob(descriptor).write(sink)
        value = json.loads(sink.getvalue())
        if not isinstance(value, dict):
            raise self._bad(f"{descriptor['digest']} is no JSON object")
        return value

    def blob(self, descriptor: Mapping[str, Any]) -> _Blob:
        """A blob that is copied and checked on the way."""
        digest, size = str(descriptor["digest"]), int(descriptor["size"])
        kind, _, hexadecimal = digest.partition(":")
        if kind != "sha256" or len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):
            raise self._bad(f"has a digest that is no SHA-256: {digest!r}")

        def write(sink: IO[bytes]) -> None:
            total, left = hashlib.sha256(), size
            with self._open(f"blobs/sha256/{hexadecimal}") as file:
                while left and (chunk := file.read(min(_CHUNK, left))):
                    total.update(chunk)
                    sink.write(chunk)
                    left -= len(chunk)
                if left or file.read(1) or total.hexdigest() != hexadecimal:
                    raise self._bad(f"is damaged: blob {digest} is not what its name says")

        return _Blob(digest, size, write)

    def _bad(self, what: str) -> BuildError:
        return BuildError(
            f"{self._name} {what}. Fetch one: skopeo copy docker://docker.io/library/python:3.13-slim oci:FOLDER"
        )


@contextmanager
def _open_layout(path: Path) -> Iterator[_Layout]:
    if path.is_dir():

        def open_file(name: str) -> IO[bytes]:
            try:
                return (path / name).open("rb")
            except OSError as error:
                raise BuildError(f"{path / name} cannot be read: {error.strerror}. Name an OCI layout") from error

        yield _Layout(path, open_file)
        return
    try:
        tar = tarfile.open(path)  # noqa: SIM115 - closed below
    except (OSError, tarfile.TarError) as error:
        raise BuildError(f"{path} is neither a folder nor a tar: {error}. Name an OCI layout") from error
    with tar:

        def open_member(name: str) -> IO[bytes]:
            for written in (name, f"./{name}"):
                try:
                    member = tar.extractfile(written)
                except KeyError:
                    continue
                if member is not None:
                    return member
            raise BuildError(f"{path} holds no {name}. Name an OCI layout")

        yield _Layout(path, open_member)


def _summed(write: Callable[[IO[bytes]], None]) -> _Blob:
    sink = _Summing()
    write(sink)  # type: ignore[arg-type]
    return _Blob(f"sha256:{sink.total.hexdigest()}", sink.size, write)


class _Summing:
    """A file that only counts and sums."""

    def __init__(self) -> None:
        self.total, self.size = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.total.update(data)
        self.size += len(data)
        return len(data)


def _json_blob(value: Mapping[str, Any]) -> _Blob:
    data = _dump(value)

    def write(sink: IO[bytes]) -> None:
        sink.write(data)

    return _summed(write)


def _place(blob: _Blob) -> str:
    return f"blobs/sha256/{blob.digest.removeprefix('sha256:')}"


def _descriptor(kind: str, blob: _Blob) -> dict[str, Any]:
    return {"mediaType": kind, "digest": blob.digest, "size": blob.size}


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_info(name, len(data)), io.BytesIO(data))


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    info.mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    return info
