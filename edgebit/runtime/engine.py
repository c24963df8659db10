"""The native engine: prefill and decode.

ctypes releases the GIL around every call, so a thread in `Engine.eval` leaves Python to the others.
"""

import ctypes
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from edgebit.bundle.model_format import Probe
from edgebit.errors import EngineError
from edgebit.runtime import abi
from edgebit.runtime.abi import TokenSet
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.eval_errors import ContextFullError
from edgebit.runtime.model import Model
from edgebit.runtime.native_object import NativeObject

KV_TYPES = tuple(abi.KV_TYPES)  # the first is the default


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


def _batch(
    tokens: Sequence[int],
    sequences: Sequence[int],
    want_logits: Sequence[bool] | None,
    n_best: int,
    allowed: Sequence[TokenSet | None] | None,
) -> abi.Batch:
    count = len(tokens)
    return abi.Batch(
        n_tokens=count,
        tokens=(ctypes.c_int32 * count)(*tokens),
        sequences=(ctypes.c_uint32 * count)(*sequences),
        want_logits=None if want_logits is None else (ctypes.c_uint8 * count)(*map(bool, want_logits)),
        n_best=n_best,
        allowed=None if allowed is None else _pointers(allowed),
    )


def _pointers(sets: Sequence[TokenSet | None]) -> "ctypes.Array[ctypes._Pointer[ctypes.c_uint32]]":
    kind = ctypes.POINTER(ctypes.c_uint32)
    return (kind * len(sets))(*(kind() if each is None else ctypes.cast(each, kind) for each in sets))


class Engine(NativeObject):
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
        self._adapters: list[Adapter | None] = [None] * sequences

    def close(self) -> None:
        """Give the engine back, and let its adapters go."""
        for sequence in range(self.sequences):
            self._hold_adapter(sequence, None)
        super().close()

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
        allowed: Sequence[TokenSet | None] | None = None,
    ) -> None:
        """Append each token to its sequence, in order, and compute the wanted logits (None: of the last token).

        n_best: how many of the highest logits of each are needed; others may then be -infinity. 0: all of them
        allowed: for each wanted row the set of tokens that may follow, the others' logits are -infinity; None: all may
        Raises ContextFullError, Cancelled (after cancel()), or EngineError; the sequences are then as before.
        """
        if allowed is not None:
            self._check_sets(allowed, 1 if want_logits is None else sum(map(bool, want_logits)))
        batch = _batch(tokens, sequences, want_logits, n_best, allowed)
        self._check(self.library.dll.eb_eval(self.handle, ctypes.byref(batch)))

    def _check_sets(self, allowed: Sequence[TokenSet | None], rows: int) -> None:
        """Raise EngineError where the engine would read beyond what is there."""
        words = (self.model.info.vocab_size + 31) // 32
        if len(allowed) != rows or any(each is not None and len(each) != words for each in allowed):
            raise EngineError(f"there must be {rows} sets of allowed tokens, one for each wanted row, of {words} words")

    def eval_states(
        self, tokens: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool] | None = None
    ) -> "list[memoryview[float]]":
        """Append each token to its sequence; of each wanted one (None: the last) the final hidden state.

        They are float32 [hidden_size], after the final norm. Raises as eval_batch().
        """
        batch = _batch(tokens, sequences, wanted, 0, None)
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

    def set_adapter(self, sequence: int, adapter: Adapter | None) -> None:
        """What tokens of the sequence, which must be empty, go through from now on; None: the model alone."""
        handle = adapter.handle if adapter is not None else None
        self._check(self.library.dll.eb_sequence_set_adapter(self.handle, sequence, handle))
        self._hold_adapter(sequence, adapter)

    def _hold_adapter(self, sequence: int, adapter: Adapter | None) -> None:
        before, self._adapters[sequence] = self._adapters[sequence], adapter
        if adapter is not None:
            adapter.hold()
        if before is not None:
            before.release()

    def state_kind(self, sequence: int = 0) -> bytes:
        """What a saved state hangs on: the model, the type of the KV cache, and the sequence's adapter."""
        kind = self.model.fingerprint().to_bytes(8, "little") + self.kv.encode()
        adapter = self._adapters[sequence]
        return kind if adapter is None else hashlib.sha256(kind + adapter.identity).digest()

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Make sequence `target` begin as `source` does: with its first `length` tokens and adapter, and no others."""
        self._check(self.library.dll.eb_sequence_copy(self.handle, source, target, length))
        self._hold_adapter(target, self._adapters[source])

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

        Raises BundleError where the state is damaged, or of another model, adapter, KV type or version; the sequence
        is then as before.
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
