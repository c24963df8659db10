"""PyTorch files written without torch: the pickle opcode by opcode, the archive by Python's zipfile."""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage", "U8": "ByteStorage",
            "I8": "CharStorage", "F64": "DoubleStorage", "I64": "LongStorage"}  # fmt: skip
STOP = b"."
START = b"\x80\x02"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    if 0 <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def numbers(values: Sequence[int]) -> bytes:
    return tuple_of(*map(number, values))


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


EMPTY_ORDERED = named("collections", "OrderedDict") + b")R"


def strides_of(shape: Sequence[int]) -> list[int]:
    return [int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape))]


def tensor(
    key: str,
    kind: str,
    count: int,
    shape: Sequence[int],
    *,
    offset: int = 0,
    strides: Sequence[int] | None = None,
    parameter: bool = False,
) -> bytes:
    """What pickles a tensor over the storage data/KEY of `count` values."""
    strides = strides_of(shape) if strides is None else strides
    storage = tuple_of(text("storage"), named("torch", kind), text(key), text("cpu"), number(count)) + b"Q"
    parts = tuple_of(storage, number(offset), numbers(shape), numbers(strides), b"\x89", EMPTY_ORDERED)
    made = named("torch._utils", "_rebuild_tensor_v2") + parts + b"R"
    if parameter:
        made = named("torch._utils", "_rebuild_parameter") + tuple_of(made, b"\x88", EMPTY_ORDERED) + b"R"
    return made


def state_dict(tensors: Mapping[str, bytes]) -> bytes:
    return START + EMPTY_ORDERED + b"(" + b"".join(text(name) + made for name, made in tensors.items()) + b"u" + STOP


def archive(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of these entries, all in the folder `model`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in entries.items():
            out.writestr(f"model/{name}", content)
    return file.getvalue()


def write_bin(path: Path, tensors: Mapping[str, tuple[str, Sequence[int], np.ndarray]], *, parameter: bool) -> None:
    """A PyTorch file of tensors given as dtype, shape and stored values."""
    entries = {"data.pkl": b"", "byteorder": b"little", "version": b"3\n"}
    pickled = {}
    for key, (name, (dtype, shape, values)) in enumerate(tensors.items()):
        pickled[name] = tensor(str(key), STORAGES[dtype], values.size, shape, parameter=parameter)
        entries[f"data/{key}"] = values.tobytes()
    path.write_bytes(archive({**entries, "data.pkl": state_dict(pickled)}))
