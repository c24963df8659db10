"""What was computed for the beginnings of prompts, kept in memory and on disk, so that nothing is computed twice.

Tokens go in blocks of at most 64. A block is known by the hash of its tokens and of the block before it, so texts that
begin alike share their first blocks, and the blocks of all texts make one tree. Its root is the hash of the model and
of the KV cache's type: what one model has computed is never found for another. Memory and disk hold at most so many
bytes each; what was used longest ago goes first. A file holds a text's tokens: it is readable for its owner only.
"""

import hashlib
import itertools
import logging
import os
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgebit.errors import EdgebitError, EngineError

log = logging.getLogger("edgebit.prefix_cache")

BLOCK = 64  # tokens: shorter blocks would be many files, longer ones share less
_SUFFIX = ".kv"
_HEADER = struct.Struct("<8s32sI")  # magic, the block before, number of tokens; then the tokens and the state
_MAGIC = b"EBPFX\r\n\x01"


class StatefulEngine(Protocol):
    """What the cache needs of an engine: native.Engine has it."""

    def state_kind(self) -> bytes:
        """What a saved state hangs on: the model, and the type of the KV cache."""

    def length(self, sequence: int = 0) -> int:
        """Tokens in the sequence."""

    def truncate(self, sequence: int = 0, length: int = 0) -> None:
        """Forget the tokens from position `length` on."""

    def save(self, sequence: int, begin: int, end: int) -> bytes:
        """What was computed for tokens begin to end - 1."""

    def load(self, sequence: int, state: bytes, tokens: int) -> None:
        """Append the first `tokens` tokens of a state. Raises EdgebitError for one that does not fit."""


@dataclass(eq=False, slots=True)
class _Block:
    """Some tokens after those of another block."""

    name: bytes  # the hash of it and all before it
    before: bytes
    tokens: "array[int]"
    used: int = 0  # when, on the cache's own clock
    state: bytes | None = None  # in memory
    file_size: int = 0  # on disk; 0: not there
    after: "list[_Block]" = field(default_factory=list)


