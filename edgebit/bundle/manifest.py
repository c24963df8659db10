"""manifest.json: what a bundle holds, for which target, and the sum of every file (docs/bundle-format.md).

Standard library only: the device reads it too.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from edgebit.bundle.signature import PublicKey, parse_public_key
from edgebit.errors import BundleError

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
MANIFEST_MAX_BYTES = 1 << 20
SIGNATURE_NAME = "manifest.sig"
KEYS_NAME = "manifest.keys"  # in a slot: the public keys that its bundle was accepted by
MODEL_MEMBER = "model.ebm"
LIBRARY_MEMBER = "lib/libedgebit.so"
ORT_LIBRARY_MEMBER = "lib/libedgebit_ort.so"
RUNNER_MEMBER = "bin/edgebit-run"
DAEMON_MEMBER = "edgebitd.pyz"
SERVICE_MEMBER = "service/edgebit-daemon.service"
SEQUENCE_MAX = 2**53  # what every reader of JSON keeps exactly
RELEASE_KEYS_MAX = 8
NAME_MAX = 100  # what a tar header holds without an extension

_BUNDLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MEMBER_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_TIME_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of a bundle."""

    size: int  # bytes
    sha256: str  # of the content, 64 lower-case hex digits


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetInfo:
    """What the bundle was built for."""

    name: str
    triple: str  # "aarch64-linux-gnu": its first part is the architecture of the native files
    features: tuple[str, ...] = ()  # CPU features that the micro-kernels may use where the CPU has them
    libc_floor: str = ""  # oldest glibc that programs in it run with: "2.31"; empty: they need none

    @property
    def arch(self) -> str:
        """The architecture as `uname -m` says it: "aarch64"."""
        return self.triple.partition("-")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """The model inside, for lists and questions that should not need the model file."""

    name: str
    family: str = ""
    parameters: int = 0  # weights of the checkpoint; 0: not known
    context_max: int = 0  # tokens
    vocab_size: int = 0
    licence: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildInfo:
    """What made the native files."""

    builder: str = ""  # zig, system, ndk, docker, installed
    compiler: str = ""  # as it names itself
    toolchain_id: str = ""  # first 16 hex digits of the sum over sources, toolchain and target: equal ids, equal bytes
    checks: Mapping[str, str] = field(default_factory=dict)  # name -> passed, or why it was not run


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """What the signer says to devices: which bundles it follows, until when, and whom to trust from then on."""

    sequence: int  # a device takes none below the highest it kept
    created: datetime  # UTC, whole seconds
    expires: datetime | None = None  # not to be installed from this moment on
    keys: tuple[PublicKey, ...] = ()  # that devices trust once they kept this bundle; none: those that they trust now

    def as_json(self) -> dict[str, Any]:
        """As manifest.json has it."""
        return {
            "sequence": self.sequence,
            "created": self.created.strftime(_TIME),
            **({"expires": self.expires.strftime(_TIME)} if self.expires else {}),
            **({"keys": [str(key) for key in self.keys]} if self.keys else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of manifest.json, schema 1."""

    name: str
    edgebit: str  # version that wrote the bundle
    abi: int  # EB_ABI_VERSION of the native library
    target: TargetInfo
    model: ModelInfo
    build: BuildInfo
    files: Mapping[str, FileEntry]  # every file of the bundle but manifest.json and manifest.sig
    release: Release | None = None  # in a signed bundle

    def to_bytes(self) -> bytes:
        """The bytes of manifest.json: the same for the same content."""
        content = {
            "schema": SCHEMA,
            "name": self.name,
            "edgebit": self.edgebit,
            "abi": self.abi,
            "target": asdict(self.target),
            "model": asdict(self.model),
            "build": {**asdict(self.build), "checks": dict(sorted(self.build.checks.items()))},
            **({"release": self.release.as_json()} if self.release else {}),
            "files": {name: asdict(self.files[name]) for name in sorted(self.files)},
        }
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def bundle_id(manifest_bytes: bytes) -> str:
    """First 16 hex digits of the SHA-256 of manifest.json: it names the bundle, since the manifest sums every file."""
    return hashlib.sha256(manifest_bytes).hexdigest()[:16]


def is_member_name(name: str) -> bool:
    """Whether `name` may stand in a bundle: a relative path of plain parts, none of which begins with a dot."""
    return (
        0 < len(name) <= NAME_MAX
        and name.partition("/")[0] not in (MANIFEST_NAME, SIGNATURE_NAME, KEYS_NAME)
        and all(_MEMBER_PART.fullmatch(part) for part in name.split("/"))
    )


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read and check the bytes of a manifest.json; `where` names it in messages ("chat.bundle: manifest.json").

    Keys that schema 1 does not have are refused at the top level and in `files`, where they could mean something that
    this reader would miss; in `target`, `model` and `build`, which describe, they are ignored.
    Raises BundleError.
    """
    content = _read_object(data, where)
    schema = content.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise BundleError(
            f"{where} has schema {schema!r}, this edgebit reads schema {SCHEMA}. Use the edgebit that built the bundle,"
            " or build it again"
        )
    known = {"schema", "name", "edgebit", "abi", "target", "model", "build", "release", "files"}
    if unknown := sorted(set(content) - known):
        raise BundleError(f"{where} has a key that schema {SCHEMA} does not know: {unknown[0]!r}")

    name = _get(content, "name", str, where)
    if not _BUNDLE_NAME.fullmatch(name):
        raise BundleError(f"{where}: name {name!r} is not made of 1 to 64 letters, digits, '.', '_' and '-'")
    abi = _get(content, "abi", int, where)
    if abi < 1:
        raise BundleError(f"{where}: abi is {abi}, it counts from 1")
    return Manifest(
        name=name,
        edgebit=_get(content, "edgebit", str, where),
        abi=abi,
        target=_section(content, "target", _target, where),
        model=_section(content, "model", _model, where),
        build=_section(content, "build", _build, where),
        files=_section(content, "files", _files, where),
        release=_section(content, "release", _release, where) if "release" in content else None,
    )


def parse_release(data: bytes, where: str) -> Release | None:
    """The section `release` of a manifest.json of any schema, so that a device can judge what its successor will read.

    Raises BundleError.
    """
    content = _read_object(data, where)
    return _section(content, "release", _release, where) if "release" in content else None


def _read_object(data: bytes, where: str) -> dict[str, Any]:
    if len(data) > MANIFEST_MAX_BYTES:
        raise BundleError(f"{where} has {len(data)} bytes, a manifest has at most {MANIFEST_MAX_BYTES}")
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_object_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON: {error}. The bundle is damaged: copy or build it again") from error
    if not isinstance(content, dict):
        raise BundleError(f"{where} is not a JSON object. The bundle is damaged: copy or build it again")
    return content


def _section(content: dict[str, Any], key: str, read: Callable[[dict[str, Any], str], T], where: str) -> T:
    return read(_get(content, key, dict, where), f"{where}: {key}")


def _target(content: dict[str, Any], where: str) -> TargetInfo:
    return TargetInfo(
        name=_get(content, "name", str, where),
        triple=_get(content, "triple", str, where),
        features=_strings(_get(content, "features", list, where, default=[]), f"{where}.features"),
        libc_floor=_get(content, "libc_floor", str, where, default=""),
    )


def _model(content: dict[str, Any], where: str) -> ModelInfo:
    return ModelInfo(
        name=_get(content, "name", str, where),
        family=_get(content, "family", str, where, default=""),
        parameters=_get(content, "parameters", int, where, default=0),
        context_max=_get(content, "context_max", int, where, default=0),
        vocab_size=_get(content, "vocab_size", int, where, default=0),
        licence=_get(content, "licence", str, where, default=""),
    )


def _build(content: dict[str, Any], where: str) -> BuildInfo:
    checks = _get(content, "checks", dict, where, default={})
    _strings(list(checks.values()), f"{where}.checks")
    return BuildInfo(
        builder=_get(content, "builder", str, where, default=""),
        compiler=_get(content, "compiler", str, where, default=""),
        toolchain_id=_get(content, "toolchain_id", str, where, default=""),
        checks=checks,
    )


def _release(content: dict[str, Any], where: str) -> Release:
    if unknown := sorted(set(content) - {"sequence", "created", "expires", "keys"}):
        raise BundleError(f"{where} has a key that this edgebit does not know: {unknown[0]!r}. Use a later one")
    sequence = _get(content, "sequence", int, where)
    if not 0 <= sequence <= SEQUENCE_MAX:
        raise BundleError(f"{where}: sequence is {sequence}, it is a number from 0 to {SEQUENCE_MAX}")
    lines = _strings(_get(content, "keys", list, where, default=[]), f"{where}.keys")
    if "keys" in content and not 1 <= len(lines) <= RELEASE_KEYS_MAX:
        raise BundleError(f"{where}: keys has {len(lines)} keys, where it stands it has 1 to {RELEASE_KEYS_MAX}")
    keys = tuple(parse_public_key(line, f"{where}.keys") for line in lines)
    if len({key.key_id for key in keys}) != len(keys):
        raise BundleError(f"{where}: keys has a key twice")
    return Release(
        sequence=sequence,
        created=_time(content, "created", where),
        expires=_time(content, "expires", where) if "expires" in content else None,
        keys=keys,
    )


def _time(content: dict[str, Any], key: str, where: str) -> datetime:
    text = _get(content, key, str, where)
    try:
        if _TIME_FORM.fullmatch(text):
            return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise BundleError(f"{where}: {key!r} is {text!r}, and no time in UTC such as 2027-01-31T00:00:00Z")


def _files(content: dict[str, Any], where: str) -> dict[str, FileEntry]:
    files = {}
    for name, entry in content.items():
        if not is_member_name(name):
            raise BundleError(f"{where}: {name!r} is not a name that may stand in a bundle (a plain relative path)")
        if not isinstance(entry, dict) or set(entry) != {"size", "sha256"}:
            raise BundleError(f"{where}: {name!r} must have exactly 'size' and 'sha256'")
        size = _get(entry, "size", int, f"{where}.{name}")
        sha256 = _get(entry, "sha256", str, f"{where}.{name}")
        if size < 0:
            raise BundleError(f"{where}: {name!r} has size {size}")
        if not _SHA256.fullmatch(sha256):
            raise BundleError(f"{where}: {name!r} has a sha256 that is not 64 lower-case hex digits")
        files[name] = FileEntry(size=size, sha256=sha256)
    if not files:
        raise BundleError(f"{where} is empty")
    for name in files:
        if clash := next((other for other in files if other.startswith(name + "/")), None):
            raise BundleError(f"{where}: {name!r} is a file, and {clash!r} would lie inside it")
    return files


_MISSING: Any = object()


def _get(content: Mapping[str, Any], key: str, kind: type[T], where: str, *, default: Any = _MISSING) -> T:
    value = content.get(key, default)
    if value is _MISSING:
        raise BundleError(f"{where} lacks {key!r}")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"{where}: {key!r} must be {_KINDS[kind]}, not {value!r}")
    return value


_KINDS: dict[type, str] = {str: "a string", int: "a whole number", dict: "an object", list: "a list"}


def _strings(values: list[Any], where: str) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise BundleError(f"{where} must hold strings only")
    return tuple(values)


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} stands twice")
    return content
