"""The adapter file: docs/adapter-format.md in Python. Standard library only."""

import math
import re
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from edgebit.bundle.model_format import ALIGNMENT, PROJECTIONS, Encoding, Role, aligned
from edgebit.errors import BundleError

MAGIC = b"\x89EBA\r\n\x1a\n"
VERSION = 1
MAX_RANK = 1024
LANES = 16  # columns of A, and rows of B, are filled up to a multiple of this
SUFFIX = ".adapter"
ENCODINGS = {"f16": Encoding.F16, "int8": Encoding.I8}  # by the name that users have for them

_HEADER = struct.Struct("<8sIIQQ64s24sII")
_PAIR = struct.Struct("<6IfI")
_HEADER_SUM_AT = _HEADER.size - 4
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPair:
    """The matrices of one projection as they lie in the file; scales are float32, and empty with F16."""

    layer: int
    role: Role
    encoding: Encoding  # F16 or I8
    rank: int
    columns: int  # of the projection
    rows: int
    scale: float
    a: bytes
    b: bytes
    a_scales: bytes = b""
    b_scales: bytes = b""

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Bytes of a, a_scales, b and b_scales: the parts in the order of the file."""
        is_i8 = self.encoding == Encoding.I8
        values = self.rank * (1 if is_i8 else 2)
        return (
            values * _to_lanes(self.columns), 4 * self.rank * is_i8,
            values * _to_lanes(self.rows), 4 * self.rows * is_i8,
        )  # fmt: skip

    @property
    def parts(self) -> tuple[bytes, bytes, bytes, bytes]:
        """What lies in the file, in its order."""
        return self.a, self.a_scales, self.b, self.b_scales


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """The content of an adapter file."""

    name: str
    base: int  # the weights' fingerprint of the model that it is for (Model.weights_fingerprint)
    pairs: tuple[StoredPair, ...]  # ascending by layer and role

    def pack(self) -> bytes:
        """The whole file. Raises BundleError where the name is none that a file can have."""
        check_name(self.name)
        table = b"".join(
            _PAIR.pack(pair.role, pair.layer, pair.encoding, pair.rank, pair.columns, pair.rows, pair.scale, 0)
            for pair in self.pairs
        )
        content = _padded(table) + b"".join(_padded(part) for pair in self.pairs for part in pair.parts)
        start = _HEADER.pack(
            MAGIC, VERSION, len(self.pairs), _HEADER.size + len(content), self.base, self.name.encode(), b"",
            zlib.crc32(content), 0,
        )[:_HEADER_SUM_AT]  # fmt: skip
        return start + struct.pack("<I", zlib.crc32(start)) + content


def check_name(name: str) -> None:
    """Raise BundleError where an adapter cannot be called so: requests and topics hold the name."""
    if not _NAME.fullmatch(name):
        raise BundleError(f"an adapter cannot be called {name!r}: take 1 to 64 letters, digits, '.', '_' and '-'")


def read_adapter_file(path: Path) -> AdapterFile:
    """Read and check a file; values are looked at by the engine alone.

    Raises BundleError where it is damaged, cut short, no adapter, or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    return parse_adapter(data, str(path))


def parse_adapter(data: bytes, source: str) -> AdapterFile:
    """The same for bytes that are there; `source` names them in messages."""
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise BundleError(f"{source} is no adapter file. Make one: edgebit adapter convert")
    _, version, count, size, base, name, reserved, content_sum, header_sum = _HEADER.unpack_from(data)
    if zlib.crc32(data[:_HEADER_SUM_AT]) != header_sum:
        raise BundleError(f"{source}: the header's sum is wrong: the file is damaged. Copy it again")
    if version != VERSION:
        raise BundleError(f"{source}: version {version} of the adapter format; this edgebit knows version {VERSION}")
    if size != len(data):
        raise BundleError(f"{source}: the header says {size} bytes, there are {len(data)}: a copy cut short")
    if zlib.crc32(data[_HEADER.size :]) != content_sum:
        raise BundleError(f"{source}: the content's sum is wrong: the file is damaged. Copy it again")
    if any(reserved):
        raise BundleError(f"{source}: reserved bytes of the header are not zero")
    called = name.rstrip(b"\0").decode("latin-1")
    check_name(called)
    content = _Content(data, source)
    if not count or count > (len(data) - _HEADER.size) // _PAIR.size:
        raise BundleError(f"{source}: {count} pairs do not fit the file")
    table = content.take(count * _PAIR.size)
    pairs = tuple(_read_pair(fields, content) for fields in _PAIR.iter_unpack(table))
    if content.left:
        raise BundleError(f"{source}: {content.left} bytes are left over after the last pair")
    places = [(pair.layer, pair.role) for pair in pairs]
    if sorted(set(places)) != places:
        raise BundleError(f"{source}: its pairs are out of order, or one stands twice")
    return AdapterFile(called, base, pairs)


class _Content:
    """What follows the header, part by part."""

    def __init__(self, data: bytes, source: str) -> None:
        self.source = source
        self._data = data
        self._at = _HEADER.size

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        end = self._at + aligned(size)
        part, rest = self._data[self._at : self._at + size], self._data[self._at + size : end]
        if end > len(self._data) or any(rest):
            raise BundleError(f"{self.source}: a part goes past the end of the file, or not zeros follow it")
        self._at = end
        return part


def _read_pair(fields: tuple[int, int, int, int, int, int, float, int], content: _Content) -> StoredPair:
    role, layer, encoding, rank, columns, rows, scale, reserved = fields
    sound = role in PROJECTIONS and encoding in ENCODINGS.values() and 1 <= rank <= MAX_RANK and not reserved
    if not sound or not (1 <= rows <= 1 << 18 and 1 <= columns <= 1 << 18) or not math.isfinite(scale):
        raise BundleError(
            f"{content.source}: layer {layer}, role {role}: {rows} x {columns} of rank {rank}, encoding {encoding}, "
            f"scale {scale} is no pair that there can be"
        )
    pair = StoredPair(
        layer=layer, role=Role(role), encoding=Encoding(encoding), rank=rank, columns=columns, rows=rows, scale=scale,
        a=b"", b=b"",
    )  # fmt: skip
    a, a_scales, b, b_scales = (content.take(size) for size in pair.sizes)
    return replace(pair, a=a, a_scales=a_scales, b=b, b_scales=b_scales)


def _to_lanes(n: int) -> int:
    return -(-n // LANES) * LANES


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % ALIGNMENT)