class PrefixCache:
    """Beginnings of texts. One thread at a time; several processes may share a folder."""

    def __init__(self, *, memory_bytes: int, folder: Path | None = None, disk_bytes: int = 0) -> None:
        """Keep at most memory_bytes in memory and, in `folder`, which is made if need be, disk_bytes on disk.

        Raises EngineError where the folder cannot be made or read.
        """
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes if folder is not None else 0
        self._folder = folder
        self._clock = itertools.count(1)
        self._blocks: dict[bytes, _Block] = {}
        self._roots: dict[bytes, _Block] = {}
        self._in_memory = self._on_disk = 0  # bytes
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._read_folder(folder)
            except OSError as error:
                raise EngineError(f"the prefix cache cannot be kept in {folder}: {error.strerror}") from error

    def restore(self, engine: StatefulEngine, sequence: int, tokens: Sequence[int]) -> int:
        """Bring the sequence, which holds a beginning of `tokens`, to hold as many of them as are known.

        Gives how many. Where a block turns out to be gone or damaged, that can be fewer than before.
        """
        held = engine.length(sequence)
        path = self._known(engine, tokens)
        if sum(count for _, count in path) <= held:
            return held
        begin = 0
        for block, count in path:
            end = begin + count
            if end > held:
                engine.truncate(sequence, begin)
                if not self._load(engine, sequence, block, count):
                    break
            begin = end
        self._touch(block for block, _ in path)
        self._make_room()
        return engine.length(sequence)

    def store(self, engine: StatefulEngine, sequence: int, tokens: Sequence[int]) -> None:
        """Keep what the engine has computed for `tokens`, all of which the sequence holds."""
        known = array("i", tokens)
        path = [block for block, count in self._known(engine, known) if count == len(block.tokens)]
        last = path[-1] if path else self._root(engine)
        begin = sum(len(block.tokens) for block in path)
        while begin < len(known):
            part = known[begin : begin + BLOCK]
            if any(block.tokens[: len(part)] == part for block in last.after):
                break  # the rest is the beginning of a block that is there
            block = _Block(_name(last.name, part), last.name, part)
            self._keep(block, engine.save(sequence, begin, begin + len(part)))
            last.after.append(block)
            path.append(block)
            last = block
            begin += len(part)
        self._touch(path)
        self._make_room()

    # ---- the tree ----

    def _root(self, engine: StatefulEngine) -> _Block:
        name = hashlib.sha256(_MAGIC + engine.state_kind()).digest()
        if name not in self._roots:
            root = _Block(name, b"", array("i"))
            root.after = [block for block in self._blocks.values() if block.before == name]
            self._roots[name] = root
        return self._roots[name]

    def _known(self, engine: StatefulEngine, tokens: Sequence[int]) -> list[tuple[_Block, int]]:
        """The blocks that `tokens` begin with, and how many tokens of each: all, but for the last block perhaps."""
        most, last, last_count = 0, None, 0
        open_ends = [(self._root(engine), 0)]
        while open_ends:
            block, begin = open_ends.pop()
            rest = array("i", tokens[begin : begin + BLOCK])
            for each in block.after:
                count = _common(each.tokens, rest)
                if begin + count > most:
                    most, last, last_count = begin + count, each, count
                if count == len(each.tokens):
                    open_ends.append((each, begin + count))
        path = []
        while last is not None:
            path.append((last, last_count))
            last = self._blocks.get(last.before)
            last_count = len(last.tokens) if last is not None else 0
        return path[::-1]

    def _touch(self, path: Iterable[_Block]) -> None:
        """Mark blocks as used, the first the latest: so what was used longest ago has no block after it."""
        for block in reversed(list(path)):
            block.used = next(self._clock)
            if block.file_size:
                try:
                    os.utime(self._path(block))
                except OSError:
                    self._lose_file(block)

    def _forget(self, block: _Block) -> None:
        """Take a block that is neither in memory nor on disk out of the tree, and with it those after it."""
        self._blocks.pop(block.name, None)
        before = self._blocks.get(block.before) or self._roots.get(block.before)
        if before is not None and block in before.after:
            before.after.remove(block)
        for each in block.after[:]:
            self._in_memory -= len(each.state or b"")
            each.state = None
            self._remove_file(each)
            self._forget(each)

    # ---- memory and disk ----

    def _keep(self, block: _Block, state: bytes) -> None:
        self._blocks[block.name] = block
        block.state = state
        self._in_memory += len(state)
        if self._folder is None or not self._disk_bytes:
            return
        content = _HEADER.pack(_MAGIC, block.before, len(block.tokens)) + block.tokens.tobytes() + state
        new = self._path(block).with_suffix(f".{os.getpid()}.new")
        try:
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            new.replace(self._path(block))
        except OSError as error:
            log.warning("%s cannot be written: %s", new, error.strerror)
            new.unlink(missing_ok=True)
            return
        block.file_size = len(content)
        self._on_disk += len(content)

    def _load(self, engine: StatefulEngine, sequence: int, block: _Block, count: int) -> bool:
        """Append the block's first `count` tokens to the sequence; False where its state is gone or damaged."""
        if block.state is None:
            state = self._read(block)
            if state is None:
                self._forget(block)
                return False
            block.state = state
            self._in_memory += len(state)
        try:
            engine.load(sequence, block.state, count)
        except EdgebitError as error:
            log.warning("%s is removed: %s", self._path(block) if block.file_size else "a cached prefix", error)
            self._in_memory -= len(block.state)
            block.state = None
            self._remove_file(block)
            self._forget(block)
            return False
        return True

    def _read(self, block: _Block) -> bytes | None:
        start = _HEADER.size + 4 * len(block.tokens)
        try:
            content = self._path(block).read_bytes()
        except OSError:
            self._lose_file(block)
            return None
        return content[start:]

    def _make_room(self) -> None:
        if self._in_memory <= self._memory_bytes and self._on_disk <= self._disk_bytes:
            return
        by_age = sorted(self._blocks.values(), key=lambda block: block.used)
        for block in by_age:
            if self._in_memory <= self._memory_bytes:
                break
            self._in_memory -= len(block.state or b"")
            block.state = None
        for block in by_age:
            if self._on_disk <= self._disk_bytes:
                break
            self._remove_file(block)
        for block in by_age:
            if block.state is None and not block.file_size and block.name in self._blocks:
                self._forget(block)

    def _remove_file(self, block: _Block) -> None:
        if block.file_size:
            self._path(block).unlink(missing_ok=True)
            self._lose_file(block)

    def _lose_file(self, block: _Block) -> None:
        self._on_disk -= block.file_size
        block.file_size = 0

    def _path(self, block: _Block) -> Path:
        assert self._folder is not None
        return self._folder / (block.name.hex() + _SUFFIX)

    def _read_folder(self, folder: Path) -> None:
        """Find the blocks on disk, those used longest ago first; remove files that are damaged or none of ours."""
        found = []
        for path in folder.glob("*" + _SUFFIX):
            block = _read_header(path)
            if block is None:
                log.warning("%s is removed: it is damaged, or no file of a prefix cache", path)
                path.unlink(missing_ok=True)
                continue
            status = path.stat()
            block.file_size = status.st_size
            found.append((status.st_mtime_ns, block))
        for _, block in sorted(found, key=lambda each: each[0]):
            block.used = next(self._clock)
            self._blocks[block.name] = block
            self._on_disk += block.file_size
        for block in self._blocks.values():
            if block.before in self._blocks:
                self._blocks[block.before].after.append(block)
        self._make_room()


def _name(before: bytes, tokens: "array[int]") -> bytes:
    return hashlib.sha256(before + tokens.tobytes()).digest()


def _common(a: "array[int]", b: "array[int]") -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _read_header(path: Path) -> _Block | None:
    """The block in a file, without its state; None where the file's name and content do not belong together."""
    try:
        with path.open("rb") as file:
            magic, before, count = _HEADER.unpack(file.read(_HEADER.size))
            if magic != _MAGIC or not 0 < count <= BLOCK:
                return None
            tokens = array("i")
            tokens.frombytes(file.read(4 * count))
            name = _name(before, tokens)
            return _Block(name, before, tokens) if path.name == name.hex() + _SUFFIX and file.read(1) else None
    except (OSError, struct.error, ValueError):
        return None
