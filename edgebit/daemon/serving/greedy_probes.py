"""The model file's golden probes for an engine that is not ours: its tokens must be theirs, for its bits are not."""

import logging
import threading
from collections.abc import Callable, Sequence

from edgebit.bundle.archive import Member
from edgebit.bundle.model_format import Probe
from edgebit.bundle.model_reader import ModelFile
from edgebit.errors import BundleError
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.library import Library
from edgebit.runtime.sampler import Sampler, SamplingParams
from edgebit.runtime.token_engine import TokenEngine

log = logging.getLogger("edgebit.greedy_probes")

# How far, of what the best logit is above the mean, the probe's token may lie below it, and how many of all tokens may:
# tokens that are about equally likely change places with the last bits of a sum. docs/decisions/onnx-daemon.md
NEAR = 0.1
MOST_TIES = 1 / 3


class GreedyProbes:
    """The greedy tokens of all probes, one after the other as the probe has them. check() in one thread at a time."""

    def __init__(self, library: Library, place: Member, name: str, open_engine: Callable[[int], TokenEngine]) -> None:
        """`place` is the model's file; `name` what computes, in messages; open_engine opens one for so many tokens."""
        self._library = library
        self._place = place
        self._name = name
        self._open_engine = open_engine
        self._lock = threading.Lock()
        self._engine: TokenEngine | None = None

    def check(self) -> int:
        """Run all probes; gives how many there are.

        Raises BundleError naming the first that differs, EdgebitError where memory is short, Cancelled after cancel().
        """
        with ModelFile(self._place.path, self._place.offset, self._place.size) as file:
            probes, context, vocab_size = file.probes, file.probe_context, file.conf.vocab_size
        if not probes:
            return 0
        engine = self._open_engine(context)
        with self._lock:
            self._engine = engine
        try:
            with Sampler(self._library, vocab_size, SamplingParams()) as best:
                ties = sum(self._ties(engine, best, number, probe) for number, probe in enumerate(probes))
        finally:
            with self._lock:
                self._engine = None
            engine.close()
        total = sum(len(probe.greedy) for probe in probes)
        if ties > MOST_TIES * total:
            raise BundleError(
                f"{self._name} computes something else than the model: of the {total} answer tokens of the golden"
                f" probes in {self._place.path} it draws {ties} others"
            )
        if ties:
            log.info("%d of %d tokens of the golden probes are ties: another one is about as likely", ties, total)
        return len(probes)

    def cancel(self) -> None:
        """End check(), where it runs."""
        with self._lock:
            if self._engine is not None:
                self._engine.cancel()

    def _ties(self, engine: TokenEngine, best: Sampler, number: int, probe: Probe) -> int:
        """How many of the probe's tokens are not drawn, but nearly. Raises BundleError for one that is nowhere near."""
        engine.truncate(0, 0)
        for begin in range(0, len(probe.prompt), BATCH_LEN):
            _append(engine, probe.prompt[begin : begin + BATCH_LEN])
        ties = 0
        for place, wanted in enumerate(probe.greedy):
            logits = engine.logits()
            found = best.sample(logits)
            if found != wanted:
                ties += 1
                if not shortfall(logits, found, wanted) <= NEAR:
                    raise BundleError(
                        f"{self._name} computes something else than the model: golden probe {number} of"
                        f" {self._place.path} has token {wanted} as answer token {place}, and it draws {found}"
                    )
            if place + 1 < len(probe.greedy):
                _append(engine, [wanted])
        return ties


def _append(engine: TokenEngine, tokens: Sequence[int]) -> None:
    engine.eval_batch(tokens, [0] * len(tokens))


def shortfall(logits: "memoryview[float]", found: int, wanted: int) -> float:
    """How far the wanted token's logit lies below the best one, in parts of what that one is above the mean."""
    above = logits[found] - sum(logits) / len(logits)
    return (logits[found] - logits[wanted]) / above if above > 0 else 1.0
