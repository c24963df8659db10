"""What was computed for the beginnings of prompts, kept in memory and on disk, so that nothing is computed twice.

Tokens go in blocks of at most 64. A block is known by the hash of its tokens and of the block before it, so texts that
begin alike share their first blocks, and the blocks of all texts make one tree. Its root is the hash of the model, of
its adapter and of the KV cache's type: what one has computed is never found for another. Memory and disk hold at most
so many bytes each; what was used longest ago goes first, and what fits in neither is not saved at all. A file holds a
text's tokens: it is readable for its owner only. No fault of memory or disk reaches an answer: it is logged, and the
block is left out.
"""

import hashlib
import itertools
import logging
import os
import re
import struct
import time
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgebit.errors import EdgebitError, EngineError

log = logging.getLogger("edgebit.prefix_cache")

BLOCK = 64  # tokens: shorter blocks would be many files, longer ones share less
_SUFFIX = ".kv"
_OUR_NAME = re.compile(r"[0-9a-f]{64}\.kv")
_OUR_NEW_NAME = re.compile(r"[0-9a-f]{64}\.[0-9]+\.new")  # of a file that was never finished
_HEADER = struct.Struct("<8s32sI")  # magic, the block before, number of tokens; then the tokens and the state
_MAGIC = b"EBPFX\r\n\x01"


@runtime_checkable
class StatefulEngine(Protocol):
    """What the cache needs of an engine: engine.Engine has it."""

    def state_kind(self, sequence: int = 0) -> bytes:
        """What a saved state hangs on: the model, the type of the KV cache, and the sequence's adapter."""

    def length(self, sequence: int = 0) -> int:
        """Tokens in the sequence."""

    def truncate(self, sequence: int = 0, length: int = 0) -> None:
        """Forget the tokens from position `length` on."""

    def state_size(self, sequence: int, begin: int, end: int) -> int:
        """Bytes that save() would give."""

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

    def state_bytes(self) -> int:
        """What it takes of memory."""
        return len(self.state or b"")


