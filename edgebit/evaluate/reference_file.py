"""A saved reference: what a model foresaw of a text, for `edgebit eval kl` without that model (docs/evaluation.md)."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgebit.bundle.part_file import PartFile
from edgebit.errors import EdgebitError, OutputError
from edgebit.evaluate.divergence import Compared, compare, compare_top
from edgebit.evaluate.perplexity import score
from edgebit.evaluate.progress import Report, go_on
from edgebit.evaluate.text import ScoredText
from edgebit.evaluate.windows import Block, Windows, next_token_blocks
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer

WHOLE_MOST = 1024  # tokens of a vocabulary that is saved whole unless asked otherwise
TOP = 64  # the likeliest tokens that are saved of a larger one

_MAGIC = b"EDGEBREF"
_HEAD = struct.Struct("<8sII")  # magic, version, bytes of the JSON that follows
_VERSION = 1
_ALIGNMENT = 64
_JSON_MOST = 1 << 16
_VOCABULARY_MOST = 1 << 24
_LOG_MOST = 1e-6  # of a logarithm of a probability: 0 and rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceHead:
    """What a reference is of: the JSON at its beginning."""

    source: str  # the model's file, for people
    fingerprint: str  # of what it computes, hexadecimal
    kv: str
    text: str  # its name, for people
    has_bos: bool
    tokens: int  # of the text, the first among them, which is not scored
    window: int
    stride: int
    vocab_size: int
    vocabulary: str | None  # sha256 of its tokens; None: the model has no tokenizer
    top: int | None  # so many of the likeliest tokens; None: all of the vocabulary

    @property
    def record(self) -> np.dtype[np.void]:
        """A scored token: the likeliest one, ln p of the one that comes, and the distribution."""
        begin: list[Any] = [("best", "<i4"), ("log_prob", "<f4")]
        if self.top is None:
            return np.dtype([*begin, ("values", "<f2", (self.vocab_size,))])
        return np.dtype([*begin, ("tail", "<f4"), ("ids", "<i4", (self.top,)), ("values", "<f4", (self.top,))])


def vocabulary_sum(model: Model) -> str | None:
    """sha256 of all tokens, each with its size before it; None where the model has no tokenizer."""
    if model.section("TOKN") is None:
        return None
    found = hashlib.sha256()
    with Tokenizer.from_model(model) as tokenizer:
        for token in range(tokenizer.vocab_size):
            piece = tokenizer.token_bytes(token)
            found.update(struct.pack("<I", len(piece)) + piece)
    return found.hexdigest()


def write_reference(
    engine: Engine, text: ScoredText, windows: Windows, out: Path, *, top: int | None = None, report: Report = go_on
) -> bool:
    """Save what the engine's model foresees of the text; gives whether it went to the end, else nothing is written.

    top: so many of the likeliest tokens of each distribution; by default all where the vocabulary is small, else 64
    Raises OutputError where `out` cannot be written, or is a device and the like, which a file must not replace.
    """
    vocab_size = engine.model.info.vocab_size
    if top is None:
        top = None if vocab_size <= WHOLE_MOST else TOP
    head = ReferenceHead(
        source=Path(engine.model.source).name,
        fingerprint=f"{engine.model.fingerprint():016x}",
        kv=engine.kv,
        text=text.name,
        has_bos=text.has_bos,
        tokens=len(text.ids),
        window=windows.length,
        stride=windows.stride,
        vocab_size=vocab_size,
        vocabulary=vocabulary_sum(engine.model),
        top=None if top is not None and top >= vocab_size else top,
    )
    with PartFile(out, OutputError) as file:
        file.write(_head_bytes(head, text.ids))
        for block in next_token_blocks(engine, text.ids, windows):
            file.write(_records(head, block, text.ids).tobytes())
            done = block.end - 1
            if not report(done, text.scored, None) and done < text.scored:
                return False
        file.commit()
    return True


def _head_bytes(head: ReferenceHead, ids: list[int]) -> bytes:
    described = json.dumps(asdict(head)).encode()
    start = _HEAD.pack(_MAGIC, _VERSION, len(described)) + described
    return start + bytes(-len(start) % _ALIGNMENT) + np.array(ids, dtype="<i4").tobytes()


def _records(head: ReferenceHead, block: Block, ids: list[int]) -> npt.NDArray[np.void]:
    records = np.zeros(len(block.log_probs), head.record)
    scores = score(block, ids)
    records["best"], records["log_prob"] = scores.best, scores.log_prob
    if head.top is None:
        records["values"] = np.maximum(block.log_probs, np.finfo(np.float16).min)
        return records
    likeliest = np.argpartition(-block.log_probs, head.top - 1, axis=1)[:, : head.top]
    rows = np.arange(len(records))[:, None]
    order = np.argsort(-block.log_probs[rows, likeliest], axis=1, kind="stable")
    records["ids"] = likeliest[rows, order]
    records["values"] = block.log_probs[rows, records["ids"]]
    others = np.exp(block.log_probs)
    others[rows, records["ids"]] = 0
    with np.errstate(divide="ignore"):
        records["tail"] = np.log(others.sum(axis=1))
    return records


class Reference:
    """An opened reference, whose head and size are checked."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self.path = path
        self.head = _read_head(file, path)
        self.windows = Windows(self.head.window, self.head.stride)
        self._records_at = file.tell() + 4 * self.head.tokens
        wanted = self._records_at + (self.head.tokens - 1) * self.head.record.itemsize
        size = os.fstat(file.fileno()).st_size
        if size != wanted:
            raise EdgebitError(f"{path}: has {size} bytes, and its head says {wanted}: a copy cut short. Copy it again")
        ids = np.frombuffer(file.read(4 * self.head.tokens), "<i4")
        if ids.min() < 0 or ids.max() >= self.head.vocab_size:
            raise EdgebitError(f"{path}: a token is outside the vocabulary of {self.head.vocab_size}. Save it again")
        self.ids: list[int] = ids.tolist()

    def check(self, model: Model) -> None:
        """Raise EdgebitError where `model` has another vocabulary, or takes no such windows."""
        head = self.head
        vocabulary = vocabulary_sum(model)
        if head.vocab_size != model.info.vocab_size or (
            vocabulary is not None and head.vocabulary is not None and vocabulary != head.vocabulary
        ):
            raise EdgebitError(
                f"{self.path} is of {head.source} with {head.vocab_size} tokens, and {model.source} has others "
                f"({model.info.vocab_size}): only models of one vocabulary compare"
            )
        if head.window > model.info.context_max:
            raise EdgebitError(
                f"{self.path} has windows of {head.window} tokens, and {model.source} takes {model.info.context_max}: "
                f"save it again with --window {model.info.context_max}"
            )

    def beside(self, engine: Engine) -> Iterator[Compared]:
        """The reference and the engine's model over the reference's text, a block of tokens at a time."""
        self._file.seek(self._records_at)
        for block in next_token_blocks(engine, self.ids, self.windows):
            records = self._read(len(block.log_probs))
            best, log_p = records["best"].astype(np.int64), records["log_prob"].astype(np.float64)
            values = records["values"].astype(np.float64)
            if self.head.top is None:
                values -= np.log(np.exp(values).sum(axis=1, keepdims=True))  # 1 again, after rounding to float16
                whole = compare(Block(block.first, values), block, self.ids)
                yield Compared(whole.kl, log_p, whole.log_q, best, whole.best_q)
            else:
                tail = records["tail"].astype(np.float64)
                yield compare_top(block, self.ids, best=best, log_p=log_p, tokens=records["ids"], top=values, tail=tail)

    def _read(self, count: int) -> npt.NDArray[np.void]:
        """The next records. Raises EdgebitError where a number in them can be none that was saved."""
        record, is_cut = self.head.record, self.head.top is not None
        records = np.frombuffer(self._file.read(count * record.itemsize), record)
        tokens = [records["best"], *([records["ids"]] if is_cut else [])]
        logs = [records["log_prob"], records["values"]]
        limited = [*logs, *([records["tail"]] if is_cut else [])]  # a tail may be -inf: nothing is left
        if (
            len(records) < count
            or any(((each < 0) | (each >= self.head.vocab_size)).any() for each in tokens)
            or not all(np.isfinite(each).all() for each in logs)
            or not all((each <= _LOG_MOST).all() for each in limited)
        ):
            raise EdgebitError(f"{self.path} is damaged: a number in it is no token or no probability. Save it again")
        return records


