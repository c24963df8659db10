"""The native engine: one class for each object of kernels/include/edgebit.h, owning it and raising for its errors.

ctypes releases the GIL around every call, so a thread in `Engine.eval` leaves Python to the others.
"""

import ctypes
import json
import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgebit.bundle.model_format import Probe
from edgebit.errors import BundleError, EdgebitError, EngineError
from edgebit.resources import native_library
from edgebit.runtime import abi

KV_TYPES = tuple(abi.KV_TYPES)  # the first is the default

_ERROR_OF_STATUS: dict[int, type[EdgebitError]] = {
    abi.IO: BundleError,
    abi.BAD_FORMAT: BundleError,
    abi.UNSUPPORTED: BundleError,
    abi.MISMATCH: BundleError,
}


class Cancelled(Exception):
    """Engine.eval() ended early because Engine.cancel() was called; the sequences are as before it."""


class ContextFullError(EngineError):
    """A sequence has no room for the tokens: the prompt or the conversation is longer than the context."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, from its CONF section; sizes in elements, weight_bytes and bytes_per_token in bytes."""

    hidden_size: int
    ffn_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    context_max: int
    bos_token: int | None
    stop_tokens: tuple[int, ...]
    weight_bytes: int
    bytes_per_token: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the engine was opened, times in nanoseconds, and the memory it holds, in bytes."""

    prefill_tokens: int
    prefill_ns: int
    decode_tokens: int
    decode_ns: int
    weight_bytes: int
    kv_bytes: int
    arena_bytes: int
    n_threads: int
    head_tokens: int  # of which only the best logits were computed
    head_middle_rows: int  # rows of the head whose middle plane was read for them, and whose low plane
    head_low_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn; the defaults are greedy.

    A temperature of 0 takes the likeliest token; top_k 0, top_p 1, min_p 0 and repetition_penalty 1 are off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    seed: int = 0


class Library:
    """libedgebit, loaded and checked, with the host table its functions are given."""

    def __init__(self, path: Path, dll: ctypes.CDLL, host: abi.Host, isa: str) -> None:
        self.path = path
        self.dll = dll
        self.host = host
        self.isa = isa

    @classmethod
    def load(cls, path: Path | None = None, *, isa: str | None = None) -> Self:
        """Load the library at `path`, or this machine's own.

        isa: the highest ISA level that may be used ("scalar", "neon", ...); None takes the environment's EDGEBIT_ISA.
        Raises EngineError where the file is missing, made for another machine or another version of edgebit.
        """
        path = path or native_library()
        try:
            dll = ctypes.CDLL(str(path))
        except OSError as error:
            raise EngineError(f"{path} cannot be loaded on this machine: {error}") from error
        try:
            version = int(dll.eb_abi_version())
        except AttributeError as error:
            raise EngineError(f"{path} is not an edgebit library: it has no eb_abi_version") from error
        if version != abi.ABI_VERSION:
            raise EngineError(
                f"{path} has ABI version {version}, this edgebit needs {abi.ABI_VERSION}. "
                "Build the bundle again, or install edgebit again."
            )
        abi.declare(dll)
        host = abi.host_table(isa or os.environ.get("EDGEBIT_ISA"))
        error_text = abi.Error()
        picked = dll.eb_isa_pick(ctypes.byref(host), ctypes.byref(error_text))
        if picked is None:
            raise EngineError(f"{error_text.text.decode(errors='replace')} (EDGEBIT_ISA)")
        return cls(path, dll, host, picked.decode())

    @property
    def isa_names(self) -> list[str]:
        """The ISA levels this build has, lowest first."""
        names: bytes = self.dll.eb_isa_names()
        return names.decode().split()

    @property
    def version(self) -> str:
        """The version of edgebit that the library was built from."""
        version: bytes = self.dll.eb_version()
        return version.decode()

    def measure_read(self, threads: int, n_bytes: int) -> float:
        """Bytes a second that so many threads read from a buffer of n_bytes: the limit of every decode step.

        Raises EngineError where there is no memory for it.
        """
        rate, error = ctypes.c_double(), abi.Error()
        host = ctypes.byref(self.host)
        self.check(self.dll.eb_measure_read(host, threads, n_bytes, ctypes.byref(rate), ctypes.byref(error)), error)
        return rate.value

    def measure_int8(self, threads: int) -> float:
        """Products of ternary codes and int8 a second, at this ISA level: the limit of every prefill."""
        rate, error = ctypes.c_double(), abi.Error()
        host = ctypes.byref(self.host)
        self.check(self.dll.eb_measure_int8(host, threads, ctypes.byref(rate), ctypes.byref(error)), error)
        return rate.value

    def check(self, status: int, error: abi.Error | None = None, text: str = "") -> None:
        """Raise what `status` stands for, with the library's own words."""
        if status == abi.OK:
            return
        if status == abi.CANCELLED:
            raise Cancelled
        said = error.text.decode(errors="replace") if error is not None else text
        name: bytes = self.dll.eb_status_name(status)
        raise _ERROR_OF_STATUS.get(status, EngineError)(said or name.decode())