class PrefixCache:
    """Beginnings of texts. One thread at a time; several processes may share a folder."""

    def __init__(self, *, memory_bytes: int, folder: Path | None = None, disk_bytes: int = 0) -> None:
        """Keep at most memory_bytes in memory and, in `folder`, which is made if need be, disk_bytes on disk.

        Raises EngineError where the folder cannot be made or read, or where others could put states into it.
        """
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes if folder is not None else 0
        self._folder = folder
        self._clock = itertools.count(1)
        self._blocks: dict[bytes, _Block] = {}
        self._after: defaultdict[bytes, list[_Block]] = defaultdict(list)  # by the name of the block before, or a root
        self._in_memory = self._on_disk = 0  # bytes
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_owner(folder)
                self._read_folder(folder)
            except OSError as error:
                raise EngineError(f"the prefix cache cannot be kept in {folder}: {error.strerror}") from error

    def restore(self, engine: StatefulEngine, sequence: int, tokens: Sequence[int], owner: str = "") -> int:
        """Bring the sequence, which holds a beginning of `tokens`, to hold as many of them as are known to `owner`.

        Gives how many. Where a block turns out to be gone or damaged, that can be fewer than before.
        """
        held = engine.length(sequence)
        found = self._known(_root(engine, sequence, owner), tokens)
        if sum(count for _, count in found) <= held:
            return held
        path = [block for block, _ in found]
        begin = 0
        for block, count in found:
            end = begin + count
            if end > held:
                engine.truncate(sequence, begin)
                if not self._load(engine, sequence, block, count, path):
                    break
            begin = end
        self._touch(path)
        return engine.length(sequence)

    def store(self, engine: StatefulEngine, sequence: int, tokens: Sequence[int], owner: str = "") -> None:
        """Keep what the engine has computed for `tokens`, all of which the sequence holds: as much as there is room.

        owner: who alone may find it again
        """
        known, root = array("i", tokens), _root(engine, sequence, owner)
        path = [block for block, count in self._known(root, known) if count == len(block.tokens)]
        before = path[-1].name if path else root
        begin = sum(len(block.tokens) for block in path)
        while begin < len(known):
            part = known[begin : begin + BLOCK]
            block = next((each for each in self._after[before] if each.tokens[: len(part)] == part), None)
            if block is None:
                block = _Block(_name(before, part), before, part)
                if not self._save(engine, sequence, begin, block, path):
                    break
            elif len(block.tokens) > len(part):
                break  # the rest is the beginning of a block that is there
            path.append(block)
            before = block.name
            begin += len(part)
        self._touch(path)

    # ---- the tree ----

    def _known(self, root: bytes, tokens: Sequence[int]) -> list[tuple[_Block, int]]:
        """The blocks that `tokens` begin with, and how many tokens of each: all, but for the last block perhaps."""
        most, last, last_count = 0, None, 0
        open_ends = [(root, 0)]
        while open_ends:
            name, begin = open_ends.pop()
            rest = array("i", tokens[begin : begin + BLOCK])
            for each in self._after.get(name, ()):
                count = _common(each.tokens, rest)
                if begin + count > most:
                    most, last, last_count = begin + count, each, count
                if count == len(each.tokens):
                    open_ends.append((each.name, begin + count))
        path = []
        while last is not None:
            path.append((last, last_count))
            last = self._blocks.get(last.before)
            last_count = len(last.tokens) if last is not None else 0
        return path[::-1]

    def _add(self, block: _Block) -> None:
        """Put a block into the tree; blocks that follow it may be there already, as files whose first was lost."""
        self._blocks[block.name] = block
        self._after[block.before].append(block)

    def _forget(self, block: _Block) -> None:
        """Take a block out of the tree, and with it those after it, which cannot be reached without it."""
        going = [block]
        while going:
            each = going.pop()
            if self._blocks.pop(each.name, None) is None:
                continue
            self._drop_state(each)
            self._remove_file(each)
            self._after[each.before].remove(each)
            if not self._after[each.before]:
                del self._after[each.before]
            going += self._after.get(each.name, ())

    def _touch(self, path: Iterable[_Block]) -> None:
        """Mark blocks as used, the first the latest: so what was used longest ago has no block after it."""
        for block in reversed(list(path)):
            block.used = next(self._clock)
            if block.file_size:
                try:
                    _date(self._path(block))
                except FileNotFoundError:  # another process has taken it away
                    self._lose_file(block)
                    self._forget_if_nowhere(block)
                except OSError as error:
                    log.debug("%s keeps its age: %s", self._path(block), error.strerror)

    # ---- memory and disk ----

    def _save(self, engine: StatefulEngine, sequence: int, begin: int, block: _Block, path: list[_Block]) -> bool:
        """Keep a block that follows on `path` where there is room beside it; False where there is none, or a fault."""
        end = begin + len(block.tokens)
        try:
            size = engine.state_size(sequence, begin, end)
            in_memory = self._memory_room(size, path)
            on_disk = self._disk_room(_HEADER.size + 4 * len(block.tokens) + size, path)
            if not in_memory and not on_disk:
                return False
            state = engine.save(sequence, begin, end)
            if on_disk:
                self._write(block, state)
        except MemoryError:
            log.warning("a prompt's tokens from %d on are not kept: memory is short", begin)
            return False
        if in_memory:
            block.state = state
            self._in_memory += len(state)
        if not in_memory and not block.file_size:
            return False
        self._add(block)
        return True

    def _load(self, engine: StatefulEngine, sequence: int, block: _Block, count: int, path: Sequence[_Block]) -> bool:
        """Append the block's first `count` tokens to the sequence; False where its state is gone or damaged.

        What is read from disk stays in memory only where there is room beside the other blocks of `path`.
        """
        try:
            state = block.state if block.state is not None else self._read(block)
            engine.load(sequence, state, count)
        except MemoryError:
            log.warning("%s is not read: memory is short", self._path(block) if block.file_size else "a cached prefix")
            return False
        except OSError:
            self._forget(block)  # another process has taken it away
            return False
        except EdgebitError as error:
            log.warning("%s is removed: %s", self._path(block) if block.file_size else "a cached prefix", error)
            self._forget(block)
            return False
        if block.state is None and self._memory_room(len(state), path):
            block.state = state
            self._in_memory += len(state)
        return True

    def _write(self, block: _Block, state: bytes) -> None:
        """Put a block on disk; where that fails it is not there, and the log says why."""
        path = self._path(block)
        new = path.with_suffix(f".{os.getpid()}.new")
        header = _HEADER.pack(_MAGIC, block.before, len(block.tokens))
        try:
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(header)
                file.write(block.tokens)
                file.write(state)
            _date(new)
            new.replace(path)
        except OSError as error:
            log.warning("%s cannot be written: %s", new, error.strerror)
            _unlink(new)
            return
        block.file_size = len(header) + 4 * len(block.tokens) + len(state)
        self._on_disk += block.file_size

    def _read(self, block: _Block) -> bytes:
        with self._path(block).open("rb") as file:
            file.seek(_HEADER.size + 4 * len(block.tokens))
            return file.read()

    def _memory_room(self, size: int, path: Sequence[_Block]) -> bool:
        """Make room for `size` more bytes in memory; False where there cannot be any beside the blocks of `path`."""
        if size + sum(block.state_bytes() for block in path) > self._memory_bytes:
            return False
        if self._in_memory + size > self._memory_bytes:
            for block in self._by_age(path):
                self._drop_state(block)
                self._forget_if_nowhere(block)
                if self._in_memory + size <= self._memory_bytes:
                    break
        return True

    def _disk_room(self, size: int, path: Sequence[_Block]) -> bool:
        """The same on disk."""
        if size + sum(block.file_size for block in path) > self._disk_bytes:
            return False
        if self._on_disk + size > self._disk_bytes:
            for block in self._by_age(path):
                self._remove_file(block)
                self._forget_if_nowhere(block)
                if self._on_disk + size <= self._disk_bytes:
                    break
        return True

    def _by_age(self, path: Sequence[_Block]) -> list[_Block]:
        """All blocks but those of `path`, the one used longest ago first."""
        kept = {block.name for block in path}
        return sorted((block for block in self._blocks.values() if block.name not in kept), key=lambda each: each.used)

    def _drop_state(self, block: _Block) -> None:
        self._in_memory -= block.state_bytes()
        block.state = None

    def _remove_file(self, block: _Block) -> None:
        if block.file_size:
            _unlink(self._path(block))
            self._lose_file(block)

    def _lose_file(self, block: _Block) -> None:
        self._on_disk -= block.file_size
        block.file_size = 0

    def _forget_if_nowhere(self, block: _Block) -> None:
        if block.state is None and not block.file_size:
            self._forget(block)

    def _path(self, block: _Block) -> Path:
        assert self._folder is not None
        return self._folder / (block.name.hex() + _SUFFIX)

    def _read_folder(self, folder: Path) -> None:
        """Find the blocks on disk, those used longest ago first. Files of ours that are damaged or unfinished go."""
        for path in folder.glob("*.new"):
            if _OUR_NEW_NAME.fullmatch(path.name):
                _unlink(path)
        found = []
        for path in folder.glob("*" + _SUFFIX):
            header, status = _begin_of(path)
            block = _parse_header(path.name, header)
            if block is not None and status is not None:
                block.file_size = status.st_size
                found.append((status.st_mtime_ns, block))
            elif _OUR_NAME.fullmatch(path.name) or header.startswith(_MAGIC):
                log.warning("%s is removed: it is damaged", path)
                _unlink(path)
        for _, block in sorted(found, key=lambda each: each[0]):
            block.used = next(self._clock)
            self._on_disk += block.file_size
            self._add(block)
        self._disk_room(0, ())


