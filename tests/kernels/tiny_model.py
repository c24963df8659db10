"""Model files of any shape with random weights, as bytes: what no checkpoint at hand has (odd widths, row scales)."""

import json
import struct
import zlib
from typing import Any

import numpy as np

from edgebit.bundle.model_format import (
    HEADER,
    MAGIC,
    NO_LAYER,
    SECTION,
    VERSION,
    Activation,
    Conf,
    Encoding,
    Norms,
    Probe,
    Role,
    Scales,
    Tensor,
    aligned,
    pack_probes,
    values_size,
)
from edgebit.ternary.layouts import pack_h8, pack_t1, pack_t2

ODD_SHAPE: dict[str, Any] = {
    "hidden_size": 70, "ffn_size": 101, "n_layers": 2, "n_heads": 6, "n_kv_heads": 2, "head_dim": 10, "vocab_size": 77,
}  # fmt: skip


def tiny_conf(**changes: Any) -> Conf:
    """A CONF of ODD_SHAPE, with changes."""
    fields: dict[str, Any] = {
        **ODD_SHAPE, "context_max": 300, "rms_norm_eps": 1e-5, "activation": Activation.RELU2,
        "norms": Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM, "head_tied": False, "bos_token": 1, "stop_tokens": (2, 5),
    }  # fmt: skip
    return Conf(**(fields | changes))


class TinyModel:
    """The tensors of a random model, as numpy arrays and as a file.

    `weights` holds, for (role, layer), float32 values: codes x scale where the file has codes.
    """

    def __init__(
        self,
        conf: Conf,
        *,
        seed: int = 0,
        row_scales: bool = False,
        embedding: Encoding = Encoding.F32,
        layout: Encoding = Encoding.T2,
    ) -> None:
        self.conf, self.row_scales, self.embedding, self.layout = conf, row_scales, embedding, layout
        self.weights: dict[tuple[Role, int], np.ndarray] = {}
        self._stored: dict[tuple[Role, int], tuple[Encoding, bytes, np.ndarray]] = {}
        random = np.random.default_rng(seed)
        for role, layer in conf.roles():
            self._add(random, role, layer)

    def _add(self, random: np.random.Generator, role: Role, layer: int) -> None:
        rows, columns = self.conf.shape_of(role)
        scales = np.zeros(0, "<f4")
        if role == Role.ROPE_INV_FREQ:
            encoding, values = Encoding.F32, (0.3 ** np.arange(columns)).astype("<f4").reshape(1, -1)
        elif role.is_projection:
            encoding = self.layout
            codes = random.integers(-1, 2, (rows, columns), dtype=np.int8)
            scales = random.uniform(0.5, 2, rows if self.row_scales else 1).astype("<f4")
            values = codes * scales[:, None]
            stored = pack_t1(codes) if self.layout == Encoding.T1 else pack_t2(codes)
        elif role == Role.HEAD or (role == Role.TOKEN_EMBEDDING and self.embedding == Encoding.I8):
            codes = random.integers(-127, 128, (rows, columns), dtype=np.int8)
            scales = random.uniform(0.001, 0.02, rows).astype("<f4")
            values = codes * scales[:, None]
            if role == Role.HEAD:
                encoding, stored = Encoding.H8, np.frombuffer(_head_bytes(codes), np.uint8)
            else:
                encoding, stored = Encoding.I8, np.zeros((rows, aligned(columns)), np.int8)
                stored[:, :columns] = codes
        elif role == Role.TOKEN_EMBEDDING and self.embedding == Encoding.BF16:
            encoding = Encoding.BF16
            stored = (random.standard_normal((rows, columns)).astype("<f4").view("<u4") >> 16).astype("<u2")
            values = (stored.astype("<u4") << 16).view("<f4")
        else:
            encoding = Encoding.F32
            values = random.standard_normal((rows, columns)).astype("<f4")
        data = (values if encoding == Encoding.F32 else stored).tobytes()
        self.weights[role, layer] = values.astype(np.float32)
        self._stored[role, layer] = encoding, data, scales

    def set_head(self, codes: np.ndarray, *, scales: np.ndarray | None = None, bound: float | None = None) -> None:
        """Put int8 codes, [vocab, hidden], into the head, with a scale of 0.001; `bound` in place of the true ones."""
        scales = np.full(len(codes), 0.001, "<f4") if scales is None else scales
        self.weights[Role.HEAD, NO_LAYER] = (codes * scales[:, None]).astype(np.float32)
        self._stored[Role.HEAD, NO_LAYER] = Encoding.H8, _head_bytes(codes, bound), scales

    def to_bytes(self, probes: tuple[Probe, ...] = ()) -> bytes:
        """The whole file."""
        sections = [("CONF", 128), ("TENS", 64 * len(self._stored)), ("DATA", 0), ("META", 0), ("PROB", 0)]
        position = aligned(HEADER.size + len(sections) * SECTION.size) + sum(aligned(size) for _, size in sections)
        table, data, start = [], b"", position
        for (role, layer), (encoding, values, scales) in self._stored.items():
            rows, columns = self.conf.shape_of(role)
            assert len(values) == values_size(encoding, rows, columns)
            offset = start + len(data)
            data += _padded(values)
            scales_offset = start + len(data) if scales.size else 0
            data += _padded(scales.tobytes())
            granularity = Scales.NONE if not scales.size else Scales.ROW if scales.size == rows else Scales.TENSOR
            if encoding.is_ternary and not self.row_scales:
                granularity = Scales.TENSOR
            table.append(
                Tensor(
                    role=role, layer=layer if role.per_layer else NO_LAYER, encoding=encoding, scales=granularity,
                    rows=rows, columns=columns, offset=offset, size=len(values), scales_offset=scales_offset,
                    n_scales=scales.size,
                ).pack()
            )  # fmt: skip
        meta = json.dumps({"name": "tiny"}).encode()
        return assemble(
            {"CONF": self.conf.pack(), "TENS": b"".join(table), "DATA": data, "META": meta, "PROB": pack_probes(probes)}
        )


