"""Writes GGUF files for tests, of the types too that the gguf package does not know.

Where a reader takes bytes apart by reshaping, these writers say for each weight which byte it is added to and times
what, from the formulas of the quantisers: another route to the same layouts.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

F32, F16, BF16 = 0, 1, 30
Place = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # column in a block -> byte in the block, multiplier


@dataclass(frozen=True)
class Packed:
    """A ternary type: its number, what a block is, and where its weights and scales go."""

    type_id: int
    block: int
    block_bytes: int
    place: Place
    base: int = 4  # 3: bytes are numbers of base 3, stretched over 256 values; 2: bits
    zero: int = 1  # what a weight of 0 is stored as
    scale_at: int | None = None  # byte of a block with its f16 scale
    row_scale: str | None = None  # struct format of a scale before each row


def _tq1_0(j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k, m = j - 160, j - 240
    byte = np.where(j < 160, j % 32, np.where(j < 240, 32 + k % 16, 48 + m % 4))
    digit = np.where(j < 160, j // 32, np.where(j < 240, k // 16, m // 4))
    return byte, 3 ** (4 - digit)


def _iq1_bn(j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i, k = j // 16, j % 16
    return np.where(k < 15, 3 * i + k // 5, 12), 3 ** np.where(k < 15, k % 5, i)


TYPES = {
    "TQ1_0": Packed(34, 256, 54, _tq1_0, base=3, scale_at=52),
    "TQ2_0": Packed(35, 256, 66, lambda j: (j // 128 * 32 + j % 32, 4 ** (j % 128 // 32)), scale_at=64),
    "Q2_0_64": Packed(42, 64, 18, lambda j: (2 + j // 4, 4 ** (j % 4)), scale_at=0),
    "Q2_0_128": Packed(42, 128, 34, lambda j: (2 + j // 4, 4 ** (j % 4)), scale_at=0),
    "Q4_0": Packed(2, 32, 18, lambda j: (2 + j % 16, 16 ** (j // 16)), zero=8, scale_at=0),
    "Q1_0": Packed(41, 128, 18, lambda j: (2 + j // 8, 2 ** (j % 8)), base=2, scale_at=0),
    "IQ1_BN": Packed(134, 64, 13, _iq1_bn, base=3, row_scale="<e"),
    "IQ2_BN": Packed(135, 64, 16, lambda j: (j % 16, 4 ** (j // 16)), row_scale="<f"),
}
I2_S = 36


def pack(name: str, weights: np.ndarray, scales: Any) -> bytes:
    """Weights {-1, 0, +1}, [rows, columns], in a type of TYPES; scales: one, one a row, or [rows, blocks]."""
    kind = TYPES[name]
    rows, columns = weights.shape
    n_blocks = columns // kind.block
    column = np.arange(columns)
    byte, times = kind.place(column % kind.block)
    digits = (weights > 0).astype(np.int64) if kind.base == 2 else weights.astype(np.int64) + kind.zero
    numbers = np.zeros((rows, n_blocks * kind.block_bytes), np.int64)
    np.add.at(numbers, (slice(None), column // kind.block * kind.block_bytes + byte), digits * times)
    stored = -(-numbers * 256 // 243) if kind.base == 3 else numbers
    blocks = stored.astype(np.uint8).reshape(rows, n_blocks, kind.block_bytes)
    by_row = np.broadcast_to(np.asarray(scales, np.float64).reshape(-1, 1) if np.ndim(scales) < 2 else scales,
                             (rows, n_blocks if np.ndim(scales) == 2 else 1))  # fmt: skip
    out = b""
    for row in range(rows):
        if kind.row_scale:
            out += struct.pack(kind.row_scale, by_row[row, 0])
        for b in range(n_blocks):
            block = bytearray(blocks[row, b].tobytes())
            if kind.scale_at is not None:
                scale = by_row[row, b if by_row.shape[1] > 1 else 0]
                block[kind.scale_at : kind.scale_at + 2] = struct.pack("<e", scale)
            out += bytes(block)
    return out


def pack_i2_s(dialect: str, weights: np.ndarray, scale: float) -> bytes:
    """Weights in I2_S: codes one after the other, then the scale and 28 bytes of anything."""
    rows, columns = weights.shape
    row, column = (index.reshape(-1) for index in np.indices(weights.shape))
    if dialect == "rows4":
        byte, power = row // 4 * columns + column, 3 - row % 4
    else:
        quarter = {"x86": 32, "arm": 16}[dialect]
        place = row * columns + column
        j = place % (4 * quarter)
        byte, power = place // (4 * quarter) * quarter + j % quarter, 3 - j // quarter
    out = np.zeros(rows * columns // 4, np.int64)
    np.add.at(out, byte, (weights.astype(np.int64).reshape(-1) + 1) * 4**power)
    return out.astype(np.uint8).tobytes() + struct.pack("<f", scale) + b"\xaa" * 28


def text(value: str | bytes) -> bytes:
    """A string as GGUF has it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(of: Any) -> bytes:
    """Type and bytes of a value: bool, int (u32), float (f32), str, or a list of one of these."""
    if isinstance(of, bytes):
        return of  # already written, type and all
    if isinstance(of, bool):
        return struct.pack("<I?", 7, of)
    if isinstance(of, int):
        return struct.pack("<II", 4, of)
    if isinstance(of, float):
        return struct.pack("<If", 6, of)
    if isinstance(of, str):
        return struct.pack("<I", 8) + text(of)
    items = [value(item) for item in of]
    return struct.pack("<IIQ", 9, struct.unpack("<I", items[0][:4])[0], len(items)) + b"".join(
        item[4:] for item in items
    )


