"""Puts a comparison together: what each came to, and how its answers stand to those of the first that answered."""

import statistics
from collections.abc import Sequence
from typing import Any

from edgebit.compare.agreement import Agreement, compare_tokens
from edgebit.compare.comparison import Outcome, Questions

SCHEMA = "edgebit/compare/1"
Report = dict[str, Any]


def make_report(outcomes: Sequence[Outcome], questions: Questions) -> Report:
    """The JSON object that docs/schemas/compare.json describes."""
    base = next((outcome for outcome in outcomes if outcome.error is None), None)
    return {
        "schema": SCHEMA,
        "prompts": list(questions.prompts),
        "system": questions.system,
        "raw": questions.raw,
        "max_tokens": questions.max_tokens,
        "compared_with": None if base is None else base.contestant.name,
        "engines": [_engine(outcome, base) for outcome in outcomes],
    }


def all_succeeded(report: Report) -> bool:
    """Whether every engine answered every prompt."""
    return all(engine["error"] is None for engine in report["engines"])


def all_equal(report: Report) -> bool:
    """Whether all that answered gave the same tokens to every prompt."""
    return all(engine["agreement"] is None or engine["agreement"]["share"] == 1 for engine in report["engines"])


def _engine(outcome: Outcome, base: Outcome | None) -> dict[str, Any]:
    contestant, about = outcome.contestant, outcome.about
    return {
        "name": contestant.name,
        "path": str(contestant.path),
        "engine": contestant.engine,
        "threads": contestant.settings.threads,
        "error": outcome.error,
        "description": about.get("description"),
        "notes": about.get("notes", []),
        "figures": about.get("figures", {}),
        "load_s": about.get("load_s"),
        "prefill_tok_s": _median(outcome, "prefill_tok_s"),
        "decode_tok_s": _median(outcome, "decode_tok_s"),
        "peak_rss_bytes": outcome.peak_rss_bytes,
        "answers": [_answer(answer) for answer in outcome.answers],
        "agreement": None if base is None or base is outcome else _agreement(outcome, base),
    }


def _median(outcome: Outcome, figure: str) -> float | None:
    """Over the prompts for which there is one: an answer of one token has no decode."""
    values = [answer[figure] for answer in outcome.answers if answer[figure]]
    return round(statistics.median(values), 2) if values else None


_TOLD = ("text", "tokens", "prompt_tokens", "prefill_tok_s", "decode_tok_s", "first_token_s", "done_reason")


def _answer(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in _TOLD}


def _agreement(outcome: Outcome, base: Outcome) -> dict[str, Any] | None:
    """Over the prompts that both answered; None where there is none."""
    compared = [
        compare_tokens(ours["tokens"], wanted["tokens"], same_prompt=ours["prompt_ids"] == wanted["prompt_ids"])
        for ours, wanted in zip(outcome.answers, base.answers, strict=False)
    ]
    if not compared:
        return None
    return {
        "share": sum(one.is_equal for one in compared) / len(compared),
        "equal_tokens_least": min(one.equal_tokens for one in compared),
        "prompts": [_prompt(one) for one in compared],
    }


def _prompt(one: Agreement) -> dict[str, Any]:
    return {"equal_tokens": one.equal_tokens, "parts_at": one.parts_at, "same_prompt_tokens": one.same_prompt}
