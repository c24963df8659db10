"""Multiple choice by likelihood: the forms of questions, the token boundary, and scores against brute force."""

import json
from contextlib import closing

import numpy as np
import pytest

from edgebit.errors import EdgebitError
from edgebit.evaluate.choices import encode_questions, measure_choices
from edgebit.evaluate.likelihood import LikelihoodEngine, Pair, PairEncoder
from edgebit.evaluate.questions import Question, read_questions, with_shots
from edgebit.evaluate.windows import computed_tokens
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer


def alone(model: Model, pair: Pair) -> tuple[float, bool]:
    """Log-likelihood of one continuation, computed by itself; and whether it is greedy."""
    ids = pair.context + pair.continuation
    with Engine(model, ctx_len=len(ids), logits_rows=len(ids)) as engine:
        engine.eval_batch(ids, [0] * len(ids), [True] * len(ids))
        rows = np.stack([np.frombuffer(engine.logits(row), np.float32) for row in range(len(ids))])
    rows = rows[len(pair.context) - 1 : -1].astype(np.longdouble)
    log_probs = rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)
    picked = log_probs[np.arange(len(rows)), pair.continuation]
    return float(picked.sum()), rows.argmax(axis=1).tolist() == pair.continuation


def random_pairs(seed: int, count: int, context: int) -> list[Pair]:
    """Pairs with the same context, continuations of 1 to 40 tokens, some of which begin alike."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 512, context).tolist()
    base = rng.integers(0, 512, 40).tolist()
    return [
        Pair(ids, base[: rng.integers(0, 20)] + rng.integers(0, 512, rng.integers(1, 20)).tolist())
        for _ in range(count)
    ]


@pytest.mark.parametrize(("count", "context"), [(4, 30), (2, 1), (11, 150), (1, 300)])
def test_likelihoods_are_those_of_each_pair_alone(count, context, packed):
    """With any number of choices, more than are computed side by side among them, and long contexts."""
    pairs = random_pairs(count, count, context)
    with closing(LikelihoodEngine(packed, ctx_len=400, threads=2, kv="f16")) as engine:
        found = engine.score(pairs)
    for one, pair in zip(found, pairs, strict=True):
        log_prob, is_greedy = alone(packed, pair)
        assert one.log_prob == pytest.approx(log_prob, abs=1e-10)
        assert one.is_greedy == is_greedy


def test_a_greedy_continuation_is_known(packed):
    """The model's own answer is greedy, and one token changed makes it not so."""
    with Engine(packed, ctx_len=64) as engine:
        engine.eval([5, 6, 7])
        answer = []
        for _ in range(6):
            answer.append(int(np.frombuffer(engine.logits(), np.float32).argmax()))
            engine.eval(answer[-1:])
    changed = [*answer[:3], (answer[3] + 1) % 512, *answer[4:]]
    with closing(LikelihoodEngine(packed, ctx_len=64, threads=1, kv="f16")) as engine:
        found = engine.score([Pair([5, 6, 7], answer), Pair([5, 6, 7], changed), Pair([5, 6, 7], answer[:1])])
    assert [one.is_greedy for one in found] == [True, False, True]


def test_what_questions_share_is_computed_once(packed):
    """The context for all its choices, and the examples before it for all questions; the numbers stay the same."""
    shots = random_pairs(1, 1, 200)[0].context
    groups = [
        [Pair(shots + pair.context, pair.continuation) for pair in random_pairs(seed, 4, 20)] for seed in (2, 3, 4)
    ]
    with closing(LikelihoodEngine(packed, ctx_len=400, threads=1, kv="f16")) as engine:
        together = [engine.score(pairs) for pairs in groups]
        computed = computed_tokens(engine.engine)
        assert engine.score(groups[0]) == together[0]  # after others
    assert computed < 200 + 3 * 20 + sum(len(pair.continuation) for pairs in groups for pair in pairs) + 13
    for pairs, found in zip(groups, together, strict=True):
        for pair, one in zip(pairs, found, strict=True):
            assert one.log_prob == pytest.approx(alone(packed, pair)[0], abs=1e-10)


@pytest.mark.parametrize(
    ("context", "continuation"),
    [
        ("Hello world", " again"),
        ("Hello world ", "again"),
        ("Hello", "world"),
        ("a\n", " b"),
        ("", "abc"),
        ("  ", "abc"),
    ],
)
def test_the_token_boundary_is_the_harness_s(context, continuation, packed):
    """Tokens of the whole text, cut where the context without its white space ends when it is tokenized alone."""
    with Tokenizer.from_model(packed) as tokenizer:
        pair = PairEncoder(packed, tokenizer).encode(context, continuation)
        bos = packed.info.bos_token
        if not context:
            assert (pair.context, pair.continuation) == ([bos], tokenizer.encode(continuation))
        else:
            assert pair.context == [bos, *tokenizer.encode(context.rstrip())]
            assert pair.continuation == tokenizer.encode(context + continuation)[len(pair.context) - 1 :]


def test_a_long_context_loses_its_beginning():
    """As much as must be, and never the continuation."""
    pair = Pair(list(range(10)), [100, 101, 102])
    assert pair.fitted(12) == pair
    assert pair.fitted(8) == Pair([4, 5, 6, 7, 8, 9], [100, 101, 102])
    assert len(pair.fitted(8).read) == 8
    with pytest.raises(EdgebitError, match="a continuation has 3 tokens"):
        pair.fitted(2)


ARC = {"question": "Why?", "choices": {"text": ["a b", "c"], "label": ["1", "2"]}, "answerKey": "2"}
HELLASWAG = {
    "activity_label": "Roof",
    "ctx_a": "A man sits.",
    "ctx_b": "he [x] starts",
    "ctx": "unused",
    "endings": ["to run [step] fast", "Home [title] Go"],
    "label": "1",
}