@contextmanager
def open_reference(path: Path) -> Iterator[Reference]:
    """The reference at `path`. Raises EdgebitError where it is none, damaged, or of another version."""
    with path.open("rb") as file:
        yield Reference(file, path)


def _read_head(file: IO[bytes], path: Path) -> ReferenceHead:
    begin = file.read(_HEAD.size)
    if len(begin) < _HEAD.size or not begin.startswith(_MAGIC):
        raise EdgebitError(f"{path} is no reference. Save one with: edgebit eval reference BUNDLE --out FILE")
    _, version, size = _HEAD.unpack(begin)
    if version != _VERSION or size > _JSON_MOST:
        raise EdgebitError(f"{path}: a reference of version {version}, this edgebit reads {_VERSION}. Save it again")
    try:
        head = ReferenceHead(**json.loads(file.read(size)))
        numbers = (head.tokens, head.window, head.stride, head.vocab_size, 1 if head.top is None else head.top)
        if not all(type(number) is int and number > 0 for number in numbers) or head.tokens < 2:
            raise ValueError("a number is none, or too small")
        if not isinstance(head.has_bos, bool) or not isinstance(head.text, str) or not isinstance(head.source, str):
            raise ValueError("a value is of another type")
        if head.vocab_size > _VOCABULARY_MOST or head.stride >= head.window or (head.top or 0) >= head.vocab_size:
            raise ValueError("its numbers contradict each other")
    except (ValueError, TypeError, RecursionError) as error:
        raise EdgebitError(f"{path}: its head is damaged: {error}. Save it again") from error
    file.seek(-file.tell() % _ALIGNMENT, os.SEEK_CUR)
    return head
