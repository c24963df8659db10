"""A session over an engine that is not ours: it is opened with what was asked for, and needs no states to give out."""

import pytest

from edgebit.errors import EngineError
from edgebit.runtime.engine import Engine
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.prefix_cache import PrefixCache
from edgebit.runtime.session import Session

PASSED_ON = (
    "ctx_len",
    "sequences",
    "isa",
    "kv",
    "keeps_memory",
    "eval_batch",
    "logits",
    "truncate",
    "copy_sequence",
    "close",
)


class Foreign:
    """Our own engine behind no more than a session needs."""

    def __init__(self, model, **options):
        self.options, inner = options, Engine(model, **options)
        for name in PASSED_ON:
            setattr(self, name, getattr(inner, name))


@pytest.fixture
def model(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model


def answer_of(session):
    answer = Answer(prompt_tokens=3)
    "".join(session.generate([500, 10, 11], answer, max_tokens=20))
    session.close()
    return answer.tokens


def test_a_session_over_a_foreign_engine_answers_alike(model):
    asked = {"ctx_len": 64, "sequences": 2, "kv": "f32"}
    foreign = Session(model, **asked, speculate=0, batch_len=8, open_engine=Foreign)
    assert foreign.engine.options == {**asked, "threads": 1, "batch_len": 8, "logits_rows": 2}
    assert answer_of(foreign) == answer_of(Session(model, **asked))


def test_no_prefix_cache_with_an_engine_that_gives_no_states(model):
    with pytest.raises(EngineError, match="no prefix cache with it"):
        Session(model, ctx_len=64, prefix_cache=PrefixCache(memory_bytes=1 << 20), open_engine=Foreign)