@pytest.mark.parametrize(
    ("row", "question"),
    [
        (ARC, Question("Question: Why?\nAnswer:", ("a b", "c"), 1)),
        (HELLASWAG, Question("Roof: A man sits. He starts", ("to run fast", "Home. Go"), 1)),
        ({"ctx": "It is", "endings": ["x", "y"], "label": 0}, Question("It is", ("x", "y"), 0)),
        ({"query": "Q", "choices": ["x", "y", "z"], "gold": 2}, Question("Q", ("x", "y", "z"), 2)),
    ],
    ids=["arc", "hellaswag", "hellaswag-short", "plain"],
)
def test_forms_of_questions(row, question):
    """As the harness's tasks make them."""
    assert read_questions([b"\n", json.dumps(row).encode()], "q.jsonl") == [question]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 2: is no JSON: Expecting property name enclosed in double quotes, column 2"),
        pytest.param("[" * 200_000, "line 2: is no JSON that can be read", id="deep"),
        ("[1]", "line 2: is no JSON object"),
        ('{"a": 1}', "line 2: has none of the known forms"),
        (json.dumps(ARC | {"answerKey": "3"}), "'3' is none of the labels"),
        (json.dumps(ARC | {"choices": ["a", "b"]}), 'an object with "text" and "label"'),
        (json.dumps(HELLASWAG | {"label": ""}), '"label" must be the number'),
        (json.dumps(HELLASWAG | {"endings": "ab"}), '"endings" must be a list'),
        ('{"query": "Q", "choices": ["x", "y"], "gold": 2}', "number 2, and there are 2 choices"),
        ('{"query": "Q", "choices": ["x"], "gold": 0}', "two choices or more"),
        ('{"query": "Q", "choices": ["x", ""], "gold": 0}', "none may be empty"),
        ('{"query": 5, "choices": ["x", "y"], "gold": 0}', '"query" must be a text'),
    ],
)
def test_lines_that_are_no_question_are_named(row, words):
    good = json.dumps(ARC).encode()
    with pytest.raises(EdgebitError) as refused:
        read_questions([good, row.encode()], "q.jsonl")
    assert str(refused.value).startswith("q.jsonl, line 2: ") and words in str(refused.value)


def test_bytes_that_are_no_utf_8_are_named_by_line():
    with pytest.raises(EdgebitError, match=r"q.jsonl, line 1: byte 11 of it is no UTF-8"):
        read_questions([b'{"query": "\xff"}'], "q.jsonl")


def test_a_file_without_questions_is_refused():
    with pytest.raises(EdgebitError, match="no question"):
        read_questions([b"\n"], "q.jsonl")


def test_examples_stand_before_a_question_that_is_none_of_them():
    """The first ones, itself passed over."""
    one, two, three = (Question(f"Q{n}:", ("yes", "no"), n % 2) for n in range(3))
    made = with_shots([one, two, three], [one, two, three], 2)
    assert made[0].context == "Q1: no\n\nQ2: yes\n\nQ0:"
    assert made[2].context == "Q0: yes\n\nQ1: no\n\nQ2:"
    with pytest.raises(EdgebitError, match="--shots 3, and there are 2 other questions"):
        with_shots([one, two, three], [one, two, three], 3)


def test_accuracies_are_those_of_brute_force(packed):
    """acc by the sum, acc_norm by character, acc_bytes by byte; standard errors of the sample."""
    rng = np.random.default_rng(3)
    words = ["Hello", "world", "the", "größe", "a", "日本", "of", "x y z", "and more", "é"]
    questions = [
        Question(
            f"Q {rng.integers(99)}: {rng.choice(words)}",
            tuple(rng.choice(words, 4, replace=False)),
            int(rng.integers(4)),
        )
        for _ in range(12)
    ]
    result = measure_choices(packed, questions, threads=1, kv="f16", metrics=("acc", "acc_norm", "acc_bytes"))
    lengths = {"acc": lambda text: 1, "acc_norm": len, "acc_bytes": lambda text: len(text.encode())}
    for metric, length in lengths.items():
        right = []
        for question, pairs in zip(questions, encode_questions(packed, questions), strict=True):
            scores = [alone(packed, pair)[0] / length(text) for pair, text in zip(pairs, question.choices, strict=True)]
            right.append(float(int(np.argmax(scores)) == question.gold))
        assert result.accuracy[metric] == pytest.approx(np.mean(right))
        assert result.error[metric] == pytest.approx(np.std(right, ddof=1) / len(right) ** 0.5)
    assert result.answered == 12 and result.complete and result.computed_tokens < result.read_tokens


def test_a_part_of_the_questions(packed):
    """Ended after the second: the accuracy of two."""
    questions = [Question(f"Q{n}", ("yes", "no"), 0) for n in range(5)]
    answered = []
    result = measure_choices(
        packed, questions, threads=1, kv="f16", report=lambda done, total, value: done < 2, each=answered.append
    )
    assert (result.answered, result.complete, len(answered)) == (2, False, 2)
    assert result.accuracy["acc"] == np.mean([one.picks["acc"] == 0 for one in answered])


def test_a_model_without_tokenizer_cannot_read_questions(native, reference_model):
    with (
        Model.open(native, reference_model("bitnet-packed-odd-untied")) as model,
        pytest.raises(EdgebitError, match="has no tokenizer"),
    ):
        measure_choices(model, [Question("Q", ("a", "b"), 0)], threads=1, kv="f16")
