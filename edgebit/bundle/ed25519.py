"""Ed25519 signatures, verified with nothing but Python's integers and SHA-512 (RFC 8032).

Verifying handles no secret, so time that depends on the input gives nothing away; there is no signing here. As strict
as libsodium, which minisign uses: one encoding for every number and point, no point of small order, no cofactor.
"""

import hashlib

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19  # the field
_L = 2**252 + 27742317777372353535851937790883648493  # the order of the base point
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_M1 = pow(2, (_P - 1) // 4, _P)

_Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z (Hisil et al. 2008)
_NEUTRAL: _Point = (0, 1, 1, 0)


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is one of `message` by the owner of the public `key`."""
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    point, r = _decode_sound(key), signature[:32]
    s = int.from_bytes(signature[32:], "little")
    if point is None or _decode_sound(r) is None or s >= _L:
        return False
    h = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % _L
    return _encode(_two_products(s, _BASE, h, _negative(point))) == r


def is_sound_key(key: bytes) -> bool:
    """Whether `key` encodes, in the one right way, a point that could be somebody's public key."""
    return len(key) == KEY_BYTES and _decode_sound(key) is not None


def _decode_sound(data: bytes) -> _Point | None:
    """The point that 32 bytes encode; None for another encoding of it, for no point, and for one of small order."""
    number = int.from_bytes(data, "little")
    y, odd = number & ((1 << 255) - 1), number >> 255
    if y >= _P:
        return None
    x = _recover_x(y, odd)
    if x is None:
        return None
    point = (x, y, 1, x * y % _P)
    eightfold = _double(_double(_double(point)))
    return None if _is_neutral(eightfold) else point


def _recover_x(y: int, odd: int) -> int | None:
    """The x of -x^2 + y^2 = 1 + d x^2 y^2 that is odd or even as asked (RFC 8032, 5.1.3)."""
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if (v * x * x - u) % _P:
        x = x * _SQRT_M1 % _P
    if (v * x * x - u) % _P or (x == 0 and odd):
        return None
    return x if x & 1 == odd else _P - x


def _add(p: _Point, q: _Point) -> _Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * _D * p[3] * q[3] % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(p: _Point) -> _Point:
    a, b = p[0] * p[0], p[1] * p[1]
    h = a + b
    e = h - (p[0] + p[1]) ** 2
    g = a - b
    f = 2 * p[2] * p[2] + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _negative(p: _Point) -> _Point:
    return -p[0] % _P, p[1], p[2], -p[3] % _P


def _is_neutral(p: _Point) -> bool:
    return p[0] % _P == 0 and (p[1] - p[2]) % _P == 0


def _two_products(s: int, p: _Point, h: int, q: _Point) -> _Point:
    """s p + h q, bit by bit together (Shamir's trick)."""
    both, total = _add(p, q), _NEUTRAL
    for bit in range(max(s.bit_length(), h.bit_length()) - 1, -1, -1):
        total = _double(total)
        if s >> bit & 1:
            total = _add(total, both if h >> bit & 1 else p)
        elif h >> bit & 1:
            total = _add(total, q)
    return total


def _encode(p: _Point) -> bytes:
    inverse = pow(p[2], -1, _P)
    x, y = p[0] * inverse % _P, p[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _base() -> _Point:
    y = 4 * pow(5, -1, _P) % _P
    x = _recover_x(y, 0)
    assert x is not None
    return x, y, 1, x * y % _P


_BASE = _base()