class _Native:
    """An object of the library: closed once, by close() or at the end of a with block."""

    _close_function = ""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self.library = library
        self._handle: ctypes.c_void_p | None = handle

    @property
    def handle(self) -> ctypes.c_void_p:
        """The C object; EngineError once it is closed."""
        if self._handle is None:
            raise EngineError(f"this {type(self).__name__.lower()} is closed")
        return self._handle

    def close(self) -> None:
        """Give the object back; closing twice is allowed."""
        if self._handle is not None:
            getattr(self.library.dll, self._close_function)(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Model(_Native):
    """A model file, mapped and checked. It must stay open as long as an Engine or Tokenizer made from it."""

    _close_function = "eb_model_close"

    def __init__(self, library: Library, handle: ctypes.c_void_p, source: str, keep: object = None) -> None:
        super().__init__(library, handle)
        self.source = source
        self._keep = keep
        struct = library.dll.eb_model_get_info(handle).contents
        self.info = ModelInfo(
            hidden_size=struct.hidden_size,
            ffn_size=struct.ffn_size,
            n_layers=struct.n_layers,
            n_heads=struct.n_heads,
            n_kv_heads=struct.n_kv_heads,
            head_dim=struct.head_dim,
            vocab_size=struct.vocab_size,
            context_max=struct.context_max,
            bos_token=struct.bos_token if struct.bos_token >= 0 else None,
            stop_tokens=tuple(struct.stop_tokens[: struct.n_stop_tokens]),
            weight_bytes=struct.weight_bytes,
            bytes_per_token=struct.bytes_per_token,
        )

    @classmethod
    def open(cls, library: Library, path: Path, *, offset: int = 0, size: int = 0) -> Self:
        """Map the model file at `path`, or `size` bytes at `offset` of a bundle.

        Raises BundleError where it is damaged, cut short or of another version; the message names the section.
        """
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_model_open(
            ctypes.byref(library.host),
            os.fsencode(path),
            offset,
            size,
            ctypes.byref(handle),
            ctypes.byref(error),
        )
        library.check(status, error)
        return cls(library, handle, str(path))

    @classmethod
    def from_bytes(cls, library: Library, data: bytes) -> Self:
        """Use a model file that is in memory already; a copy is kept, aligned to 64 bytes."""
        memory = ctypes.create_string_buffer(len(data) + 64)
        start = (ctypes.addressof(memory) + 63) & ~63
        ctypes.memmove(start, data, len(data))
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_model_open_memory(
            ctypes.byref(library.host), start, len(data), ctypes.byref(handle), ctypes.byref(error)
        )
        library.check(status, error)
        return cls(library, handle, "<memory>", keep=memory)

    def section(self, tag: str) -> bytes | None:
        """A copy of the section's bytes, or None where the file has none of that tag."""
        data, size = ctypes.c_void_p(), ctypes.c_uint64()
        self.library.check(
            self.library.dll.eb_model_section(self.handle, tag.encode(), ctypes.byref(data), ctypes.byref(size))
        )
        return ctypes.string_at(data, size.value) if data.value else None

    def meta(self) -> dict[str, Any]:
        """The META section: what is known about the model. Raises BundleError where it is no JSON object."""
        try:
            content = json.loads(self.section("META") or b"{}")
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{self.source}: section META is no JSON: {error}. Build it again.") from error
        if not isinstance(content, dict):
            raise BundleError(f"{self.source}: section META is no JSON object. Build it again.")
        return content

    def fingerprint(self) -> int:
        """64 bits that stand for what the model computes: of its weights and configuration."""
        return int(self.library.dll.eb_model_fingerprint(self.handle))

    def verify(self) -> None:
        """Read every weight: sums, codes, scales. BundleError names what is damaged."""
        error = abi.Error()
        self.library.check(self.library.dll.eb_model_verify(self.handle, ctypes.byref(error)), error)


class Tokenizer(_Native):
    """The BPE that the model was trained with, on any bytes."""

    _close_function = "eb_tokenizer_close"

    def __init__(self, library: Library, handle: ctypes.c_void_p, keep: object) -> None:
        super().__init__(library, handle)
        self._keep = keep
        self.vocab_size: int = library.dll.eb_tokenizer_vocab_size(handle)

    @classmethod
    def from_model(cls, model: Model) -> Self:
        """The tokenizer inside a model file, used in place; EngineError where it has none."""
        data, size = ctypes.c_void_p(), ctypes.c_uint64()
        model.library.check(
            model.library.dll.eb_model_section(model.handle, b"TOKN", ctypes.byref(data), ctypes.byref(size))
        )
        if not data.value:
            raise EngineError(
                f"{model.source} cannot take text: its checkpoint had no tokenizer. Build it from one that has"
            )
        return cls._open(model.library, data.value, size.value, model)

    @classmethod
    def from_section(cls, library: Library, section: bytes) -> Self:
        """From the bytes of a TOKN section, which are copied; BundleError where they are damaged."""
        memory = ctypes.create_string_buffer(len(section) + 64)
        start = (ctypes.addressof(memory) + 63) & ~63
        ctypes.memmove(start, section, len(section))
        return cls._open(library, start, len(section), memory)

    @classmethod
    def _open(cls, library: Library, address: int, size: int, keep: object) -> Self:
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_tokenizer_open(
            ctypes.byref(library.host), address, size, ctypes.byref(handle), ctypes.byref(error)
        )
        library.check(status, error)
        return cls(library, handle, keep)

    def encode(self, text: str | bytes, *, parse_special: bool = False) -> list[int]:
        """Token ids of `text`. With parse_special, names of special tokens in it become those tokens."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return self._ids(data, [(0, len(data))] if parse_special else [])

    def encode_segments(self, segments: Iterable[tuple[str, bool]], *, begin: int | None = None) -> list[int]:
        """Token ids of the segments' texts as one text; special tokens are recognised within the marked ones only.

        begin: a token before them. A special one is a part of the text, which then does not begin with a word: some
        of SentencePiece's tokenizers put no space there.
        """
        if begin is not None:
            name, is_special = self._token(begin)
            if not is_special:
                return [begin, *self.encode_segments(segments)]
            segments = [(name.decode("utf-8", "surrogateescape"), True), *segments]
        data, ranges = b"", []
        for text, parse_special in segments:
            start = len(data)
            data += text.encode("utf-8", "surrogateescape")
            if parse_special:
                ranges.append((start, len(data)))
        return self._ids(data, ranges)

    def _ids(self, data: bytes, ranges: Sequence[tuple[int, int]]) -> list[int]:
        special = (abi.Range * len(ranges))(*(abi.Range(*ends) for ends in ranges))
        ids, count = (ctypes.c_int32 * (len(data) + 1))(), ctypes.c_size_t()
        while True:
            status = self.library.dll.eb_tokenize_ranges(
                self.handle, data, len(data), special, len(ranges), ids, len(ids), ctypes.byref(count)
            )
            if status != abi.LIMIT or count.value <= len(ids):
                break
            ids = (ctypes.c_int32 * count.value)()  # normalizing has made the text longer
        self.library.check(status)
        return ids[: count.value]

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; EngineError outside the vocabulary."""
        return self._token(token)[0]

    def is_special(self, token: int) -> bool:
        """Whether the token is one such as <|eot_id|>, which text leaves out; EngineError outside the vocabulary."""
        return self._token(token)[1]

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> bytes:
        """The bytes that the tokens stand for, without the space that tokenizing puts before a text."""
        pieces = [self._token(token) for token in tokens]
        data = b"".join(piece for piece, special in pieces if not (special and skip_special))
        return data.removeprefix(b" ") if self.library.dll.eb_tokenizer_strips_space(self.handle) else data

    def _token(self, token: int) -> tuple[bytes, bool]:
        size, special = ctypes.c_size_t(), ctypes.c_int()
        address = self.library.dll.eb_token_bytes(self.handle, token, ctypes.byref(size), ctypes.byref(special))
        if address is None:
            raise EngineError(f"token {token} is outside the vocabulary of {self.vocab_size}")
        return ctypes.string_at(address, size.value), bool(special.value)


class TextStream(_Native):
    """Tokens in, text out: whole characters only, and nothing of a stop string."""

    _close_function = "eb_text_close"

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        encoded = [stop.encode("utf-8", "surrogateescape") for stop in stops]
        handle, error = ctypes.c_void_p(), abi.Error()
        library = tokenizer.library
        status = library.dll.eb_text_open(
            tokenizer.handle,
            (ctypes.c_char_p * max(len(encoded), 1))(*encoded),
            (ctypes.c_size_t * max(len(encoded), 1))(*map(len, encoded)),
            len(encoded),
            ctypes.byref(handle),
            ctypes.byref(error),
        )
        library.check(status, error)
        super().__init__(library, handle)
        self._tokenizer = tokenizer

    def push(self, token: int) -> tuple[str, bool]:
        """The text that can be shown after this token, and whether a stop string is now complete."""
        piece, size, stopped = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int()
        status = self.library.dll.eb_text_push(
            self.handle, token, ctypes.byref(piece), ctypes.byref(size), ctypes.byref(stopped)
        )
        self.library.check(status)
        return self._text(piece, size), bool(stopped.value)

    def finish(self) -> str:
        """What was held back."""
        piece, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.library.check(self.library.dll.eb_text_finish(self.handle, ctypes.byref(piece), ctypes.byref(size)))
        return self._text(piece, size)

    @staticmethod
    def _text(piece: ctypes.c_void_p, size: ctypes.c_size_t) -> str:
        return ctypes.string_at(piece, size.value).decode("utf-8") if size.value and piece.value else ""


class Sampler(_Native):
    """Draws tokens from logits; the same seed and logits give the same tokens on every device."""

    _close_function = "eb_sampler_close"

    def __init__(self, library: Library, vocab_size: int, params: SamplingParams) -> None:
        struct = abi.SamplingStruct(
            size=ctypes.sizeof(abi.SamplingStruct),
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            repetition_window=params.repetition_window,
            seed=params.seed,
        )
        handle, error = ctypes.c_void_p(), abi.Error()
        status = library.dll.eb_sampler_open(
            ctypes.byref(library.host),
            vocab_size,
            ctypes.byref(struct),
            ctypes.byref(handle),
            ctypes.byref(error),
        )
        library.check(status, error)
        super().__init__(library, handle)
        self.vocab_size = vocab_size
        self._penalised = params.repetition_penalty != 1

    def accept(self, token: int) -> None:
        """Put a token of the prompt into the repetition window."""
        self.library.dll.eb_sampler_accept(self.handle, token)

    def reach(self, *, ahead: int = 0) -> int:
        """How many of the highest logits sample() looks at: the engine need not compute others. 0: all of them.

        ahead: count in that so many tokens more may have been drawn by then
        """
        reach = int(self.library.dll.eb_sampler_reach(self.handle))
        return reach + ahead if reach and self._penalised else reach

    def sample(self, logits: "memoryview[float]") -> int:
        """The next token for logits, float32 [vocab_size], which are not changed."""
        row = (ctypes.c_float * self.vocab_size).from_buffer(logits)
        return int(self.library.dll.eb_sample(self.handle, row))


class Drafting:
    """Drafts of the next tokens from the text itself, and how far they have come true: prompt-lookup speculation."""

    def __init__(self, library: Library, longest: int) -> None:
        """Drafts of up to `longest` tokens, at most 64; 0 makes none."""
        self._dll = library.dll
        self._struct = abi.DraftingStruct(size=ctypes.sizeof(abi.DraftingStruct))
        library.check(self._dll.eb_drafting_init(ctypes.byref(self._struct), longest))
        self._room = (ctypes.c_int32 * max(longest, 1))()

    @property
    def drafted(self) -> int:
        """Tokens drafted so far."""
        return int(self._struct.drafted)

    @property
    def accepted(self) -> int:
        """Of them, those that came true."""
        return int(self._struct.accepted)

    def draft(self, tokens: "array[int]", most: int) -> list[int]:
        """What may follow `tokens` (of type "i"), at most `most` of them; empty where no draft is likely to pay."""
        address = ctypes.cast(tokens.buffer_info()[0], ctypes.POINTER(ctypes.c_int32))
        length = self._dll.eb_draft(ctypes.byref(self._struct), address, len(tokens), self._room, max(most, 0))
        return self._room[:length]

    def record(self, accepted: int, ns: int) -> None:
        """Once after each draft(), an empty one too: how many of it came true, and how long the pass took."""
        self._dll.eb_draft_record(ctypes.byref(self._struct), accepted, ns)


def _batch(
    tokens: Sequence[int], sequences: Sequence[int], want_logits: Sequence[bool] | None, n_best: int
) -> abi.Batch:
    count = len(tokens)
    return abi.Batch(
        n_tokens=count,
        tokens=(ctypes.c_int32 * count)(*tokens),
        sequences=(ctypes.c_uint32 * count)(*sequences),
        want_logits=None if want_logits is None else (ctypes.c_uint8 * count)(*map(bool, want_logits)),
        n_best=n_best,
    )


class Engine(_Native):
    """Prefill and decode of several sequences over one model. One thread at a time, but for cancel()."""

    _close_function = "eb_engine_close"
    keeps_memory = True
    threads_fixed = False

    def __init__(
        self,
        model: Model,
        *,
        ctx_len: int = 0,
        sequences: int = 1,
        threads: int = 1,
        batch_len: int = 0,
        logits_rows: int = 0,
        kv: str = KV_TYPES[0],
    ) -> None:
        """Allocate all that eval() will need; EngineError where there is not enough memory. 0 takes the default.

        `kv`, one of KV_TYPES, is how the KV cache holds keys and values.
        """
        options = abi.EngineOptions(
            size=ctypes.sizeof(abi.EngineOptions),
            ctx_len=ctx_len,
            n_sequences=sequences,
            n_threads=threads,
            batch_len=batch_len,
            logits_rows=logits_rows,
            kv_type=abi.KV_TYPES[kv],
        )
        handle, error = ctypes.c_void_p(), abi.Error()
        library = model.library
        library.check(
            library.dll.eb_engine_open(model.handle, ctypes.byref(options), ctypes.byref(handle), ctypes.byref(error)),
            error,
        )
        super().__init__(library, handle)
        self.model = model
        self.ctx_len = ctx_len or model.info.context_max
        self.sequences = sequences
        self.kv = kv
        self.isa: str = library.dll.eb_engine_isa(handle).decode()

    def eval(self, tokens: Sequence[int], sequence: int = 0, *, n_best: int = 0) -> None:
        """Append the tokens to a sequence; logits() then has the row of the last one."""
        self.eval_batch(tokens, [sequence] * len(tokens), n_best=n_best)

    def eval_batch(
        self,
        tokens: Sequence[int],
        sequences: Sequence[int],
        want_logits: Sequence[bool] | None = None,
        *,
        n_best: int = 0,
    ) -> None:
        """Append each token to its sequence, in order, and compute the wanted logits (None: of the last token).

        n_best: how many of the highest logits of each are needed; others may then be -infinity. 0: all of them
        Raises ContextFullError, Cancelled (after cancel()), or EngineError; the sequences are then as before.
        """
        batch = _batch(tokens, sequences, want_logits, n_best)
        self._check(self.library.dll.eb_eval(self.handle, ctypes.byref(batch)))

    def eval_states(
        self, tokens: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool] | None = None
    ) -> "list[memoryview[float]]":
        """Append each token to its sequence; of each wanted one (None: the last) the final hidden state.

        They are float32 [hidden_size], after the final norm. Raises as eval_batch().
        """
        batch = _batch(tokens, sequences, wanted, 0)
        count = 1 if wanted is None else sum(map(bool, wanted))
        size = 4 * self.model.info.hidden_size
        states = (ctypes.c_float * max(1, count * size // 4))()
        self._check(self.library.dll.eb_eval_states(self.handle, ctypes.byref(batch), states))
        content = memoryview(states).cast("B")
        return [content[row * size : (row + 1) * size].cast("f") for row in range(count)]

    def logits(self, row: int = 0) -> "memoryview[float]":
        """Row `row` of the wanted logits, float32 [vocab_size]: the engine's own memory, valid until the next eval."""
        pointer = self.library.dll.eb_logits(self.handle, row)
        if not pointer:
            raise EngineError(f"there is no row {row} of logits: fewer were wanted")
        array = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float * self.model.info.vocab_size)).contents
        return memoryview(array).cast("B").cast("f")

    def length(self, sequence: int = 0) -> int:
        """Tokens in the sequence."""
        return int(self.library.dll.eb_sequence_length(self.handle, sequence))

    def truncate(self, sequence: int = 0, length: int = 0) -> None:
        """Forget all tokens of the sequence from position `length` on."""
        self._check(self.library.dll.eb_sequence_truncate(self.handle, sequence, length))

    def state_kind(self) -> bytes:
        """What a saved state hangs on: the model, and the type of the KV cache."""
        return self.model.fingerprint().to_bytes(8, "little") + self.kv.encode()

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Make sequence `target` begin as `source` does: with its first `length` tokens, and no others."""
        self._check(self.library.dll.eb_sequence_copy(self.handle, source, target, length))

    def state_size(self, sequence: int, begin: int, end: int) -> int:
        """Bytes that save() would give."""
        size = ctypes.c_size_t()
        status = self.library.dll.eb_sequence_save(self.handle, sequence, begin, end, None, 0, ctypes.byref(size))
        if status != abi.LIMIT:
            self._check(status)
        return size.value

    def save(self, sequence: int, begin: int, end: int) -> bytes:
        """What was computed for tokens begin to end - 1 of the sequence, for load()."""
        size = ctypes.c_size_t(self.state_size(sequence, begin, end))
        state = ctypes.create_string_buffer(size.value)
        save = self.library.dll.eb_sequence_save
        self._check(save(self.handle, sequence, begin, end, state, size, ctypes.byref(size)))
        return state.raw

    def load(self, sequence: int, state: bytes, tokens: int) -> None:
        """Append the first `tokens` tokens of a saved state to the sequence, which holds what came before them then.

        Raises BundleError where the state is damaged, or of another model, KV type or version; the sequence is then
        as before.
        """
        self._check(self.library.dll.eb_sequence_load(self.handle, sequence, tokens, state, len(state)))

    def set_threads(self, threads: int) -> None:
        """Run on so many threads from the next eval() on, 1 to what the engine was opened with. No result changes."""
        self._check(self.library.dll.eb_engine_set_threads(self.handle, threads))

    def cancel(self) -> None:
        """End the eval() in progress, or the next one. From any thread."""
        self.library.dll.eb_cancel(self.handle)

    def cancel_reset(self) -> None:
        """Take back a cancel() that no eval() has answered."""
        self.library.dll.eb_cancel_reset(self.handle)

    def eval_layer(self, layer: int, hidden: bytearray, sequence: int = 0) -> None:
        """Run one decoder layer alone, in place, on hidden: float32 [n, hidden_size], as positions 0 to n-1."""
        n_tokens, rest = divmod(len(hidden), 4 * self.model.info.hidden_size)
        if rest:
            raise EngineError(f"{len(hidden)} bytes are no whole rows of {self.model.info.hidden_size} float32")
        rows = (ctypes.c_float * (len(hidden) // 4)).from_buffer(hidden)
        self._check(self.library.dll.eb_eval_layer(self.handle, layer, sequence, rows, n_tokens))

    def stats(self) -> EngineStats:
        """What it has done since it was opened, and the memory held."""
        struct = abi.StatsStruct()
        self.library.dll.eb_engine_stats(self.handle, ctypes.byref(struct))
        return EngineStats(
            prefill_tokens=struct.prefill_tokens,
            prefill_ns=struct.prefill_ns,
            decode_tokens=struct.decode_tokens,
            decode_ns=struct.decode_ns,
            weight_bytes=struct.weight_bytes,
            kv_bytes=struct.kv_bytes,
            arena_bytes=struct.arena_bytes,
            n_threads=struct.n_threads,
            head_tokens=struct.head_tokens,
            head_middle_rows=struct.head_middle_rows,
            head_low_rows=struct.head_low_rows,
        )

    def run_probe(self, prompt: Sequence[int], n_greedy: int) -> Probe:
        """What the engine computes for `prompt` on sequence 0, which must be empty."""
        layer_crc = (ctypes.c_uint32 * (self.model.info.n_layers + 1))()
        logits_crc, greedy = ctypes.c_uint32(), (ctypes.c_int32 * max(n_greedy, 1))()
        ids = (ctypes.c_int32 * len(prompt))(*prompt)
        self._check(
            self.library.dll.eb_probe_run(
                self.handle, ids, len(prompt), layer_crc, ctypes.byref(logits_crc), greedy, n_greedy
            )
        )
        return Probe(
            prompt=tuple(prompt),
            layer_crc=tuple(layer_crc),
            logits_crc=logits_crc.value,
            greedy=tuple(greedy[:n_greedy]),
        )

    def check_probes(self) -> int:
        """Run the model file's golden probes and return how many; BundleError names the first that differs."""
        count, error = ctypes.c_uint32(), abi.Error()
        self.library.check(
            self.library.dll.eb_probe_check(self.handle, ctypes.byref(count), ctypes.byref(error)), error
        )
        return count.value

    def _check(self, status: int) -> None:
        if status == abi.OK:
            return
        said = self.library.dll.eb_engine_error(self.handle).decode(errors="replace")
        if status == abi.LIMIT:
            raise ContextFullError(said)
        self.library.check(status, text=said)
