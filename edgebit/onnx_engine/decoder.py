"""One sequence of tokens on an ONNX session: append tokens, take logits, go back."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgebit.errors import OnnxError
from edgebit.onnx_engine.kv_cache import GrownCache, KvCache, SharedCache
from edgebit.onnx_engine.ort_faults import version_numbers
from edgebit.onnx_engine.session import OnnxSession
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.eval_errors import Cancelled, ContextFullError

if TYPE_CHECKING:
    import numpy as np

# Before it, GroupQueryAttention takes several tokens for the beginning of a text, whatever came before them, and
# computes something else without a word: measured with 1.19.2 (docs/decisions/onnx-runner.md).
_APPENDS_SEVERAL = (1, 20)


class Decoder:
    """A KV cache and the graph that fills it. Several can share a session, one run at a time each."""

    def __init__(
        self, session: OnnxSession, *, ctx_len: int = 0, batch_len: int = BATCH_LEN, in_place: bool = True
    ) -> None:
        """ctx_len: tokens that the sequence may have; 0 takes the model's own maximum. batch_len: tokens of one run.
        in_place: append to the KV cache in place where the graph can

        Raises OnnxError where the context is longer than the model's, or memory is short.
        """
        conf = session.folder.conf
        self.ctx_len = ctx_len or conf.context_max
        if self.ctx_len > conf.context_max:
            raise OnnxError(
                f"{session.folder.path}: a context of {ctx_len} tokens was asked for, the model's is {conf.context_max}"
            )
        self.session = session
        self.length = 0  # tokens in the sequence
        self.batch_len = batch_len
        self._np = session.numpy
        groups_queries = session.folder.groups_queries
        self._appends_several = not groups_queries or version_numbers(session.version) >= _APPENDS_SEVERAL
        self._all_rows = session.folder.gives_all_logits
        self._bound = session.inference.io_binding()
        self._run_options = session.runtime.RunOptions()
        self._cache: KvCache
        try:
            self._mask = self._np.ones((1, self.ctx_len), self._np.int64)
            self._cache = SharedCache(session, self.ctx_len) if groups_queries and in_place else GrownCache(session)
        except MemoryError as error:
            raise OnnxError(
                f"{session.folder.path}: no memory for a KV cache of {self.ctx_len} tokens. Give a shorter --ctx"
            ) from error

    @property
    def keeps_memory(self) -> bool:
        """Whether its KV cache has its memory from the beginning, rather than anew for each length."""
        return isinstance(self._cache, SharedCache)

    @property
    def held_bytes(self) -> int:
        """Memory that the KV cache has asked for; of a shared one, what no token has come to yet is not taken."""
        return self._cache.held_bytes

    @property
    def prompt_len(self) -> int:
        """How many tokens of a long prompt are best given at once."""
        return self.batch_len if self._appends_several else self.ctx_len

    def append(self, ids: Sequence[int]) -> "np.ndarray":
        """Put tokens behind those that are there; gives the logits, float32 [1, vocab_size], of the last one.

        Raises ContextFullError where they do not fit, Cancelled after cancel(), OnnxError where the run fails; the
        sequence is then as before.
        """
        last: np.ndarray | None = None
        for rows in self._runs(ids):
            last = rows[-1:]
        if last is None:
            raise OnnxError("no tokens were given to append")
        return last

    def append_all(self, ids: Sequence[int]) -> "np.ndarray":
        """The same with the logits of all of them, [len(ids), vocab_size]; OnnxError where the graph has the last's."""
        if not self._all_rows:
            raise OnnxError(
                f"{self.session.folder.model_path} gives the logits of the last token alone. "
                "Export the model with --logits all"
            )
        rows: np.ndarray = self._np.concatenate(list(self._runs(ids)))
        return rows

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on."""
        if length < self.length:
            self._cache.truncate(length)
            self.length = length

    def copy_from(self, other: "Decoder", length: int) -> None:
        """Hold the first `length` tokens of another decoder of the same session and context, and no others."""
        self._cache.copy_from(other._cache, length)
        self.length = length

    def cancel(self) -> None:
        """End the run in progress, or the next one. From any thread."""
        self._run_options.terminate = True

    def cancel_reset(self) -> None:
        """Take back a cancel() that no run has answered."""
        self._run_options.terminate = False

    def _runs(self, ids: Sequence[int]) -> "Iterator[np.ndarray]":
        """Run the graph for all tokens, in pieces; gives the logits of each, [1 or tokens, vocab_size]."""
        if len(ids) > self.ctx_len - self.length:
            raise ContextFullError(
                f"{len(ids)} tokens do not fit: the context has {self.ctx_len}, and {self.length} are there. "
                "Shorten the prompt, or open the model with a longer context"
            )
        begin, at = self.length, 0
        try:
            while at < len(ids):
                piece = ids[at : at + self._most(len(ids) - at)]
                yield self._run(piece)
                at += len(piece)
        except (OnnxError, Cancelled):
            self.truncate(begin)
            raise

    def _most(self, left: int) -> int:
        """Tokens of the next run."""
        if self._appends_several:
            return self.batch_len
        return 1 if self.length else left

    def _run(self, piece: Sequence[int]) -> "np.ndarray":
        end = self.length + len(piece)
        tokens = self._np.array([piece], self._np.int64)
        bound, to_value = self._bound, self.session.runtime.OrtValue.ortvalue_from_numpy
        bound.bind_ortvalue_input("input_ids", to_value(tokens))
        bound.bind_ortvalue_input("attention_mask", to_value(self._mask[:, :end]))
        bound.bind_output("logits", "cpu")
        self._cache.bind(bound)
        self.session.run(bound, self._run_options)
        outputs: list[Any] = bound.get_outputs()
        self._cache.take(outputs[1:])
        self.length = end
        return self._logits(outputs[0])

    def _logits(self, value: Any) -> "np.ndarray":
        """[1 or tokens, vocab_size]. Raises OnnxError for others than the model's: a sampler reads a whole row."""
        shape, vocab_size = value.shape(), self.session.folder.conf.vocab_size
        if value.data_type() != "tensor(float)" or len(shape) != 3 or shape[2] != vocab_size:
            raise OnnxError(
                f"{self.session.folder.model_path} gives logits of {value.data_type()} {shape}, its edgebit.conf says "
                f"{vocab_size} tokens. Export the model again"
            )
        logits: np.ndarray = value.numpy()[0]
        return logits
