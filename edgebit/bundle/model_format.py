"""The model file's constants, records and byte layouts: docs/model-format.md, in Python. Standard library only."""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

MAGIC = b"\x89EBM\r\n\x1a\n"
VERSION = 2
ALIGNMENT = 64
MAX_SECTIONS = 32
MAX_META_BYTES = 16 << 20  # JSON values take up to 24 times as much memory
MAX_STOP_TOKENS = 8
MAX_PROBE_TOKENS = 4096
NO_LAYER = 0xFFFFFFFF
KNOWN_TAGS = ("CONF", "TENS", "DATA", "TOKN", "PRMT", "SCHM", "META", "PROB")
REQUIRED_TAGS = ("CONF", "TENS", "DATA", "META")

HEADER = struct.Struct("<8sIIQII32s")
SECTION = struct.Struct("<4sIQQ8s")
CONF = struct.Struct("<8If5IiI8i2f24s")
TENSOR = struct.Struct("<6I4QI4s")
GROUP_STEP = 64  # columns that share a scale with Granularity.GROUP are a multiple of this


class Activation(IntEnum):
    """What the gate of a feed-forward block goes through."""

    RELU2 = 1
    SILU = 2


class ActivationQuantisation(IntEnum):
    """What the inputs of projections are rounded to, absmax per token."""

    INT8 = 1
    INT15 = 2  # for models that were trained with float activations


class Norms(IntFlag):
    """The norms a model has besides those before attention, before the feed-forward block and at the end."""

    ATTN_SUB_NORM = 1
    FFN_SUB_NORM = 2
    QK_NORM = 4  # of each head of queries and keys, before RoPE
    PROJECTION_NORM = 8  # of each projection's input, before it is quantised


class Encoding(IntEnum):
    """How a tensor's values lie in bytes."""

    F32 = 1
    BF16 = 2
    I8 = 3
    T2 = 4
    T1 = 5
    H8 = 6
    F16 = 7

    @property
    def is_ternary(self) -> bool:
        return self in (Encoding.T2, Encoding.T1)


class Granularity(IntEnum):
    """How many weights share one scale."""

    NONE = 0
    TENSOR = 1
    ROW = 2
    GROUP = 3  # so many columns of a row


