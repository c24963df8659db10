"""Signatures of a bundle in minisign's form: public keys, manifest.sig, and whose signature holds (docs/signing.md).

Standard library only: the device verifies too.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgebit.bundle import ed25519
from edgebit.errors import BundleError

SIGNATURES_MAX = 4  # blocks in manifest.sig: two keys while one follows the other, and room
SIGNATURE_MAX_BYTES = 4096
UNTRUSTED_COMMENT = "untrusted comment: "  # how each of minisign's files begins

_ID_BYTES = 8
_KEY_ALGORITHM = b"Ed"
_ALGORITHM = b"ED"  # Ed25519 over the BLAKE2b-512 of the content
_LEGACY_ALGORITHM = b"Ed"  # over the content itself
_TRUSTED = "trusted comment: "
_LINES = 4  # of a block: untrusted comment, signature, trusted comment, signature of both
_PLAIN = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f-\x9f]*")  # no control character but the tab


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as minisign has it: 8 bytes that name it, and the key itself."""

    key_id: bytes
    point: bytes

    @property
    def id(self) -> str:
        """The key's name as minisign prints it: 16 hex digits."""
        return key_id_text(self.key_id)

    def __str__(self) -> str:
        return base64.b64encode(_KEY_ALGORITHM + self.key_id + self.point).decode()


@dataclass(frozen=True, slots=True)
class Signature:
    """One block of manifest.sig."""

    key_id: bytes
    signature: bytes  # of the BLAKE2b-512 of the manifest
    trusted_comment: str
    comment_signature: bytes  # of `signature` and the trusted comment

    @property
    def id(self) -> str:
        """The name of the key that is said to have made it."""
        return key_id_text(self.key_id)

    def to_text(self, untrusted_comment: str) -> str:
        """The block as minisign writes it."""
        first = base64.b64encode(_ALGORITHM + self.key_id + self.signature).decode()
        second = base64.b64encode(self.comment_signature).decode()
        return f"{UNTRUSTED_COMMENT}{untrusted_comment}\n{first}\n{_TRUSTED}{self.trusted_comment}\n{second}\n"


def key_id_text(key_id: bytes) -> str:
    """The 8 bytes that name a key, as minisign prints them: a little-endian number in hex."""
    return f"{int.from_bytes(key_id, 'little'):016X}"


def signed_digest(content: bytes) -> bytes:
    """What a signature of `content` signs."""
    return hashlib.blake2b(content).digest()


def parse_public_key(text: str, where: str) -> PublicKey:
    """A public key from its line ("RW...") or its file, a comment and the line; `where` names it in messages.

    Raises BundleError.
    """
    lines = text.strip().splitlines()
    if lines and lines[0].startswith(UNTRUSTED_COMMENT):
        lines = lines[1:]
    data = _base64(lines[0].strip()) if len(lines) == 1 else None
    if data is None or len(data) != 2 + _ID_BYTES + ed25519.KEY_BYTES or not data.startswith(_KEY_ALGORITHM):
        raise BundleError(
            f"{where} is no public key of minisign's kind: a line of 56 letters that begins with RW. Copy it again from"
            " `edgebit keys show NAME`"
        )
    key = PublicKey(data[2 : 2 + _ID_BYTES], data[2 + _ID_BYTES :])
    if not ed25519.is_sound_key(key.point):
        raise BundleError(f"{where}: {key.id} is damaged: no key has these bytes. Copy it again")
    return key


def parse_signatures(data: bytes, where: str) -> tuple[Signature, ...]:
    """The blocks of a manifest.sig, in their order; `where` names it in messages. Their truth is not checked here.

    Raises BundleError for anything but 1 to SIGNATURES_MAX whole blocks, each of another key.
    """
    if len(data) > SIGNATURE_MAX_BYTES:
        raise BundleError(f"{where} has {len(data)} bytes, at most {SIGNATURE_MAX_BYTES} are taken")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{where} is not UTF-8: byte {error.start}. Sign the bundle again") from None
    lines = text.removesuffix("\n").split("\n")
    if len(lines) % _LINES or not 1 <= len(lines) // _LINES <= SIGNATURES_MAX:
        raise BundleError(
            f"{where} has {len(lines)} lines; a signature has {_LINES}, and a bundle 1 to {SIGNATURES_MAX} signatures."
            " Sign the bundle again"
        )
    blocks = [lines[at : at + _LINES] for at in range(0, len(lines), _LINES)]
    signatures = tuple(_parse_block(block, f"{where}, signature {n}") for n, block in enumerate(blocks, 1))
    for n, signature in enumerate(signatures):
        if signature.key_id in [other.key_id for other in signatures[:n]]:
            raise BundleError(f"{where} has two signatures by key {signature.id}. Sign the bundle again")
    return signatures


def _parse_block(lines: list[str], where: str) -> Signature:
    untrusted, first, trusted, second = lines
    if not untrusted.startswith(UNTRUSTED_COMMENT) or not trusted.startswith(_TRUSTED):
        raise BundleError(
            f"{where} is not as minisign writes it: {UNTRUSTED_COMMENT!r} and {_TRUSTED!r} begin its lines. Sign the"
            " bundle again"
        )
    if not all(_PLAIN.fullmatch(line) for line in lines):
        raise BundleError(f"{where} has a control character. Sign the bundle again")
    data, comment_signature = _base64(first), _base64(second)
    if data is None or len(data) != 2 + _ID_BYTES + ed25519.SIGNATURE_BYTES:
        raise BundleError(f"{where} is damaged: its second line is no signature. Copy or sign the bundle again")
    if comment_signature is None or len(comment_signature) != ed25519.SIGNATURE_BYTES:
        raise BundleError(f"{where} is damaged: its fourth line is no signature. Copy or sign the bundle again")
    algorithm, key_id, signature = data[:2], data[2 : 2 + _ID_BYTES], data[2 + _ID_BYTES :]
    if algorithm == _LEGACY_ALGORITHM:
        raise BundleError(f"{where} is of minisign's legacy form. Sign again without -l, or with -H if it is old")
    if algorithm != _ALGORITHM:
        raise BundleError(f"{where} is of a kind that edgebit does not know: {algorithm!r}. Sign the bundle again")
    return Signature(key_id, signature, trusted.removeprefix(_TRUSTED), comment_signature)


def find_signers(
    content: bytes, signatures: Sequence[Signature], keys: Sequence[PublicKey], where: str
) -> tuple[PublicKey, ...]:
    """Those of `keys` that signed `content`. A signature by a key that is not among them says nothing.

    Raises BundleError for a signature that bears the name of one of `keys` and is not its own.
    """
    digest = signed_digest(content)
    found = []
    for signature in signatures:
        named = [key for key in keys if key.key_id == signature.key_id]
        fitting = [key for key in named if ed25519.verify(key.point, digest, signature.signature)]
        if named and not fitting:
            raise BundleError(
                f"{where}: the signature by key {signature.id} does not fit: the bundle was changed after it was"
                " signed. Copy it again, or build and sign it again"
            )
        signed = signature.signature + signature.trusted_comment.encode()
        if any(not ed25519.verify(key.point, signed, signature.comment_signature) for key in fitting):
            raise BundleError(
                f"{where}: the trusted comment was changed after key {signature.id} signed it. Copy the bundle again"
            )
        found += fitting
    return tuple(found)


def _base64(text: str) -> bytes | None:
    """The bytes of a line of base64 in its one right form; None where it is none."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return data if base64.b64encode(data).decode() == text else None
