"""A bundle on disk: an uncompressed tar, or a folder with the same files (docs/bundle-format.md).

Reading trusts nothing: every header, name and size is checked against the manifest before a byte is used, and members
are found by offset, so that the model maps in place. Standard library only: the device reads bundles too.
"""

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgebit.bundle.manifest import (
    MANIFEST_MAX_BYTES,
    MANIFEST_NAME,
    MODEL_MEMBER,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    bundle_id,
    is_member_name,
    parse_manifest,
)
from edgebit.bundle.other_kinds import refuse_other_kinds
from edgebit.bundle.part_file import PartFile
from edgebit.bundle.signature import SIGNATURE_MAX_BYTES, Signature, parse_signatures
from edgebit.bundle.trust import Offer
from edgebit.errors import BundleError

BLOCK = 512  # a tar's members begin at multiples of this
CHUNK = 1 << 20
_MEMBERS_MAX = 256
_PAX_MAX = 4096

Progress = Callable[[int], None]  # is told of bytes done since the last call

# The kinds of tar member that a bundle never has, in words.
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder",
    b"6": "a pipe",
    b"7": "a contiguous file",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"S": "a sparse file",
    b"g": "a global pax header",
}


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file of a bundle lies: `size` bytes at `offset` of `path`."""

    path: Path
    offset: int
    size: int


class Bundle:
    """A bundle whose manifest and structure are checked. verify() reads the content too.

    Attributes: path, manifest, manifest_bytes, id, members (name -> Member, manifest.json and manifest.sig not among
    them), signature_bytes (of manifest.sig, None where there is none), signatures (well formed, not yet verified).
    """

    def __init__(
        self, path: Path, manifest_bytes: bytes, signature_bytes: bytes | None, members: Mapping[str, Member]
    ) -> None:
        where = f"{path}: {MANIFEST_NAME}"
        self.path = path
        self.manifest_bytes = manifest_bytes
        self.manifest: Manifest = parse_manifest(manifest_bytes, where)
        self.id = bundle_id(manifest_bytes)
        self.signature_bytes = signature_bytes
        self.signatures: tuple[Signature, ...] = (
            () if signature_bytes is None else parse_signatures(signature_bytes, f"{path}: {SIGNATURE_NAME}")
        )
        self.members = members
        for name, entry in self.manifest.files.items():
            if name not in members:
                raise BundleError(f"{path}: {name} is missing, the manifest lists it. Copy or build the bundle again")
            if members[name].size != entry.size:
                raise BundleError(
                    f"{path}: {name} has {members[name].size} bytes, the manifest says {entry.size}. Copy or build the"
                    " bundle again"
                )

    @property
    def offer(self) -> Offer:
        """The bundle as it asks a device to be let in."""
        return Offer(self.manifest_bytes, self.signature_bytes)

    def member(self, name: str) -> Member:
        """Where `name` lies. Raises BundleError where the bundle has none of that name."""
        try:
            return self.members[name]
        except KeyError:
            raise BundleError(f"{self.path} holds no {name}; it holds {', '.join(sorted(self.members))}") from None

    def read(self, name: str) -> bytes:
        """All bytes of a member, checked against its sum."""
        sink = io.BytesIO()
        self._copy(name, sink, None)
        return sink.getvalue()

    def extract(self, name: str, to: Path, progress: Progress | None = None) -> None:
        """Write a member to the new file `to` and check its sum; nothing stays at `to` when that fails."""
        try:
            with to.open("xb") as sink:
                self._copy(name, sink, progress)
        except BaseException as error:
            if not isinstance(error, FileExistsError):
                to.unlink(missing_ok=True)
            raise

    def verify(self, progress: Progress | None = None) -> None:
        """Read everything and compare each file with its sum. Raises BundleError naming the first that differs."""
        for name in sorted(self.members):
            self.verify_member(name, progress)

    def verify_member(self, name: str, progress: Progress | None = None) -> None:
        """Read one member and compare it with its sum."""
        self._copy(name, None, progress)

    def _copy(self, name: str, sink: IO[bytes] | None, progress: Progress | None) -> None:
        member, digest = self.member(name), hashlib.sha256()
        with member.path.open("rb") as source:
            source.seek(member.offset)
            left = member.size
            while left:
                chunk = source.read(min(CHUNK, left))
                if not chunk:
                    raise BundleError(
                        f"{self.path}: {name} ends {left} bytes early: the file changed while it was read"
                    )
                left -= len(chunk)
                digest.update(chunk)
                if sink is not None:
                    sink.write(chunk)
                if progress is not None:
                    progress(len(chunk))
        if digest.hexdigest() != self.manifest.files[name].sha256:
            raise BundleError(
                f"{self.path}: {name} is damaged: its SHA-256 is {digest.hexdigest()}, the manifest says"
                f" {self.manifest.files[name].sha256}. Copy or build the bundle again"
            )


def open_bundle(path: Path) -> Bundle:
    """Open a bundle, a file or a folder, and check its manifest and structure, but not yet the sums.

    Raises BundleError saying what is wrong, where, and how to mend it.
    """
    try:
        if (path.is_dir() or path.is_file()) and not looks_like_bundle(path):
            refuse_other_kinds(path)
        return _open_folder(path) if path.is_dir() else _open_file(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error


def looks_like_bundle(path: Path) -> bool:
    """Whether `path` is a bundle rather than a model file: a folder with a manifest, or a tar."""
    if path.is_dir():
        return (path / MANIFEST_NAME).is_file()
    try:
        with path.open("rb") as file:
            return file.read(BLOCK)[257:262] == b"ustar"
    except OSError:
        return False


def locate_model(path: Path) -> Member:
    """Where the model file lies: `path` itself, or the member of the bundle at `path`.

    Raises BundleError where there is neither, saying what a checkpoint becomes one with.
    """
    if looks_like_bundle(path):
        return open_bundle(path).member(MODEL_MEMBER)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    if path.is_dir() or path.is_file():
        refuse_other_kinds(path)
    return Member(path, 0, size)


def _open_folder(path: Path) -> Bundle:
    manifest_path = path / MANIFEST_NAME
    _check_regular(manifest_path, path, MANIFEST_NAME)
    with manifest_path.open("rb") as file:
        data = file.read(MANIFEST_MAX_BYTES + 1)
    signature_path, signature = path / SIGNATURE_NAME, None
    if signature_path.is_symlink() or signature_path.exists():
        _check_regular(signature_path, path, SIGNATURE_NAME)
        with signature_path.open("rb") as file:
            signature = file.read(SIGNATURE_MAX_BYTES + 1)
    members = {}
    for name in parse_manifest(data, f"{path}: {MANIFEST_NAME}").files:
        place = path / name
        _check_regular(place, path, name)
        members[name] = Member(place, 0, place.lstat().st_size)
    return Bundle(path, data, signature, members)


def _check_regular(place: Path, bundle: Path, name: str) -> None:
    folder = place.parent
    while folder != bundle:
        if folder.is_symlink():
            raise BundleError(
                f"{bundle}: {folder.relative_to(bundle)} is a symbolic link; a bundle holds plain files only"
            )
        folder = folder.parent
    try:
        mode = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{bundle}: {name} is missing. Copy or build the bundle again") from None
    if not stat.S_ISREG(mode):
        raise BundleError(f"{bundle}: {name} is not a plain file; a bundle holds plain files only")


def _open_file(path: Path) -> Bundle:
    with path.open("rb") as file:
        members = _read_members(file, path, os.fstat(file.fileno()).st_size)
        names = list(members)
        if not names or names[0] != MANIFEST_NAME:
            first = names[0] if names else "nothing"
            raise BundleError(f"{path}: a bundle begins with {MANIFEST_NAME}, this begins with {first}")
        if SIGNATURE_NAME in names[2:]:
            raise BundleError(f"{path}: {SIGNATURE_NAME} stands second in a bundle, here behind {names[1]}")
        data = _read_small(file, path, MANIFEST_NAME, members.pop(MANIFEST_NAME), MANIFEST_MAX_BYTES)
        signature = None
        if SIGNATURE_NAME in members:
            signature = _read_small(file, path, SIGNATURE_NAME, members.pop(SIGNATURE_NAME), SIGNATURE_MAX_BYTES)
    listed = parse_manifest(data, f"{path}: {MANIFEST_NAME}").files
    if unlisted := sorted(set(members) - set(listed)):
        raise BundleError(f"{path}: {unlisted[0]} is not in the manifest: the bundle was changed. Build it again")
    return Bundle(path, data, signature, members)


def _read_small(file: IO[bytes], path: Path, name: str, place: Member, most: int) -> bytes:
    if place.size > most:
        raise BundleError(f"{path}: {name} has {place.size} bytes, at most {most} are taken")
    file.seek(place.offset)
    return file.read(place.size)


def _read_members(file: IO[bytes], path: Path, file_size: int) -> dict[str, Member]:
    """The members of a tar in their order; every header is checked, every member lies inside the file."""
    members: dict[str, Member] = {}
    position, pax_size = 0, None
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if len(header) < BLOCK and position == 0:
            raise BundleError(f"{path} is not a bundle (no tar header)")
        if len(header) < BLOCK:
            raise BundleError(f"{path} is cut short: no end mark at byte {position}. Copy it again")
        if not any(header):
            break
        name, size, kind = _parse_header(header, path, position)
        if kind == b"x":
            if size > _PAX_MAX or position + BLOCK + size > file_size:
                raise BundleError(
                    f"{path}: the pax header at byte {position} has {size} bytes, at most {_PAX_MAX} are taken"
                )
            pax_size = _parse_pax(file.read(size), path, position)
            position += BLOCK + _padded(size)
            continue
        if kind not in (b"0", b"\0"):
            raise BundleError(
                f"{path}: {name!r} is {_KINDS.get(kind, f'of kind {kind!r}')}; a bundle holds plain files only"
            )
        if name not in (MANIFEST_NAME, SIGNATURE_NAME) and not is_member_name(name):
            raise BundleError(f"{path}: {name!r} is not a name that may stand in a bundle (a plain relative path)")
        if name in members:
            raise BundleError(f"{path}: {name} stands twice. Build the bundle again")
        if len(members) == _MEMBERS_MAX:
            raise BundleError(f"{path} has more than {_MEMBERS_MAX} files")
        if pax_size is not None:
            size, pax_size = pax_size, None
        offset = position + BLOCK
        if size > file_size - offset:
            raise BundleError(
                f"{path}: {name} ends at byte {offset + size}, the file has {file_size}: a copy cut short."
                " Copy it again"
            )
        members[name] = Member(path, offset, size)
        position = offset + _padded(size)
    if pax_size is not None:
        raise BundleError(f"{path}: the pax header before byte {position} belongs to no file")
    return members


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _parse_header(header: bytes, path: Path, position: int) -> tuple[str, int, bytes]:
    """Name, size and kind from a ustar header at byte `position`."""
    if header[257:262] != b"ustar":
        what = "not a bundle (no tar header)" if position == 0 else f"damaged: no tar header at byte {position}"
        raise BundleError(f"{path} is {what}")
    checksum = _octal(header[148:156], path, position)
    if checksum != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise BundleError(f"{path} is damaged: the header at byte {position} has a wrong checksum. Copy it again")
    parts = [header[345:500], header[:100]] if header[257:265] == b"ustar\x0000" else [header[:100]]
    try:
        name = "/".join(text for part in parts if (text := part.split(b"\0", 1)[0].decode("ascii")))
    except UnicodeDecodeError:
        raise BundleError(f"{path}: the name at byte {position} is not plain text") from None
    return name, _octal(header[124:136], path, position), header[156:157]


def _octal(text: bytes, path: Path, position: int) -> int:
    digits = text.rstrip(b"\0 ").lstrip(b" ")
    if not digits or any(byte not in b"01234567" for byte in digits):
        raise BundleError(f"{path} is damaged: the header at byte {position} has a number that is none")
    return int(digits, 8)


def _parse_pax(data: bytes, path: Path, position: int) -> int | None:
    """The `size` that a pax header gives to the next member, where 8 GiB do not fit the plain one."""
    size = None
    while data:
        length_text, space, _ = data.partition(b" ")
        if not space or not length_text.isdigit() or not 5 <= int(length_text[:8]) <= len(data):
            raise BundleError(f"{path} is damaged: the pax header at byte {position} is malformed")
        record, data = data[len(length_text) + 1 : int(length_text)], data[int(length_text) :]
        key, equals, value = record.rstrip(b"\n").partition(b"=")
        if key != b"size" or not equals:
            raise BundleError(f"{path}: the pax header at byte {position} sets {key!r}; a bundle sets sizes only")
        if not value.isdigit() or len(value) > 18:
            raise BundleError(f"{path} is damaged: the pax header at byte {position} has a size that is none")
        size = int(value)
    return size


def hash_file(path: Path, progress: Progress | None = None) -> FileEntry:
    """Size and SHA-256 of a file, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if progress is not None:
                progress(len(chunk))
    return FileEntry(size=size, sha256=digest.hexdigest())