@dataclass(frozen=True, slots=True)
class Scaling:
    """Which weights of a tensor share a scale."""

    granularity: Granularity
    group: int = 0  # columns, with GROUP

    def count(self, rows: int, columns: int) -> int:
        """The number of scales; with GROUP they lie as [columns / group][rows]."""
        match self.granularity:
            case Granularity.NONE:
                return 0
            case Granularity.TENSOR:
                return 1
            case Granularity.ROW:
                return rows
            case Granularity.GROUP:
                return rows * (columns // self.group)


UNSCALED, PER_TENSOR, PER_ROW = Scaling(Granularity.NONE), Scaling(Granularity.TENSOR), Scaling(Granularity.ROW)


class Role(IntEnum):
    """What a tensor is in the model."""

    TOKEN_EMBEDDING = 1
    HEAD = 2
    FINAL_NORM = 3
    ROPE_INV_FREQ = 4
    INPUT_NORM = 16
    Q_PROJ = 17
    K_PROJ = 18
    V_PROJ = 19
    ATTN_SUB_NORM = 20
    O_PROJ = 21
    POST_ATTENTION_NORM = 22
    GATE_PROJ = 23
    UP_PROJ = 24
    FFN_SUB_NORM = 25
    DOWN_PROJ = 26
    Q_NORM = 27
    K_NORM = 28
    Q_PROJ_NORM = 33
    K_PROJ_NORM = 34
    V_PROJ_NORM = 35
    O_PROJ_NORM = 37
    GATE_PROJ_NORM = 39
    UP_PROJ_NORM = 40
    DOWN_PROJ_NORM = 42

    @property
    def per_layer(self) -> bool:
        return self >= Role.INPUT_NORM

    @property
    def is_projection(self) -> bool:
        return self in PROJECTIONS

    @property
    def norm_of(self) -> "Role":
        """Of a projection: the norm of its input, with Norms.PROJECTION_NORM."""
        return Role(self + 16)


ScalingOf = Callable[[Role, int], Scaling]  # of a projection, by role and layer

PROJECTIONS = (Role.Q_PROJ, Role.K_PROJ, Role.V_PROJ, Role.O_PROJ, Role.GATE_PROJ, Role.UP_PROJ, Role.DOWN_PROJ)
_ROLES_OF_NORMS = {
    Norms.ATTN_SUB_NORM: (Role.ATTN_SUB_NORM,),
    Norms.FFN_SUB_NORM: (Role.FFN_SUB_NORM,),
    Norms.QK_NORM: (Role.Q_NORM, Role.K_NORM),
    Norms.PROJECTION_NORM: tuple(projection.norm_of for projection in PROJECTIONS),
}
_PROJECTION_OF_NORM = {projection.norm_of: projection for projection in PROJECTIONS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Conf:
    """Section CONF: what to compute."""

    hidden_size: int
    ffn_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    context_max: int  # tokens
    rms_norm_eps: float
    activation: Activation
    norms: Norms
    head_tied: bool
    bos_token: int  # -1: none
    stop_tokens: tuple[int, ...]
    activation_quantisation: ActivationQuantisation = ActivationQuantisation.INT8
    projection_norm_eps: float = 0.0  # with Norms.PROJECTION_NORM
    rope_attention_factor: float = 1.0  # what rotated queries and keys are multiplied by (YaRN)

    def shape_of(self, role: Role) -> tuple[int, int]:
        """Rows and columns of the tensor with that role."""
        attention, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        if role in _PROJECTION_OF_NORM:
            return 1, self.shape_of(_PROJECTION_OF_NORM[role])[1]
        return {
            Role.TOKEN_EMBEDDING: (self.vocab_size, self.hidden_size),
            Role.HEAD: (self.vocab_size, self.hidden_size),
            Role.FINAL_NORM: (1, self.hidden_size),
            Role.ROPE_INV_FREQ: (1, self.head_dim // 2),
            Role.INPUT_NORM: (1, self.hidden_size),
            Role.Q_PROJ: (attention, self.hidden_size),
            Role.K_PROJ: (kv, self.hidden_size),
            Role.V_PROJ: (kv, self.hidden_size),
            Role.ATTN_SUB_NORM: (1, attention),
            Role.O_PROJ: (self.hidden_size, attention),
            Role.POST_ATTENTION_NORM: (1, self.hidden_size),
            Role.GATE_PROJ: (self.ffn_size, self.hidden_size),
            Role.UP_PROJ: (self.ffn_size, self.hidden_size),
            Role.FFN_SUB_NORM: (1, self.ffn_size),
            Role.DOWN_PROJ: (self.hidden_size, self.ffn_size),
            Role.Q_NORM: (1, self.head_dim),
            Role.K_NORM: (1, self.head_dim),
        }[role]

    def roles(self) -> list[tuple[Role, int]]:
        """Every tensor the model has, as (role, layer or NO_LAYER), layer after layer."""
        absent = {role for norm, roles in _ROLES_OF_NORMS.items() if norm not in self.norms for role in roles}
        layer_roles = [role for role in Role if role.per_layer and role not in absent]
        return [
            (Role.TOKEN_EMBEDDING, NO_LAYER),
            (Role.ROPE_INV_FREQ, NO_LAYER),
            *((role, layer) for layer in range(self.n_layers) for role in layer_roles),
            (Role.FINAL_NORM, NO_LAYER),
            (Role.HEAD, NO_LAYER),
        ]

    @property
    def parameters(self) -> int:
        """Weights of the checkpoint; a tied head counts once."""
        left_out = {Role.ROPE_INV_FREQ} | ({Role.HEAD} if self.head_tied else set())
        return sum(math.prod(self.shape_of(role)) for role, _ in self.roles() if role not in left_out)

    def pack(self) -> bytes:
        """The 128 bytes of section CONF."""
        stops = self.stop_tokens + (-1,) * (MAX_STOP_TOKENS - len(self.stop_tokens))
        return CONF.pack(
            self.hidden_size, self.ffn_size, self.n_layers, self.n_heads, self.n_kv_heads, self.head_dim,
            self.vocab_size, self.context_max, self.rms_norm_eps, self.activation, self.norms,
            self.activation_quantisation, 1, int(self.head_tied), self.bos_token, len(self.stop_tokens), *stops,
            self.projection_norm_eps, 0.0 if self.rope_attention_factor == 1 else self.rope_attention_factor, b"",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One row of section TENS; offsets count from the first byte of the file."""

    role: Role
    layer: int
    encoding: Encoding
    granularity: Granularity
    rows: int
    columns: int
    offset: int
    size: int
    scales_offset: int
    n_scales: int
    group: int = 0  # columns that share a scale, with Granularity.GROUP

    def pack(self) -> bytes:
        """The 64 bytes of this tensor's row."""
        return TENSOR.pack(
            self.role, self.layer, self.encoding, self.granularity, self.rows, self.columns,
            self.offset, self.size, self.scales_offset, self.n_scales, self.group, b"",
        )  # fmt: skip

    @property
    def name(self) -> str:
        return self.role.name.lower() + (f"[{self.layer}]" if self.role.per_layer else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A golden probe: a prompt and what any engine must compute from it."""

    prompt: tuple[int, ...]
    layer_crc: tuple[int, ...]  # CRC-32 of the last prompt token's hidden state: embedding, then after each layer
    logits_crc: int
    greedy: tuple[int, ...]


def aligned(size: int) -> int:
    """The next multiple of the file's alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def values_size(encoding: Encoding, rows: int, columns: int, group: int = 0) -> int:
    """Bytes of the values of a tensor; those of t2 with `group` columns to a scale lie group after group."""
    if group:
        return columns // group * values_size(encoding, rows, group)
    match encoding:
        case Encoding.F32:
            return 4 * rows * columns
        case Encoding.BF16 | Encoding.F16:
            return 2 * rows * columns
        case Encoding.I8:
            return rows * _up(columns, 64)
        case Encoding.T2:
            return _up(rows, 4) * _up(columns, 64) // 4
        case Encoding.T1:
            n_blocks, rest = divmod(_up(columns, 64), 384)
            return _up(rows, 4) * (80 * n_blocks + rest // 4)
        case Encoding.H8:
            return sum(head_parts(rows, columns))


def head_parts(rows: int, columns: int) -> tuple[int, int, int, int, int]:
    """Bytes of the parts of encoding H8: high, middle, low, and the bounds of high and of middle."""
    padded = _up(columns, 256)
    return _up(rows, 4) * padded // 2, rows * padded // 4, rows * padded // 4, aligned(4 * rows), aligned(4 * rows)


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def pack_probes(probes: tuple[Probe, ...]) -> bytes:
    """The bytes of section PROB."""
    parts = [struct.pack("<II", 1, len(probes))]
    for probe in probes:
        parts.append(struct.pack("<4I", len(probe.prompt), len(probe.greedy), len(probe.layer_crc), probe.logits_crc))
        parts.append(struct.pack(f"<{len(probe.prompt) + len(probe.greedy)}i", *probe.prompt, *probe.greedy))
        parts.append(struct.pack(f"<{len(probe.layer_crc)}I", *probe.layer_crc))
    return b"".join(parts)
