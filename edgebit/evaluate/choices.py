"""Multiple choice by likelihood: which of the texts that may follow a question a model takes for the likeliest."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from edgebit.errors import EdgebitError
from edgebit.evaluate.likelihood import Likelihood, LikelihoodEngine, Pair, PairEncoder
from edgebit.evaluate.progress import Report, go_on
from edgebit.evaluate.questions import Question
from edgebit.evaluate.windows import Floats, computed_tokens
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer

# What a choice's log-likelihood is divided by before the greatest is taken, as in lm-evaluation-harness.
METRICS: dict[str, Callable[[str], int]] = {
    "acc": lambda choice: 1,
    "acc_norm": len,  # characters
    "acc_bytes": lambda choice: len(choice.encode("utf-8", "surrogatepass")),
}


@dataclass(frozen=True, slots=True)
class Answered:
    """A question that was scored."""

    place: int  # in the file, from 0 on
    gold: int
    log_probs: list[float]  # of each choice
    picks: dict[str, int]  # by metric


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoicesResult:
    """What the questions came to. Of the first ones alone where not `complete`."""

    answered: int
    accuracy: dict[str, float]  # by metric
    error: dict[str, float | None]  # standard error of each; None for a single question
    shortened: int  # questions whose context was cut at the front, to fit into the model's own
    read_tokens: int  # of all contexts and choices, were each computed on its own
    computed_tokens: int
    seconds: float
    isa: str
    complete: bool


def encode_questions(model: Model, questions: Sequence[Question]) -> list[list[Pair]]:
    """The pairs of each question, a choice a pair. Raises EdgebitError naming the question that cannot be."""
    if model.section("TOKN") is None:
        raise EdgebitError(f"{model.source} has no tokenizer: it cannot read questions. Take a model that has one")
    encoded = []
    with Tokenizer.from_model(model) as tokenizer:
        encoder = PairEncoder(model, tokenizer)
        for number, question in enumerate(questions, 1):
            try:
                encoded.append([encoder.encode(question.context, text) for text in question.continuations])
            except EdgebitError as error:
                raise EdgebitError(f"question {number}: {error}") from error
    return encoded


def measure_choices(
    model: Model,
    questions: Sequence[Question],
    *,
    threads: int,
    kv: str,
    metrics: Sequence[str] = tuple(METRICS),
    report: Report = go_on,
    each: Callable[[Answered], None] = lambda answered: None,
) -> ChoicesResult:
    """Answer all questions. `report` is told the running accuracy by the first metric, `each` every question."""
    most = model.info.context_max
    whole = encode_questions(model, questions)
    groups = [[pair.fitted(most) for pair in pairs] for pairs in whole]
    longest = max(len(pair.read) for pairs in groups for pair in pairs)
    started, answers, complete = time.monotonic(), list[Answered](), True
    with closing(LikelihoodEngine(model, ctx_len=longest, threads=threads, kv=kv)) as engine:
        for place, (question, pairs) in enumerate(zip(questions, groups, strict=True), 1):
            answers.append(_answer(place - 1, question, engine.score(pairs), metrics))
            each(answers[-1])
            if not report(place, len(questions), float(_right(answers, metrics[0]).mean())):
                complete = place == len(questions)
                break
        computed, isa = computed_tokens(engine.engine), engine.engine.isa
    right = {metric: _right(answers, metric) for metric in metrics}
    return ChoicesResult(
        answered=len(answers),
        accuracy={metric: float(values.mean()) for metric, values in right.items()},
        error={metric: _standard_error(values) for metric, values in right.items()},
        shortened=sum(group != pairs for group, pairs in zip(groups[: len(answers)], whole, strict=False)),
        read_tokens=sum(len(pair.read) for pairs in groups[: len(answers)] for pair in pairs),
        computed_tokens=computed,
        seconds=time.monotonic() - started,
        isa=isa,
        complete=complete,
    )


def _answer(place: int, question: Question, found: Sequence[Likelihood], metrics: Sequence[str]) -> Answered:
    log_probs = [one.log_prob for one in found]
    picks = {}
    for metric in metrics:
        lengths = [METRICS[metric](choice) for choice in question.choices]
        picks[metric] = int(np.argmax(np.array(log_probs) / lengths))
    return Answered(place, question.gold, log_probs, picks)


def _right(answers: Sequence[Answered], metric: str) -> Floats:
    """1 for each question whose pick is the right one, else 0."""
    return np.array([float(one.picks[metric] == one.gold) for one in answers])


def _standard_error(values: Floats) -> float | None:
    """Of the mean of values that hang on nothing but themselves."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
