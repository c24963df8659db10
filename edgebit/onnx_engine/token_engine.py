"""ONNX Runtime as an engine for several answers at once: a decoder for each sequence, all over one loaded graph.

A pass runs the graph once for each sequence that has tokens in it: contexts of different lengths fit into no one run.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from edgebit.errors import EngineError, OnnxError
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.session import OnnxSession
from edgebit.runtime.abi import TokenSet
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.engine import EngineStats
from edgebit.runtime.model import Model

KV = "f32"
_KV_BYTES = 4


class OnnxEngine:
    """A runtime.token_engine.TokenEngine. One thread at a time, but for cancel() and cancel_reset()."""

    isa = "onnxruntime"
    kv = KV
    threads_fixed = True

    def __init__(
        self,
        session: OnnxSession,
        model: Model,
        *,
        ctx_len: int,
        sequences: int = 1,
        threads: int = 0,
        batch_len: int = 0,
        logits_rows: int = 1,
        kv: str = KV,
    ) -> None:
        """Make the decoders; several engines may share a session. 0 takes the default.

        Raises OnnxError for what a graph cannot do, and where memory is short.
        """
        if model.info.vocab_size != session.folder.conf.vocab_size:
            raise OnnxError(
                f"{session.folder.path} has a vocabulary of {session.folder.conf.vocab_size} tokens, {model.source}"
                f" one of {model.info.vocab_size}: they are different models. Export the folder again, from this one"
            )
        for asked, why in (
            (kv != KV, f"its KV cache is {KV}, not {kv}"),
            (threads not in (0, session.threads), f"it was loaded for {session.threads} threads, not {threads}"),
            (logits_rows > sequences, "it gives the logits of one token of a sequence: no drafts can be tried"),
        ):
            if asked:
                raise OnnxError(f"{session.folder.path}: {why}")
        self.ctx_len = ctx_len or session.folder.conf.context_max
        self.sequences = sequences
        self._session = session
        self._decoders = [
            Decoder(session, ctx_len=self.ctx_len, batch_len=batch_len or BATCH_LEN) for _ in range(sequences)
        ]
        self._rows: list[memoryview[float]] = []

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

        Of a sequence's tokens only the last one's can be wanted; n_best and allowed spare nothing: all are computed.
        Raises ContextFullError, Cancelled (after cancel()), or OnnxError; the sequences are then as before.
        """
        self._check_tokens(tokens)
        wanted = [*[False] * (len(tokens) - 1), True] if want_logits is None else want_logits
        before = [decoder.length for decoder in self._decoders]
        rows: list[memoryview[float]] = []
        try:
            for index, begin, end in _parts(sequences):
                if any(wanted[begin : end - 1]):
                    raise EngineError("only the logits of a sequence's last token can be wanted of a graph")
                logits = self._decoders[index].append(tokens[begin:end])
                if wanted[end - 1]:
                    rows.append(memoryview(logits[-1]))
        except BaseException:
            self.cancel_reset()
            for decoder, length in zip(self._decoders, before, strict=True):
                decoder.truncate(length)
            raise
        self._rows = rows

    def logits(self, row: int = 0) -> "memoryview[float]":
        """Row `row` of the wanted logits, float32 [vocab_size]."""
        if row >= len(self._rows):
            raise EngineError(f"there is no row {row} of logits: fewer were wanted")
        return self._rows[row]

    def truncate(self, sequence: int = 0, length: int = 0) -> None:
        """Forget all tokens of the sequence from position `length` on."""
        self._decoders[sequence].truncate(length)

    def set_adapter(self, sequence: int, adapter: Adapter | None) -> None:
        """Raise EngineError for an adapter: a graph has no place for one."""
        if adapter is not None:
            raise EngineError(f'adapter {adapter.name}: adapters run in the native engine alone. Set engine = "native"')

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Make sequence `target` begin with the first `length` tokens of `source`, and hold no others."""
        self._decoders[target].copy_from(self._decoders[source], length)

    def set_threads(self, threads: int) -> None:
        """As many as the graph was loaded for are fine. Raises OnnxError for others: it keeps them."""
        if threads != self._session.threads:
            raise OnnxError(f"ONNX Runtime was opened with {self._session.threads} threads and keeps them")

    def cancel(self) -> None:
        """End the pass in progress, or the next one. From any thread."""
        for decoder in self._decoders:
            decoder.cancel()

    def cancel_reset(self) -> None:
        """Take back a cancel() that no pass has answered."""
        for decoder in self._decoders:
            decoder.cancel_reset()

    def stats(self) -> EngineStats:
        """Threads and memory, no counters: all weights; the KV cache at its longest, twice where runs make it anew."""
        conf = self._session.folder.conf
        a_token = 2 * conf.n_layers * conf.n_kv_heads * conf.head_dim * _KV_BYTES
        return EngineStats(
            prefill_tokens=0,
            prefill_ns=0,
            decode_tokens=0,
            decode_ns=0,
            weight_bytes=self._session.folder.weight_bytes,
            kv_bytes=a_token * self.ctx_len * self.sequences * (1 if self.keeps_memory else 2),
            arena_bytes=0,
            n_threads=self._session.threads,
            head_tokens=0,
            head_middle_rows=0,
            head_low_rows=0,
        )

    @property
    def keeps_memory(self) -> bool:
        """Whether the KV cache keeps the memory that it has once taken."""
        return all(decoder.keeps_memory for decoder in self._decoders)

    def close(self) -> None:
        """Give the KV caches back; the session is the caller's."""
        self._decoders.clear()
        self._rows.clear()

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        most = self._session.folder.conf.vocab_size
        for token in tokens:
            if not 0 <= token < most:  # a graph's Gather need not look
                raise EngineError(f"token {token} is outside the vocabulary of {most}")


def _parts(sequences: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Sequence, begin and end of tokens that follow one another in one sequence."""
    begin = 0
    for index, group in groupby(sequences):
        end = begin + len(list(group))
        yield index, begin, end
        begin = end