@dataclass
class Row:
    """A row of the tensor table and the tensor's bytes."""

    type_id: int
    shape: tuple[int, ...]  # rows first
    data: bytes
    name: bytes | None = None  # where it is not what the file calls it
    offset: int | None = None  # where it is not where it lies


@dataclass
class File:
    """A GGUF file in pieces, any of which a test may spoil."""

    fields: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Row] = field(default_factory=dict)
    magic: bytes = b"GGUF"
    version: bytes = struct.pack("<I", 3)
    n_tensors: int | None = None
    n_fields: int | None = None
    alignment: int = 32
    more_fields: bytes = b""
    n_more: int = 0

    def front(self) -> bytes:
        """What stands before the tensors, without the filling."""
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_fields = len(self.fields) + self.n_more if self.n_fields is None else self.n_fields
        out = self.magic + self.version + struct.pack("<QQ", n_tensors, n_fields)
        out += b"".join(text(key) + value(of) for key, of in self.fields.items()) + self.more_fields
        offset = 0
        for name, row in self.tensors.items():
            out += text(name if row.name is None else row.name) + struct.pack("<I", len(row.shape))
            out += struct.pack(f"<{len(row.shape)}Q", *row.shape[::-1])
            out += struct.pack("<IQ", row.type_id, offset if row.offset is None else row.offset)
            offset += len(self._filled(row.data))
        return out

    def build(self) -> bytes:
        """The whole file."""
        return self._filled(self.front()) + b"".join(self._filled(row.data) for row in self.tensors.values())

    def write(self, path: Path) -> Path:
        path.write_bytes(self.build())
        return path

    def _filled(self, data: bytes) -> bytes:
        return data + bytes(-len(data) % self.alignment)


def floats(values: np.ndarray, type_id: int = F32) -> Row:
    """A tensor of floats; of bf16 the bits are given."""
    dtype = {F32: "<f4", F16: "<f2", BF16: "<u2"}[type_id]
    return Row(type_id, values.shape, values.astype(dtype).tobytes())


def keys(architecture: str, sizes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The keys that every model has; sizes as config.json calls them."""
    return {
        "general.architecture": architecture,
        "general.name": "tiny",
        f"{architecture}.context_length": sizes["max_position_embeddings"],
        f"{architecture}.embedding_length": sizes["hidden_size"],
        f"{architecture}.block_count": sizes["num_hidden_layers"],
        f"{architecture}.feed_forward_length": sizes["intermediate_size"],
        f"{architecture}.attention.head_count": sizes["num_attention_heads"],
        f"{architecture}.attention.head_count_kv": sizes["num_key_value_heads"],
        f"{architecture}.attention.layer_norm_rms_epsilon": float(sizes["rms_norm_eps"]),
        f"{architecture}.rope.freq_base": float(sizes["rope_theta"]),
        **more,
    }


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.attn_sub_norm": "attn_sub_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.ffn_sub_norm": "ffn_sub_norm", "self_attn.inner_attn_ln": "attn_sub_norm",
    "mlp.ffn_layernorm": "ffn_sub_norm", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip


def gguf_name(name: str) -> str:
    """The GGUF name of a Hugging Face tensor."""
    stem = name.removesuffix(".weight")
    if not stem.startswith("model.layers."):
        return NAMES[stem] + ".weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.weight"


def interleave_heads(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp has them for architecture llama: the halves of each head in turn."""
    head_dim = len(rows) // n_heads
    order = [
        head * head_dim + half * head_dim // 2 + i
        for head in range(n_heads)
        for i in range(head_dim // 2)
        for half in range(2)
    ]
    return rows[order]


def size_of(type_id: int, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of a block type of TYPES."""
    kind = next(kind for kind in TYPES.values() if kind.type_id == type_id)
    return math.prod(shape) // kind.block * kind.block_bytes
