"""Ed25519: the RFC's vectors, and the same verdict as libsodium, which minisign uses, on forgeries of every kind."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings as sodium
from nacl.exceptions import BadSignatureError

from edgebit.bundle.ed25519 import is_sound_key, verify

L = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19

# RFC 8032, 7.1: public key, message, signature.
RFC_8032 = {
    "test 1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "test 2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "test 3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "test SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}


def number(value: int) -> bytes:
    return value.to_bytes(32, "little")


# Every encoding of the eight points of small order, the six that no encoder makes among them.
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
SMALL = [
    *(number(y | sign << 255) for y in (0, 1, P - 1, P, P + 1) for sign in (0, 1)),
    *(number(y | sign << 255) for y in (int.from_bytes(ORDER_8, "little"),) for sign in (0, 1)),
    *(number(P - int.from_bytes(ORDER_8, "little") | sign << 255) for sign in (0, 1)),
]


def base_times(scalar: int) -> bytes:
    return sodium.crypto_scalarmult_ed25519_base_noclamp(number(scalar % L))


def torsion(times: int) -> bytes:
    """`times` times a point of order 8."""
    total = number(1)
    for _ in range(times):
        total = sodium.crypto_core_ed25519_add(total, ORDER_8)
    return total


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L


def forgeries() -> dict[str, tuple[bytes, bytes, bytes]]:
    """Key, message and signature, each of which some verifier somewhere takes."""
    made = {}
    secret, nonce, message = 0x1234567890ABCDEF << 130 | 77, 0xFEDCBA << 200 | 5, b"manifest"
    key, r = base_times(secret), base_times(nonce)
    s = (nonce + challenge(r, key, message) * secret) % L
    made["honest"] = (key, message, r + number(s))
    for name, other in {
        "s + L": s + L,
        "s = L": L,
        "s = 0": 0,
        "s = L - 1": L - 1,
        "s = 2^256 - 1": 2**256 - 1,
    }.items():
        made[name] = (key, message, r + number(other))
    for n, small in enumerate(SMALL):
        made[f"key of small order {n}, R = 0"] = (small, message, small + number(0))
        for times in range(8):
            shifted = sodium.crypto_core_ed25519_add(r, torsion(times))
            made[f"key of small order {n}, R + {times} T"] = (small, message, shifted + number(nonce))
        made[f"R of small order {n}"] = (key, message, small + number(challenge(small, key, message) * secret % L))
    for key_times in range(8):
        mixed_key = sodium.crypto_core_ed25519_add(key, torsion(key_times))
        for r_times in range(8):
            mixed_r = sodium.crypto_core_ed25519_add(r, torsion(r_times))
            s = (nonce + challenge(mixed_r, mixed_key, message) * secret) % L
            made[f"key + {key_times} T, R + {r_times} T"] = (mixed_key, message, mixed_r + number(s))
    for name, y in {"no point": 2, "p - 2": P - 2, "all ones": 2**256 - 1, "p + 3": P + 3}.items():
        made[f"key: {name}"] = (number(y), message, r + number(s))
        made[f"R: {name}"] = (key, message, number(y) + number(s))
    return made


FORGERIES = forgeries()


def sodium_verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        sodium.crypto_sign_open(signature + message, key)
    except BadSignatureError:
        return False
    return True


@pytest.mark.parametrize("name", RFC_8032)
def test_vectors_of_the_rfc(name):
    """Each holds, and no longer when a byte of key, message or signature differs."""
    key, message, signature = (bytes.fromhex(part) for part in RFC_8032[name])

    assert verify(key, message, signature)

    assert not verify(key, message + b"\0", signature)
    for at in range(0, 64, 5):
        assert not verify(key, message, signature[:at] + bytes([signature[at] ^ 0x10]) + signature[at + 1 :])


def test_verdicts_are_libsodiums():
    """Points of small order, numbers and points in a second encoding, and points with a small part."""
    verdicts = {name: verify(*forgery) for name, forgery in FORGERIES.items()}

    assert verdicts == {name: sodium_verifies(*forgery) for name, forgery in FORGERIES.items()}
    assert list(verdicts.values()).count(True) > 3, "some hold, so that the comparison says something"
    assert not verdicts["s + L"]
    assert not any(is_sound_key(key) for key in SMALL)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_wrong_sizes_are_no_signature(size):
    """And no error either."""
    key, message, signature = FORGERIES["honest"]

    assert not verify(bytes(size), message, signature)
    assert not verify(key, message, signature[: max(0, size - 1)])
    assert not verify(key, message, signature + bytes(size or 1))
    assert not is_sound_key(bytes(size))


@settings(max_examples=60, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200), flip=st.integers(0, 96 * 8 - 1))
def test_signatures_by_cryptography(seed, message, flip):
    """Each that it makes holds, and none with a bit of key or signature flipped, as it says itself."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key, signature = private.public_key().public_bytes_raw(), private.sign(message)
    both = bytearray(key + signature)
    both[flip // 8] ^= 1 << flip % 8

    assert verify(key, message, signature)
    assert not verify(bytes(both[:32]), message, bytes(both[32:]))
