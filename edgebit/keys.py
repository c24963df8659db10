"""Service: the keys of whoever signs bundles, in minisign's own files, and signing with them (docs/signing.md)."""

import base64
import hashlib
import os
import re
import secrets
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgebit.bundle.archive import Bundle
from edgebit.bundle.manifest import MANIFEST_NAME, RELEASE_KEYS_MAX, SEQUENCE_MAX, Release
from edgebit.bundle.signature import (
    SIGNATURES_MAX,
    UNTRUSTED_COMMENT,
    PublicKey,
    Signature,
    find_signers,
    parse_public_key,
    signed_digest,
)
from edgebit.checks import Check
from edgebit.errors import BuildError, BundleError, KeyFileError
from edgebit.resources import config_dir

SECRET_SUFFIX, PUBLIC_SUFFIX = ".key", ".pub"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_LINE = re.compile(r"RW[A-Za-z0-9+/]{54}")
_KEY_FILE_MAX_BYTES = 4096

# The secret key file: algorithm, derivation, checksum's kind, salt, cost in operations and bytes, then the locked part:
# the key's name, its seed and public half, and a checksum.
_HEAD = struct.Struct("<2s2s2s32sQQ")
_BODY = struct.Struct("<8s32s32s32s")
_ALGORITHM, _SCRYPT, _NO_SCRYPT, _BLAKE2B = b"Ed", b"Sc", b"\0\0", b"B2"
_NO_CHECKSUM = bytes(32)  # minisign writes none into a file without a password

# libsodium's "sensitive" limits, which minisign takes; halved as minisign does where the memory is not to be had.
_OPS_LIMIT, _MEMORY_LIMIT = 1 << 25, 1 << 30
_OPS_LEAST, _MEMORY_LEAST = 1 << 15, 1 << 24
_MEMORY_MOST = (1 << 31) - 1 - (1 << 26)  # what scrypt of OpenSSL can be given


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A key that signs. Its seed is never shown."""

    public: PublicKey
    private: Ed25519PrivateKey

    def sign(self, content: bytes, trusted_comment: str) -> Signature:
        """A signature of `content` and of the comment, the same for the same."""
        signature = self.private.sign(signed_digest(content))
        comment_signature = self.private.sign(signature + trusted_comment.encode())
        return Signature(self.public.key_id, signature, trusted_comment, comment_signature)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A public key of the key folder; `secret` is the file that it signs with, None where that is elsewhere."""

    name: str
    public: PublicKey
    secret: Path | None
    has_password: bool


def keys_dir() -> Path:
    """The folder of keys: $XDG_CONFIG_HOME/edgebit/keys, by default in ~/.config."""
    return config_dir() / "keys"


def list_keys() -> list[KnownKey]:
    """The keys of the key folder, by name. Raises KeyFileError for a file that is damaged."""
    found = []
    for path in sorted(keys_dir().glob(f"*{PUBLIC_SUFFIX}")):
        secret = path.with_suffix(SECRET_SUFFIX)
        has_secret = secret.is_file()
        found.append(
            KnownKey(
                path.stem,
                read_public_key(path),
                secret if has_secret else None,
                has_secret and has_password(secret),
            )
        )
    return found


def find_public_key(text: str) -> PublicKey:
    """The public key that `text` means: a name in the key folder, a .pub file, or the key's own line.

    Raises KeyFileError.
    """
    if _KEY_LINE.fullmatch(text):  # which may hold slashes, and is no path
        try:
            return parse_public_key(text, repr(text))
        except BundleError as error:
            raise KeyFileError(str(error)) from error
    if _is_path(text, PUBLIC_SUFFIX):
        return read_public_key(Path(text))
    place = keys_dir() / f"{text}{PUBLIC_SUFFIX}"
    if _NAME.fullmatch(text) and place.is_file():
        return read_public_key(place)
    raise KeyFileError(_unknown(text, "public key", "its line that begins with RW, or its .pub file's path"))


