"""A bundle as a harness drives it, without the harness: whole texts, answers, chat prompts."""

import sys

import numpy as np
import pytest

from edgebit.errors import EdgebitError, EngineError
from edgebit.evaluate.harness import open_text_model, register
from edgebit.evaluate.likelihood import Pair
from edgebit.evaluate.text_model import TextModel
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer

TEXT = "This is a text that is longer than the windows that it is cut into, so that there are some of them. " * 3


@pytest.fixture
def text_model(packed):
    opened = TextModel(packed, max_length=64, threads=1, kv="f16", seed=3)
    yield opened
    opened.close()


def alone(model: Model, pair: Pair) -> float:
    """The log-likelihood of one continuation, computed by itself."""
    ids = pair.context + pair.continuation
    with Engine(model, ctx_len=len(ids), logits_rows=len(ids)) as engine:
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        rows = np.stack([np.array(engine.logits(row), dtype=np.float64) for row in range(len(ids))])
    rows = rows[len(pair.context) - 1 : -1]
    return float((rows[np.arange(len(rows)), pair.continuation] - np.logaddexp.reduce(rows, axis=1)).sum())


def test_likelihoods_come_with_their_places(text_model, packed):
    """Whatever order they are computed in; a long context loses its beginning."""
    texts = [("One", " two"), (TEXT, " end"), ("One", " three"), ("", "four"), ("Other ", "five")]
    found = dict(text_model.likelihoods(texts))
    with Tokenizer.from_model(packed) as tokenizer:
        bos = packed.info.bos_token
        for place, (context, continuation) in enumerate(texts):
            begin = [bos, *tokenizer.encode(context.rstrip())]
            rest = [bos, *tokenizer.encode(context + continuation)][len(begin) :]
            begin = begin[max(len(begin) + len(rest) - 65, 0) :]
            assert found[place].log_prob == pytest.approx(alone(packed, Pair(begin, rest)), abs=1e-9)


def test_a_whole_text_in_windows_that_meet(text_model, packed):
    """Each token once: 64 after begin-of-text, 64 after one token, the rest after as many as fit."""
    with Tokenizer.from_model(packed) as tokenizer:
        tokens = [packed.info.bos_token, *tokenizer.encode(TEXT)]
    assert 129 < len(tokens) < 193, "three windows"
    pairs = [
        Pair(tokens[:1], tokens[1:65]),
        Pair(tokens[64:65], tokens[65:129]),
        Pair(tokens[len(tokens) - 65 : 129], tokens[129:]),
    ]
    assert text_model.rolling(TEXT) == pytest.approx(sum(alone(packed, pair) for pair in pairs), abs=1e-9)
    assert text_model.rolling("") == 0


def test_answers_end_where_they_are_told(text_model):
    """At a stop string, which is not part of it, and after the most tokens; greedy unless asked otherwise."""
    whole = text_model.generate("Hello", {"max_gen_toks": 20})
    stop = next(whole[i : i + 2] for i in range(2, len(whole) - 1) if whole[i : i + 2].isascii())
    assert text_model.generate("Hello", {"max_gen_toks": 20, "until": [stop]}) == whole[: whole.index(stop)]
    assert text_model.generate("Hello", {"max_gen_toks": 20, "until": stop}) == whole[: whole.index(stop)]
    assert whole.startswith(text_model.generate("Hello", {"max_new_tokens": 3}).rstrip("\ufffd"))
    drawn = text_model.generate("Hello", {"max_gen_toks": 20, "do_sample": True, "temperature": 2.0})
    assert drawn != whole
    assert text_model.generate("Hello", {"max_gen_toks": 20, "do_sample": False, "temperature": 2.0}) == whole


def test_a_long_context_leaves_room_for_the_answer(text_model):
    """Its beginning is lost; more tokens than there are is refused."""
    assert text_model.generate("x" + TEXT, {"max_gen_toks": 30}) == text_model.generate(TEXT, {"max_gen_toks": 30})
    with pytest.raises(EdgebitError, match="max_gen_toks is 64"):
        text_model.generate("a", {"max_gen_toks": 64})


def test_chat_prompts_are_known_again(text_model, packed):
    """The template's special tokens are tokens, those that somebody wrote stay text; elsewhere all stay text."""
    name = "<|eot_id|>"
    with Tokenizer.from_model(packed) as tokenizer:
        (special,) = tokenizer.encode(name, parse_special=True)
    prompt = text_model.chat([{"role": "user", "content": f"say {name}"}], answer_next=True)
    assert prompt.count(name) == 2
    assert text_model._context_ids(prompt).count(special) == 1
    assert text_model._context_ids(prompt + " ").count(special) == 0


def test_an_answer_begun_is_gone_on_with(text_model):
    """Without an end of message behind it."""
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer is"}]
    begun = text_model.chat(history, answer_next=False)
    assert begun == text_model.chat(history[:1], answer_next=True) + "The answer is"


def test_what_cannot_be(native, reference_model, packed):
    """No tokenizer, a context that is too long, no template."""
    with pytest.raises(EdgebitError, match="max_length is 9999"):
        TextModel(packed, max_length=9999, threads=1, kv="f16", seed=0)
    with (
        Model.open(native, reference_model("bitnet-packed-odd-untied")) as odd,
        pytest.raises(EdgebitError, match="no tokenizer"),
    ):
        TextModel(odd, max_length=None, threads=1, kv="f16", seed=0)


def test_a_model_without_template_says_so(packed, monkeypatch, text_model):
    monkeypatch.setattr(text_model._session, "program", None)
    assert text_model.template is None
    with pytest.raises(EdgebitError, match="no chat template"):
        text_model.chat([{"role": "user", "content": "Hi"}], answer_next=True)


def test_roles_that_the_template_does_not_take(text_model):
    with pytest.raises(EngineError, match="role"):
        text_model.chat([{"role": "tool", "content": "Hi"}], answer_next=True)


def test_without_lm_eval_it_says_what_to_install(monkeypatch):
    """The adapter's module can be imported, and used for nothing."""
    for name in ("lm_eval", "lm_eval.api.model"):  # the second: another test may have imported it
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EdgebitError, match=r"pip install 'edgebit\[lm-eval\]'"):
        register.__wrapped__()


def test_a_wrong_kv_type_is_named(reference_model):
    with pytest.raises(EdgebitError, match="kv=f8: it must be one of"):
        open_text_model(str(reference_model("bitnet-packed")), kv="f8")