def _head_bytes(codes: np.ndarray, bound: float | None = None) -> bytes:
    planes = pack_h8(codes)
    bounds = [planes.high_bounds, planes.middle_bounds]
    if bound is not None:
        bounds = [np.full_like(true, bound) for true in bounds]
    parts = [planes.high, planes.middle, planes.low, *bounds]
    return b"".join(_padded(part.tobytes()) for part in parts)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 64)


def assemble(sections: dict[str, bytes]) -> bytes:
    """A model file of these sections, with its sums."""
    position = aligned(HEADER.size + len(sections) * SECTION.size)
    table, body = b"", b""
    for tag, content in sections.items():
        table += SECTION.pack(tag.encode(), zlib.crc32(content), position + len(body), len(content), b"")
        body += _padded(content)
    start = HEADER.pack(MAGIC, VERSION, len(sections), position + len(body), zlib.crc32(table), 0, b"")
    start = start[:28] + struct.pack("<I", zlib.crc32(start[:28])) + start[32:]
    return _padded(start + table) + body


def corrected(file: bytearray) -> bytes:
    """The file with size and sums set right, as far as the section table can be read: damage goes on beneath them."""
    n_sections = struct.unpack_from("<I", file, 12)[0]
    struct.pack_into("<Q", file, 16, len(file))
    for place in range(64, min(64 + 32 * n_sections, len(file) - 31), 32):
        offset, size = struct.unpack_from("<QQ", file, place + 8)
        struct.pack_into("<I", file, place + 4, zlib.crc32(file[offset : offset + size]))
    struct.pack_into("<I", file, 24, zlib.crc32(file[64 : 64 + 32 * n_sections]))
    struct.pack_into("<I", file, 28, zlib.crc32(file[:28]))
    return bytes(file)
