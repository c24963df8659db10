"""Final hidden states: those that the head sees, the same bits however a text is split, and embeddings made of them."""

import math
from typing import Any

import numpy as np
import pytest

from edgebit.bundle.model_format import NO_LAYER, PER_ROW, ActivationQuantisation, Role
from edgebit.errors import EngineError
from edgebit.runtime.embedding import embed
from edgebit.runtime.engine import Engine
from edgebit.runtime.eval_errors import ContextFullError
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from tests.kernels.numpy_model import layer_of, normed
from tests.kernels.tiny_model import TinyModel, tiny_conf

TINY = TinyModel(tiny_conf(activation_quantisation=ActivationQuantisation.INT15), seed=4, scaling=PER_ROW)
FILE = TINY.to_bytes()
IDS = np.random.default_rng(2).integers(0, TINY.conf.vocab_size, 40).tolist()


def _states(library: Library, **options: Any) -> np.ndarray:
    """Of all of IDS, [tokens, hidden_size]."""
    with Model.from_bytes(library, FILE) as model, Engine(model, **options) as engine:
        return np.array(engine.eval_states(IDS, [0] * len(IDS), [True] * len(IDS)), np.float32)


def test_states_are_what_numpy_computes(native: Library):
    """Layer after layer and the final norm, in float64; what differs is what 15 bits round to the other side."""
    x = TINY.weights[Role.TOKEN_EMBEDDING, NO_LAYER][IDS].astype(np.float64)
    for layer in range(TINY.conf.n_layers):
        x = layer_of(TINY, layer, x)
    wanted = normed(x, TINY.weights[Role.FINAL_NORM, NO_LAYER], TINY.conf.rms_norm_eps)
    assert np.abs(_states(native, kv="f32") - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_states_are_those_that_logits_come_from(native: Library):
    """The head in numpy, from the states, gives the engine's logits but for their rounding to 15 bits."""
    with Model.from_bytes(native, FILE) as model, Engine(model, logits_rows=len(IDS)) as engine:
        engine.eval_batch(IDS, [0] * len(IDS), [True] * len(IDS))
        logits = np.array([engine.logits(row) for row in range(len(IDS))], np.float64)
    from_states = _states(native).astype(np.float64) @ TINY.weights[Role.HEAD, NO_LAYER].T
    assert np.abs(logits - from_states).max() < 1e-3 * np.abs(logits).max()


def test_states_are_the_same_bits_at_every_isa_level_thread_count_and_batch_length(
    native: Library, isa_levels: list[str]
):
    """And token by token, and of some tokens only."""
    wanted = _states(Library.load(isa="scalar"))
    for isa in isa_levels:
        for threads, batch_len in ((1, 1), (2, 7), (3, 0)):
            got = _states(Library.load(isa=isa), threads=threads, batch_len=batch_len)
            assert got.tobytes() == wanted.tobytes(), f"{isa}, {threads} threads, batch_len {batch_len}"
    with Model.from_bytes(native, FILE) as model, Engine(model, sequences=2, batch_len=3) as engine:
        for position, token in enumerate(IDS):
            (state,) = engine.eval_states([token], [0])
            assert bytes(state) == wanted[position].tobytes()
        some = [position % 3 == 1 for position in range(len(IDS))]
        states = engine.eval_states(IDS, [1] * len(IDS), some)
        assert [bytes(state) for state in states] == [row.tobytes() for row in wanted[some]]
        assert engine.eval_states([3], [1], [False]) == []


def test_logits_and_states_take_turns_in_a_sequence(native: Library):
    """Each call goes on where the other left off; after states there are no logits to be had."""
    with Model.from_bytes(native, FILE) as model, Engine(model) as engine:
        engine.eval(IDS[:20])
        before = bytes(engine.logits())
        engine.truncate()
        engine.eval_states(IDS[:19], [0] * 19)
        with pytest.raises(EngineError, match="no row 0 of logits"):
            engine.logits()
        engine.eval(IDS[19:20])
        assert bytes(engine.logits()) == before


def test_states_that_cannot_be_had_leave_the_sequence_as_it_was(native: Library):
    """A full context, a token that is not there, and none at all."""
    with Model.from_bytes(native, FILE) as model, Engine(model, ctx_len=12) as engine:
        engine.eval_states(IDS[:5], [0] * 5)
        with pytest.raises(ContextFullError):
            engine.eval_states(IDS, [0] * len(IDS))
        with pytest.raises(EngineError, match="outside the vocabulary of 77"):
            engine.eval_states([1, 77], [0, 0])
        with pytest.raises(EngineError, match="no tokens"):
            embed(engine, [])
        engine.eval_states(IDS[:5], [0] * 5)
        assert engine.length() == 5


def test_an_embedding_is_the_last_state_of_length_one(native: Library):
    """Of a text alone, whatever was embedded before it."""
    wanted = _states(native)[-1].astype(np.float64)
    with Model.from_bytes(native, FILE) as model, Engine(model) as engine:
        embed(engine, IDS[3:9])
        got = embed(engine, IDS)
    assert math.isclose(math.fsum(value * value for value in got), 1, rel_tol=1e-12)
    assert np.allclose(got, wanted / np.linalg.norm(wanted), rtol=1e-6, atol=0)