def write_archive(
    out: Path,
    manifest: Manifest,
    sources: Mapping[str, Path],
    progress: Progress | None = None,
    *,
    sign: Callable[[bytes], bytes] | None = None,
) -> str:
    """Write the bundle `out` from `sources`, name -> file, exactly those of the manifest; gives the bundle's id.

    sign: makes manifest.sig from the bytes of manifest.json; without it the bundle is not signed.
    The bytes depend on the content alone: manifest and signature first, then by name; time 0 or SOURCE_DATE_EPOCH,
    owner 0, files in bin/ executable. A failed write leaves nothing.
    Raises OSError, such as a full disk; BundleError where `out` cannot be made; ValueError where sources and manifest
    differ (a mistake of ours).
    """
    if set(sources) != set(manifest.files):
        raise ValueError(f"sources and manifest differ in {sorted(set(sources) ^ set(manifest.files))}")
    data = manifest.to_bytes()
    with PartFile(out, BundleError) as part:
        with tarfile.open(fileobj=part.file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(_tar_info(MANIFEST_NAME, len(data)), io.BytesIO(data))
            if sign is not None:
                signature = sign(data)
                tar.addfile(_tar_info(SIGNATURE_NAME, len(signature)), io.BytesIO(signature))
            for name in sorted(sources):
                _add_source(tar, name, sources[name], manifest.files[name].size, progress)
        part.file.flush()  # here a full disk is an OSError still
        part.commit()
    return bundle_id(data)


def _add_source(tar: tarfile.TarFile, name: str, path: Path, size: int, progress: Progress | None) -> None:
    with path.open("rb") as source:
        tar.addfile(_tar_info(name, size), _Reporting(source, progress))
        if source.read(1):
            raise ValueError(f"{path} has more than the {size} bytes of its manifest entry")


def _tar_info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    info.mode = 0o755 if name.startswith("bin/") else 0o644
    return info


class _Reporting(io.RawIOBase):
    """A file that says how much of it was read."""

    def __init__(self, source: IO[bytes], progress: Progress | None) -> None:
        self._source, self._progress = source, progress

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        if self._progress is not None:
            self._progress(len(data))
        return data
