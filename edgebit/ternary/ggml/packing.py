"""Ternary weights packed as ggml keeps them: TQ1_0, TQ2_0, Q4_0 and I2_S, each row in blocks.

Sources: ggml-quants.c of llama.cpp (the first three), ggml-bitnet-mad.cpp of bitnet.cpp for x86 (I2_S).
"""

import numpy as np
from numpy.typing import NDArray


def pack_tq2_0(weights: NDArray[np.int8], d: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to [rows, columns / 256, 66]: 64 bytes of codes, then the block's scale.

    d: [rows, columns / 256]. In each 32 bytes, byte p holds weights p, 32 + p, 64 + p, 96 + p from low to high bits.
    """
    codes = _codes(weights).reshape(*d.shape, 2, 4, 32)
    packed = _join(codes, (0, 2, 4, 6)).reshape(*d.shape, 64)
    return np.concatenate([packed, _bytes(d)], axis=2)


def pack_tq1_0(weights: NDArray[np.int8], d: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to [rows, columns / 256, 54]: 52 bytes of codes, then the block's scale.

    d: [rows, columns / 256]. Bytes hold five weights as a fraction of 243, the first in the highest digit: 160 weights
    in 32 bytes, 80 in 16, and the last 16 in four bytes of four.
    """
    codes = _codes(weights).reshape(*d.shape, 256)
    parts = [
        _fractions(codes[..., :160].reshape(*d.shape, 5, 32)),
        _fractions(codes[..., 160:240].reshape(*d.shape, 5, 16)),
        _fractions(codes[..., 240:].reshape(*d.shape, 4, 4)),
    ]
    return np.concatenate([*parts, _bytes(d)], axis=2)


def pack_q4_0(weights: NDArray[np.int8], d: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to [rows, columns / 32, 18]: the block's scale, then 16 bytes.

    d: [rows, columns / 32]. Byte p holds weight p in its low half and 16 + p in its high half, as weight + 8.
    """
    codes = (weights.view(np.uint8) + np.uint8(8)).reshape(*d.shape, 2, 16)
    return np.concatenate([_bytes(d), _join(codes, (0, 4))], axis=2)


def pack_i2_s(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Weights {-1, 0, +1}, [rows, columns], to [rows, columns / 4] bytes of I2_S as the hub's files have it.

    Of 128 weights in 32 bytes, byte p holds weights p, 32 + p, 64 + p, 96 + p from high to low bits. The tensor's one
    scale is not among them.
    """
    rows, columns = weights.shape
    return _join(_codes(weights).reshape(rows, columns // 128, 4, 32), (6, 4, 2, 0)).reshape(rows, columns // 4)


def _codes(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    return weights.view(np.uint8) + np.uint8(1)  # modulo 256: 255 stands for -1


def _bytes(d: NDArray[np.float16]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(d.astype("<f2")).view(np.uint8).reshape(*d.shape, 2)


def _join(codes: NDArray[np.uint8], shifts: tuple[int, ...]) -> NDArray[np.uint8]:
    """Codes, [..., n, bytes], to bytes, [..., bytes]: code i shifted by shifts[i]."""
    joined = np.zeros((*codes.shape[:-2], codes.shape[-1]), np.uint8)
    for i, shift in enumerate(shifts):
        joined |= codes[..., i, :] << np.uint8(shift)
    return joined


def _fractions(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes, [..., n, bytes], to bytes, [..., bytes]: n digits to base 3 of five, times 256 / 243, rounded up."""
    numbers = np.zeros((*codes.shape[:-2], codes.shape[-1]), np.uint16)
    for i in range(codes.shape[-2]):
        numbers += codes[..., i, :] * np.uint16(3 ** (4 - i))
    return ((numbers.astype(np.uint32) * 256 + 242) // 243).astype(np.uint8)