def _root(engine: StatefulEngine, sequence: int, owner: str = "") -> bytes:
    """The name of what is before an owner's first block."""
    return hashlib.sha256(_MAGIC + engine.state_kind(sequence) + owner.encode()).digest()


def _name(before: bytes, tokens: "array[int]") -> bytes:
    return hashlib.sha256(before + tokens.tobytes()).digest()


def _common(a: "array[int]", b: "array[int]") -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _check_owner(folder: Path) -> None:
    """A state is taken for what this user has computed: nobody else may put one there."""
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise EngineError(
            f"the prefix cache cannot be kept in {folder}: it belongs to another user. Name a folder of your own"
        )
    if status.st_mode & 0o022:
        raise EngineError(
            f"the prefix cache cannot be kept in {folder}: others may write there, and answers would be made from what "
            f"they put there. Take that right away (chmod go-w), or name another folder"
        )


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error.strerror)


def _begin_of(path: Path) -> tuple[bytes, os.stat_result | None]:
    """A file's header, its tokens and, so that it is seen whether there is one, the first byte of its state."""
    try:
        with path.open("rb") as file:
            return file.read(_HEADER.size + 4 * BLOCK + 1), os.fstat(file.fileno())
    except OSError:
        return b"", None


def _parse_header(file_name: str, header: bytes) -> _Block | None:
    """The block in a file, without its state; None where the file's name and content do not belong together."""
    if len(header) < _HEADER.size:
        return None
    magic, before, count = _HEADER.unpack_from(header)
    end = _HEADER.size + 4 * count
    if magic != _MAGIC or not 0 < count <= BLOCK or len(header) <= end:
        return None
    tokens = array("i")
    tokens.frombytes(header[_HEADER.size : end])
    name = _name(before, tokens)
    return _Block(name, before, tokens) if file_name == name.hex() + _SUFFIX else None


def _date(path: Path) -> None:
    """Say that a file was used just now; the system's own times stand still for some milliseconds at a time."""
    now_ns = time.time_ns()
    os.utime(path, ns=(now_ns, now_ns))
