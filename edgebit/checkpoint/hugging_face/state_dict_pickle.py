"""The pickle inside a PyTorch file, read without running anything of it.

A pickle is a program for a stack machine that may call whatever it names. This machine knows only what torch.save()
writes for a state dict: texts, numbers, tuples, dicts, types of storages, and three functions, which are never called:
what they would have made is described. All else is refused. Source: Python's pickletools, on each opcode.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

from edgebit.errors import CheckpointError

MAX_BYTES = 8 << 20  # 30,000 tensors take half of it
MAX_OPCODES = 2_000_000
_MAX_DIMENSIONS = 8
_MAX_COUNT = 1 << 48

STORAGE_DTYPES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip


class _Name(Enum):
    """What a pickle may name besides the types of storages."""

    ORDERED_DICT = ("collections", "OrderedDict")
    TENSOR = ("torch._utils", "_rebuild_tensor_v2")
    PARAMETER = ("torch._utils", "_rebuild_parameter")


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True, slots=True)
class PickledStorage:
    """A run of values that tensors look into."""

    key: str  # its entry is data/KEY
    dtype: str
    count: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """What the pickle says about one tensor; offset and strides in elements of its storage."""

    storage: PickledStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(data: bytes, where: str, advice: str) -> dict[str, PickledTensor]:
    """The tensors of a state dict by name.

    Raises CheckpointError that begins with `where`, and ends with `advice` where it is more than a state dict.
    """
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{where}: {len(data)} bytes of pickle; {MAX_BYTES} are the limit")
    root = _Machine(data, where, advice).run()
    if not isinstance(root, dict):
        raise CheckpointError(f"{where}: holds {_kind(root)}, and no state dict")
    for name, value in root.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{where}: a key of the state dict is {_kind(name)}, and no name")
        if not name.isprintable():
            raise CheckpointError(f"{where}: the state dict has the key {name[:80]!r}, a name that cannot be printed")
        if not isinstance(value, PickledTensor):
            raise CheckpointError(
                f"{where}: {name[:80]!r} holds {_kind(value)}, no tensor: a training checkpoint? Save its state dict"
            )
    return root


class _Machine:
    """The stack machine; its memory grows with the opcodes it has read and with nothing else."""

    def __init__(self, data: bytes, where: str, advice: str) -> None:
        self._data, self._where, self._advice, self._position = data, where, advice, 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each mark
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPCODES):
            opcode = self._take(1)
            if opcode == b".":
                break
            step = _STEPS.get(opcode)
            if step is None:
                self._position -= 1
                self._refuse(f"opcode {opcode!r} is none that a state dict needs. {self._advice}")
            step(self)
        else:
            self._refuse(f"has more than {MAX_OPCODES} opcodes")
        if len(self._stack) != 1 or self._below:
            self._refuse("ends with its stack in disorder")
        return self._stack[0]

    # Constants and the memo

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def push_number(self, layout: str) -> None:
        (value,) = struct.unpack(layout, self._take(struct.calcsize(layout)))
        self.push(value)

    def push_long(self) -> None:
        size = self._take(1)[0]
        if size > 8:
            self._refuse(f"a number of {size} bytes")
        self.push(int.from_bytes(self._take(size), "little", signed=True))

    def push_text(self, size_layout: str) -> None:
        (size,) = struct.unpack(size_layout, self._take(struct.calcsize(size_layout)))
        try:
            self.push(self._take(size).decode("utf-8"))
        except UnicodeDecodeError:
            self._refuse("a text is no UTF-8")

    def skip(self, size: int) -> None:
        self._take(size)

    def remember(self, size: int) -> None:
        self._memo[int.from_bytes(self._take(size), "little")] = self._top()

    def remember_next(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def recall(self, size: int) -> None:
        index = int.from_bytes(self._take(size), "little")
        if index not in self._memo:
            self._refuse(f"recalls {index}, which it has not kept")
        self.push(self._memo[index])

    # Tuples and dicts

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def push_tuple(self, size: int | None) -> None:
        items = self._since_mark() if size is None else [self._pop() for _ in range(size)][::-1]
        self.push(tuple(items))

    def set_items(self, size: int | None) -> None:
        items = self._since_mark() if size is None else [self._pop() for _ in range(size)][::-1]
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            self._refuse(f"puts {len(items)} values into {_kind(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                self._refuse(f"a key is {_kind(key)}")
            if key in target:
                self._refuse(f"key {key!r} stands twice")
            target[key] = value

    def take_attributes(self) -> None:
        """The attributes of a state dict, such as its modules' versions, say nothing about the tensors."""
        attributes, target = self._pop(), self._top()
        if type(target) is not dict or type(attributes) is not dict:
            self._refuse(f"gives {_kind(target)} attributes")

    # What is named

    def name(self) -> None:
        self._push_name(self._line(), self._line())

    def name_from_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            self._refuse(f"names {_kind(name)} of {_kind(module)}")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        known = next((known for known in _Name if known.value == (module, name)), None)
        if known is not None:
            self.push(known)
        elif module == "torch" and name in STORAGE_DTYPES:
            self.push(_StorageType(STORAGE_DTYPES[name]))
        else:
            what = f"{module}.{name}"[:80]
            self._refuse(f"asks for {what!r}, which no state dict needs; nothing of it was run. {self._advice}")

    def push_storage(self) -> None:
        match self._pop():
            case ("storage", _StorageType(dtype), str(key), str(), int(count)) if _is_count(count):
                self.push(PickledStorage(key, dtype, count))
            case other:
                self._refuse(f"{_kind(other)} stands where a storage is named")

    def call(self) -> None:
        """Describe what the call would have made."""
        arguments, called = self._pop(), self._pop()
        match called, arguments:
            case _Name.ORDERED_DICT, ():
                self.push({})
            case _Name.TENSOR, (PickledStorage() as storage, offset, tuple(shape), tuple(strides), *_):
                self.push(self._tensor(storage, offset, shape, strides))
            case _Name.PARAMETER, (PickledTensor() as tensor, *_):
                self.push(tensor)
            case _:
                self._refuse(f"calls {_kind(called)} with {_kind(arguments)}, as no state dict does. {self._advice}")

    def _tensor(self, storage: PickledStorage, offset: Any, shape: tuple[Any, ...], strides: Any) -> PickledTensor:
        if len(shape) > _MAX_DIMENSIONS or len(shape) != len(strides):
            self._refuse(f"a tensor has {len(shape)} dimensions and {len(strides)} strides")
        for count in (offset, *shape, *strides):
            if not _is_count(count):
                found = count if type(count) is int else _kind(count)
                self._refuse(f"a tensor's offset, shape or stride is {found}; 0 to {_MAX_COUNT} are possible")
        return PickledTensor(storage, offset, shape, strides)

    # The parts of the machine

    def _take(self, size: int) -> bytes:
        data = self._data[self._position : self._position + size]
        if len(data) != size:
            self._refuse(f"is cut short: it has {len(self._data)} bytes. Copy it again")
        self._position += size
        return data

    def _line(self) -> str:
        end = self._data.find(b"\n", self._position, self._position + 256)
        if end < 0:
            self._refuse("a name has no end")
        text = self._take(end + 1 - self._position)[:-1]
        return text.decode("utf-8", "replace")

    def _pop(self) -> Any:
        if not self._stack:
            self._refuse("takes more from its stack than is there")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            self._refuse("takes more from its stack than is there")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        if not self._below:
            self._refuse("goes back to a mark that it has not set")
        items, self._stack = self._stack, self._below.pop()
        return items

    def _refuse(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self._where}: byte {self._position}: {what}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _kind(value: Any) -> str:
    """A value in a few words, whatever it holds: what is nested may be endless."""
    match value:
        case None | bool():
            return str(value)
        case int():
            return "a number" if abs(value) > _MAX_COUNT else f"the number {value}"
        case float():
            return f"the number {value}"
        case str():
            return f"the text {value[:40]!r}"
        case tuple():
            return f"a tuple of {len(value)}"
        case dict():
            return f"a dict of {len(value)}"
        case _Name():
            return ".".join(value.value)
        case _:
            return {PickledTensor: "a tensor", PickledStorage: "a storage"}.get(type(value), "a type of storages")


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": lambda machine: machine.skip(1),  # PROTO
    b"\x95": lambda machine: machine.skip(8),  # FRAME
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"K": lambda machine: machine.push_number("<B"),
    b"M": lambda machine: machine.push_number("<H"),
    b"J": lambda machine: machine.push_number("<i"),
    b"G": lambda machine: machine.push_number(">d"),
    b"\x8a": _Machine.push_long,
    b"X": lambda machine: machine.push_text("<I"),
    b"\x8c": lambda machine: machine.push_text("<B"),
    b"q": lambda machine: machine.remember(1),
    b"r": lambda machine: machine.remember(4),
    b"\x94": _Machine.remember_next,
    b"h": lambda machine: machine.recall(1),
    b"j": lambda machine: machine.recall(4),
    b"(": _Machine.mark,
    b")": lambda machine: machine.push_tuple(0),
    b"\x85": lambda machine: machine.push_tuple(1),
    b"\x86": lambda machine: machine.push_tuple(2),
    b"\x87": lambda machine: machine.push_tuple(3),
    b"t": lambda machine: machine.push_tuple(None),
    b"}": lambda machine: machine.push({}),
    b"s": lambda machine: machine.set_items(2),
    b"u": lambda machine: machine.set_items(None),
    b"b": _Machine.take_attributes,
    b"c": _Machine.name,
    b"\x93": _Machine.name_from_stack,
    b"Q": _Machine.push_storage,
    b"R": _Machine.call,
}