def find_secret_key(text: str) -> Path:
    """The file of the secret key that `text` means: a name in the key folder, or a path. Raises KeyFileError."""
    path = Path(text) if _is_path(text, SECRET_SUFFIX) else keys_dir() / f"{text}{SECRET_SUFFIX}"
    if not path.is_file():
        raise KeyFileError(_unknown(text, "secret key", f"make one: edgebit keys new {text}; or give its file's path"))
    return path


def _is_path(text: str, suffix: str) -> bool:
    return "/" in text or text.endswith(suffix)


def _unknown(text: str, kind: str, mend: str) -> str:
    names = ", ".join(path.stem for path in sorted(keys_dir().glob(f"*{PUBLIC_SUFFIX}"))) or "none"
    return f"there is no {kind} {text!r}; the keys in {keys_dir()} are: {names}. Give one of them, or {mend}"


def read_public_key(path: Path) -> PublicKey:
    """The key of a .pub file. Raises KeyFileError."""
    try:
        return parse_public_key(_read(path).decode("utf-8", "replace"), str(path))
    except BundleError as error:
        raise KeyFileError(str(error)) from error


def new_key(name: str, password: str | None) -> KnownKey:
    """Make a key of that name in the key folder, locked with `password` unless it is None.

    Raises KeyFileError; what is there is never replaced.
    """
    if not _NAME.fullmatch(name) or name.endswith((SECRET_SUFFIX, PUBLIC_SUFFIX)):
        raise KeyFileError(
            f"{name!r} is no name for a key: 1 to 64 letters, digits, '.', '_' and '-', no suffix of ours"
        )
    folder = keys_dir()
    secret_path, public_path = folder / f"{name}{SECRET_SUFFIX}", folder / f"{name}{PUBLIC_SUFFIX}"
    for path in (secret_path, public_path):
        if path.exists():
            raise KeyFileError(f"{path} is there already. Give another name; whoever trusts that key still needs it")
    private, key_id = Ed25519PrivateKey.generate(), secrets.token_bytes(8)
    key = SecretKey(PublicKey(key_id, private.public_key().public_bytes_raw()), private)
    kind = "unencrypted" if password is None else "encrypted"
    line = base64.b64encode(_lock(key, password)).decode()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(public_path, public_key_file(key.public), 0o644)
        try:
            _write_new(secret_path, f"{UNTRUSTED_COMMENT}minisign {kind} secret key {key.public.id}\n{line}\n", 0o600)
        except OSError:
            public_path.unlink()
            raise
    except OSError as error:
        raise KeyFileError(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    return KnownKey(name, key.public, secret_path, password is not None)


def public_key_file(key: PublicKey) -> str:
    """The content of a .pub file."""
    return f"{UNTRUSTED_COMMENT}minisign public key {key.id}\n{key}\n"


def has_password(path: Path) -> bool:
    """Whether a secret key file is locked. Raises KeyFileError where it is none."""
    head, _ = _split(path)
    return bool(head[1] == _SCRYPT)


def load_secret_key(path: Path, ask_password: Callable[[], str]) -> SecretKey:
    """The key of a file that minisign or new_key() made; `ask_password` is called where it is locked.

    Raises KeyFileError for a damaged file, a wrong password, and a file that others may read.
    """
    head, locked = _split(path)
    if path.stat().st_mode & 0o077:
        raise KeyFileError(f"{path} can be read by others on this machine. Keep it to yourself: chmod 600 {path}")
    _, derivation, _, salt, ops_limit, memory_limit = head
    is_locked = derivation == _SCRYPT
    body = _xor(locked, _stream(ask_password(), salt, ops_limit, memory_limit, path)) if is_locked else locked
    key_id, seed, point, checksum = _BODY.unpack(body)
    if checksum != _checksum(key_id, seed, point) and (is_locked or checksum != _NO_CHECKSUM):
        raise KeyFileError(f"{path}: " + ("the password is wrong" if is_locked else "the file is damaged"))
    private = Ed25519PrivateKey.from_private_bytes(seed)
    if private.public_key().public_bytes_raw() != point:
        raise KeyFileError(f"{path} is damaged: its two halves do not belong together")
    return SecretKey(PublicKey(key_id, point), private)


@dataclass(frozen=True, slots=True)
class Signing:
    """How a bundle is signed: what its manifest says to devices, and by whom."""

    keys: tuple[SecretKey, ...]
    release: Release

    def sign(self, manifest: bytes) -> bytes:
        """The bytes of manifest.sig: a signature by each key, with a comment as minisign's own."""
        comment = f"timestamp:{int(self.release.created.timestamp())}\tfile:{MANIFEST_NAME}\thashed"
        by = ((key.public.id, key.sign(manifest, comment)) for key in self.keys)
        return "".join(made.to_text(f"signature of an edgebit bundle by key {name}") for name, made in by).encode()


def plan_signing(
    keys: Sequence[SecretKey],
    *,
    now: datetime,
    sequence: int | None = None,
    expires: str | None = None,
    trust: Sequence[PublicKey] = (),
) -> Signing:
    """What to sign with, and what to say: by default the time is the sequence, and the bundle never expires.

    now: when the bundle is made, in UTC. expires: a date that still holds as a whole, or days from now as "90d".
    trust: whom devices trust once they kept the bundle; none: whom they trust already.
    Raises BuildError for what devices would refuse.
    """
    created = now.replace(microsecond=0)
    if len(keys) > SIGNATURES_MAX or len({key.public.key_id for key in keys}) != len(keys):
        raise BuildError(
            f"a bundle has at most {SIGNATURES_MAX} signatures, each by another key. Give --sign less often"
        )
    if len(trust) > RELEASE_KEYS_MAX or len({key.key_id for key in trust}) != len(trust):
        raise BuildError(f"a bundle names at most {RELEASE_KEYS_MAX} keys to trust, each once. Give --trust less often")
    if trust and not {key.public for key in keys} & set(trust):
        raise BuildError(
            "none of the keys that --trust names signs the bundle, and a key that nobody has would close a device for"
            " ever. Sign with one of them too: --sign OLD --sign NEW"
        )
    until = _parse_expiry(expires, created) if expires is not None else None
    if sequence is None:
        sequence = int(created.timestamp())
    if not 0 <= sequence <= SEQUENCE_MAX:
        raise BuildError(f"--sequence {sequence} is none that a device takes. Give a number from 0 to {SEQUENCE_MAX}")
    return Signing(tuple(keys), Release(sequence=sequence, created=created, expires=until, keys=tuple(trust)))


def _parse_expiry(text: str, created: datetime) -> datetime:
    try:
        if text.endswith("d") and text[:-1].isdecimal():
            until = created + timedelta(days=int(text[:-1]))
        else:
            until = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise BuildError(f"--expires {text!r} is neither a date as 2027-01-31 nor days as 90d") from None
    if until <= created:
        raise BuildError(f"--expires {text}: the bundle would have expired when it is made. Give a later date")
    return until


def check_signature(bundle: Bundle, keys: Sequence[KnownKey], now: datetime) -> Check:
    """The signature of a bundle, judged by the public keys that this machine knows; for `verify` and `inspect`."""
    name = "signature"
    if not bundle.signatures:
        return Check(name, "not run", "unsigned: the sums show that it is whole, and nothing shows who built it")
    try:
        signers = find_signers(
            bundle.manifest_bytes, bundle.signatures, [key.public for key in keys], f"{bundle.path}: {MANIFEST_NAME}"
        )
    except BundleError as error:
        return Check(name, "failed", str(error))
    by = ", ".join(describe_key(signature.id, keys) for signature in bundle.signatures)
    if not signers:
        return Check(name, "not run", f"signed by key {by}, whose public key is not in {keys_dir()}")
    unknown = len(bundle.signatures) - len(signers)
    detail = f"signed by key {by}" + (f"; {unknown} of them not known here" if unknown else "")
    release = bundle.manifest.release
    if release is not None:
        detail += f", sequence {release.sequence}"
    if release is not None and release.expires is not None:
        if now >= release.expires:
            return Check(name, "failed", f"{detail}; expired at {release.expires:%Y-%m-%d %H:%M} UTC. Build it anew")
        detail += f", until {release.expires:%Y-%m-%d %H:%M} UTC"
    return Check(name, "passed", detail)


def describe_key(key_id: str, keys: Sequence[KnownKey]) -> str:
    """A key's id, with its name where this machine knows it."""
    name = next((key.name for key in keys if key.public.id == key_id), None)
    return f"{key_id} ({name})" if name else key_id


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_KEY_FILE_MAX_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error


def _split(path: Path) -> tuple[tuple[bytes, bytes, bytes, bytes, int, int], bytes]:
    """The open head and the locked body of a secret key file."""
    lines = _read(path).split(b"\n")
    try:
        data = base64.b64decode(lines[1].strip(), validate=True) if len(lines) > 1 else b""
    except ValueError:
        data = b""
    if len(data) != _HEAD.size + _BODY.size or not lines[0].startswith(UNTRUSTED_COMMENT.encode()):
        raise KeyFileError(f"{path} is no secret key file of minisign's kind. Give a file of `edgebit keys new`")
    head: tuple[bytes, bytes, bytes, bytes, int, int] = _HEAD.unpack_from(data)
    algorithm, derivation, checksum, *_ = head
    if algorithm != _ALGORITHM or derivation not in (_SCRYPT, _NO_SCRYPT) or checksum != _BLAKE2B:
        raise KeyFileError(f"{path} is a secret key of a kind that edgebit does not know")
    return head, data[_HEAD.size :]


def _lock(key: SecretKey, password: str | None) -> bytes:
    """The bytes of a secret key file's second line."""
    seed, point = key.private.private_bytes_raw(), key.public.point
    if password is None:
        head = _HEAD.pack(_ALGORITHM, _NO_SCRYPT, _BLAKE2B, bytes(32), 0, 0)
        return head + _BODY.pack(key.public.key_id, seed, point, _NO_CHECKSUM)
    body = _BODY.pack(key.public.key_id, seed, point, _checksum(key.public.key_id, seed, point))
    salt, ops_limit, memory_limit = secrets.token_bytes(32), _OPS_LIMIT, _MEMORY_LIMIT
    while True:
        try:
            stream = _scrypt(password, salt, ops_limit, memory_limit)
            break
        except MemoryError:
            if memory_limit <= _MEMORY_LEAST:
                raise KeyFileError(f"there are not {memory_limit >> 20} MiB of memory to lock the key with") from None
            ops_limit, memory_limit = ops_limit // 2, memory_limit // 2
    return _HEAD.pack(_ALGORITHM, _SCRYPT, _BLAKE2B, salt, ops_limit, memory_limit) + _xor(body, stream)


def _stream(password: str, salt: bytes, ops_limit: int, memory_limit: int, path: Path) -> bytes:
    if not (_OPS_LEAST <= ops_limit <= 1 << 32 and _MEMORY_LEAST <= memory_limit <= _MEMORY_MOST):
        raise KeyFileError(f"{path} is locked with {memory_limit >> 20} MiB of memory, more or less than edgebit takes")
    try:
        return _scrypt(password, salt, ops_limit, memory_limit)
    except MemoryError:
        raise KeyFileError(
            f"{path} takes {memory_limit >> 20} MiB of memory to open, which are not to be had"
        ) from None


def _scrypt(password: str, salt: bytes, ops_limit: int, memory_limit: int) -> bytes:
    """The stream that locks a key: scrypt with the parameters that libsodium makes of its two limits.

    Raises MemoryError.
    """
    r, p = 8, 1
    bound_by_time = ops_limit < memory_limit // 32
    most = ops_limit // (r * 4) if bound_by_time else memory_limit // (r * 128)
    n = 1 << max(1, (most // 2).bit_length())  # the least power of two above most / 2
    if not bound_by_time:
        p = max(1, min(ops_limit // 4 // n, 0x3FFFFFFF) // r)
    need = 128 * r * (n + p + 2)
    try:
        return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=need + (1 << 20), dklen=_BODY.size)
    except ValueError as error:  # how OpenSSL says that it got no memory
        raise MemoryError from error


def _checksum(key_id: bytes, seed: bytes, point: bytes) -> bytes:
    return hashlib.blake2b(_ALGORITHM + key_id + seed + point, digest_size=32).digest()


def _xor(data: bytes, stream: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))


def _write_new(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
