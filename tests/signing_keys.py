"""Keys for tests: the same ones every time, made from a number."""

from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgebit.bundle.signature import PublicKey
from edgebit.keys import SecretKey, Signing, plan_signing

MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_key(number: int) -> SecretKey:
    """The key of a number from 1 to 255."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return SecretKey(PublicKey(bytes([number]) * 8, private.public_key().public_bytes_raw()), private)


def signing(
    *keys: SecretKey, sequence: int = 1, expires: str | None = None, trust: tuple[SecretKey, ...] = ()
) -> Signing:
    """Signing with these keys, at MADE."""
    named = [key.public for key in trust]
    return plan_signing(keys, now=MADE, sequence=sequence, expires=expires, trust=named)
