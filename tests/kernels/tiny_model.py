"""Model files of any shape and form with random weights, as bytes: what no checkpoint at hand has."""

import json
import struct
import zlib
from typing import Any

import numpy as np

from edgebit.bundle.model_format import (
    HEADER,
    MAGIC,
    NO_LAYER,
    PER_ROW,
    PER_TENSOR,
    SECTION,
    UNSCALED,
    VERSION,
    Activation,
    Conf,
    Encoding,
    Norms,
    Probe,
    Role,
    Scaling,
    ScalingOf,
    Tensor,
    aligned,
    pack_probes,
    values_size,
)
from edgebit.ternary.layouts import pack_h8, pack_t1, pack_t2

ODD_SHAPE: dict[str, Any] = {
    "hidden_size": 70, "ffn_size": 101, "n_layers": 2, "n_heads": 6, "n_kv_heads": 2, "head_dim": 10, "vocab_size": 77,
}  # fmt: skip


_Stored = tuple[Encoding, Scaling, bytes, np.ndarray]  # encoding, scaling, the values' bytes, scales


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
        scaling: Scaling | ScalingOf = PER_TENSOR,
        embedding: Encoding = Encoding.F32,
        layout: Encoding = Encoding.T2,
    ) -> None:
        """`scaling`: of all projections, or of each by role and layer; those by group are t2 whatever `layout` says."""
        self.conf, self.embedding, self.layout = conf, embedding, layout
        self._scaling = scaling
        self.weights: dict[tuple[Role, int], np.ndarray] = {}
        self._stored: dict[tuple[Role, int], _Stored] = {}
        random = np.random.default_rng(seed)
        for role, layer in conf.roles():
            if role.is_projection:
                codes = random.integers(-1, 2, conf.shape_of(role), dtype=np.int8)
                count = self._scaling_of(role, layer).count(*codes.shape)
                self.set_projection(role, layer, codes, random.uniform(0.5, 2, count).astype("<f4"))
            elif role == Role.HEAD or (role == Role.TOKEN_EMBEDDING and embedding == Encoding.I8):
                codes = random.integers(-127, 128, conf.shape_of(role), dtype=np.int8)
                self._set_rows(role, codes, random.uniform(0.001, 0.02, len(codes)).astype("<f4"))
            elif role == Role.ROPE_INV_FREQ:
                self._set_floats(role, layer, (0.3 ** np.arange(conf.head_dim // 2)).astype("<f4").reshape(1, -1))
            else:
                self._set_floats(role, layer, random.standard_normal(conf.shape_of(role)).astype("<f4"))

    def _scaling_of(self, role: Role, layer: int) -> Scaling:
        return self._scaling if isinstance(self._scaling, Scaling) else self._scaling(role, layer)

    def set_projection(self, role: Role, layer: int, codes: np.ndarray, scales: np.ndarray) -> None:
        """Put codes {-1, 0, +1} into a projection, with scales as the file has them: 1, [rows], or [groups][rows]."""
        scaling = self._scaling_of(role, layer)
        step = scaling.group or codes.shape[1]
        pack = pack_t1 if self.layout == Encoding.T1 and not scaling.group else pack_t2
        groups = [codes[:, first : first + step] for first in range(0, codes.shape[1], step)]
        by_group = scales.reshape(len(groups), -1, 1)  # [groups, rows or 1, 1]
        values = [group * scale for group, scale in zip(groups, by_group, strict=True)]
        self.weights[role, layer] = np.concatenate(values, axis=1).astype(np.float32)
        packed = b"".join(pack(group).tobytes() for group in groups)
        self._stored[role, layer] = Encoding.T1 if pack is pack_t1 else Encoding.T2, scaling, packed, scales

    def _set_rows(self, role: Role, codes: np.ndarray, scales: np.ndarray) -> None:
        """int8 codes by row: the head, or the embedding."""
        self.weights[role, NO_LAYER] = (codes * scales[:, None]).astype(np.float32)
        if role == Role.HEAD:
            self._stored[role, NO_LAYER] = Encoding.H8, PER_ROW, _head_bytes(codes), scales
            return
        filled_up = np.zeros((len(codes), aligned(codes.shape[1])), np.int8)
        filled_up[:, : codes.shape[1]] = codes
        self._stored[role, NO_LAYER] = Encoding.I8, PER_ROW, filled_up.tobytes(), scales

    def _set_floats(self, role: Role, layer: int, values: np.ndarray) -> None:
        """Norms, frequencies, and the embedding, which may have 16 bits."""
        encoding = self.embedding if role == Role.TOKEN_EMBEDDING else Encoding.F32
        stored = values
        if encoding == Encoding.BF16:
            stored = (values.view("<u4") >> 16).astype("<u2")
            values = (stored.astype("<u4") << 16).view("<f4")
        elif encoding == Encoding.F16:
            stored = values.astype("<f2")
            values = stored.astype("<f4")
        self.weights[role, layer] = values
        self._stored[role, layer] = encoding, UNSCALED, stored.tobytes(), np.zeros(0, "<f4")

    def set_embedding(self, values: np.ndarray) -> None:
        """Put floats, [vocab, hidden], into the embedding, in the encoding that the model has for it."""
        self._set_floats(Role.TOKEN_EMBEDDING, NO_LAYER, values)

    def set_head(self, codes: np.ndarray, *, scales: np.ndarray | None = None, bound: float | None = None) -> None:
        """Put int8 codes, [vocab, hidden], into the head, with a scale of 0.001; `bound` in place of the true ones."""
        scales = np.full(len(codes), 0.001, "<f4") if scales is None else scales
        self.weights[Role.HEAD, NO_LAYER] = (codes * scales[:, None]).astype(np.float32)
        self._stored[Role.HEAD, NO_LAYER] = Encoding.H8, PER_ROW, _head_bytes(codes, bound), scales

    def to_bytes(self, probes: tuple[Probe, ...] = ()) -> bytes:
        """The whole file."""
        sections = [("CONF", 128), ("TENS", 64 * len(self._stored)), ("DATA", 0), ("META", 0), ("PROB", 0)]
        position = aligned(HEADER.size + len(sections) * SECTION.size) + sum(aligned(size) for _, size in sections)
        table, data, start = [], b"", position
        for (role, layer), (encoding, scaling, values, scales) in self._stored.items():
            rows, columns = self.conf.shape_of(role)
            assert len(values) == values_size(encoding, rows, columns, scaling.group)
            assert scales.size == scaling.count(rows, columns)
            offset = start + len(data)
            data += _padded(values)
            scales_offset = start + len(data) if scales.size else 0
            data += _padded(scales.tobytes())
            table.append(
                Tensor(
                    role=role, layer=layer if role.per_layer else NO_LAYER, encoding=encoding,
                    granularity=scaling.granularity, rows=rows, columns=columns, offset=offset, size=len(values),
                    scales_offset=scales_offset, n_scales=scales.size, group=scaling.group,
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
