"""The model file's golden probes for an engine that is not ours: its tokens must be theirs, for its bits are not."""

import logging
import threading
from collections.abc import Callable, Sequence

from edgebit.bundle.archive import Member
from edgebit.bundle.model_format import Probe
from edgebit.bundle.model_reader import ModelFile
from edgebit.errors import BundleError
from edgebit.runtime.defaults import BATCH_LEN
from edgebit.runtime.native import Library, Sampler, SamplingParams
from edgebit.runtime.token_engine import TokenEngine

log = logging.getLogger("edgebit.greedy_probes")

# How far, of what the best logit is above the mean, the probe's token may lie below it: two tokens that are almost
# equally likely change places with the last bits of a sum. What computes something else is nowhere near.
NEAR = 0.02


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
                for number, probe in enumerate(probes):
                    self._check(engine, best, number, probe)
        finally:
            with self._lock:
                self._engine = None
            engine.close()
        return len(probes)

    def cancel(self) -> None:
        """End check(), where it runs."""
        with self._lock:
            if self._engine is not None:
                self._engine.cancel()

    def _check(self, engine: TokenEngine, best: Sampler, number: int, probe: Probe) -> None:
        engine.truncate(0, 0)
        for begin in range(0, len(probe.prompt), BATCH_LEN):
            _append(engine, probe.prompt[begin : begin + BATCH_LEN])
        for place, wanted in enumerate(probe.greedy):
            logits = engine.logits()
            found = best.sample(logits)
            if found != wanted:
                short = _shortfall(logits, found, wanted)
                if not short <= NEAR:
                    raise BundleError(
                        f"{self._name} computes something else than the model: golden probe {number} of"
                        f" {self._place.path} has token {wanted} as answer token {place}, and it draws {found}"
                    )
                log.warning("golden probe %d: tokens %d and %d are almost equally likely", number, wanted, found)
            if place + 1 < len(probe.greedy):
                _append(engine, [wanted])


def _append(engine: TokenEngine, tokens: Sequence[int]) -> None:
    engine.eval_batch(tokens, [0] * len(tokens))


def _shortfall(logits: "memoryview[float]", found: int, wanted: int) -> float:
    """How far the wanted token's logit lies below the best one, in parts of what that one is above the mean."""
    above = logits[found] - sum(logits) / len(logits)
    return (logits[found] - logits[wanted]) / above if above > 0 else 1.0
