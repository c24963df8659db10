"""Golden probes for an engine that is not ours: here our own with a KV cache of f32, as it is and spoilt."""

import itertools

import pytest

from edgebit.bundle.archive import locate_model
from edgebit.bundle.model_reader import ModelFile
from edgebit.daemon.serving.greedy_probes import NEAR, GreedyProbes
from edgebit.errors import BundleError
from edgebit.runtime.engine import Engine
from edgebit.runtime.eval_errors import Cancelled
from edgebit.runtime.model import Model


@pytest.fixture
def path(reference_model):
    return reference_model("bitnet-packed")


@pytest.fixture
def probes_of(native, path):
    """Gives the probes over an engine whose logits `spoil` may change, with the engines that were opened."""
    with Model.open(native, path) as model:

        def make(spoil=lambda row: None, before=lambda engine: None):
            class Spoilt(Engine):
                def logits(self, row=0):
                    logits = super().logits(row)
                    spoil(logits)
                    return logits

            def open_engine(context):
                engine = Spoilt(model, ctx_len=context, kv="f32")
                before(engine)
                return engine

            return GreedyProbes(native, locate_model(path), "the engine", open_engine)

        yield make


def test_an_engine_that_draws_the_same_tokens_passes(probes_of, path):
    with ModelFile(path) as file:
        assert probes_of().check() == len(file.probes) > 0


def raised(logits, share):
    """Lift another token over the best one, by a share of what the best is above the mean."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    best = logits[order[0]]
    logits[order[3]] = best + share * (best - sum(logits) / len(logits))


def test_another_token_is_named(probes_of):
    """Weights of another model, a wrong scale or a lost layer draw tokens that are nowhere near."""
    with pytest.raises(BundleError, match=r"the engine computes something else.*golden probe 0 .* as answer token 0"):
        probes_of(lambda logits: raised(logits, 2 * NEAR)).check()


def test_some_ties_are_none_and_many_are(probes_of, caplog):
    """Each by itself is near; what draws another token most of the time is another engine."""
    caplog.set_level("INFO")
    calls = itertools.count()
    assert probes_of(lambda logits: raised(logits, NEAR / 2) if next(calls) % 4 == 0 else None).check() > 0
    assert "3 of 12 tokens of the golden probes are ties" in caplog.text
    with pytest.raises(BundleError, match=r"of the 12 answer tokens of the golden probes in .* it draws 12 others"):
        probes_of(lambda logits: raised(logits, NEAR / 2)).check()


def test_logits_that_are_no_numbers_are_another_token(probes_of):
    def nothing(logits):
        for place in range(len(logits)):
            logits[place] = float("nan")

    with pytest.raises(BundleError):
        probes_of(nothing).check()


def test_a_run_can_be_ended(probes_of):
    """The engine ends the pass in progress or, as here, the next one."""
    with pytest.raises(Cancelled):
        probes_of(before=lambda engine: engine.cancel()).check()
    assert probes_of().cancel() is None
