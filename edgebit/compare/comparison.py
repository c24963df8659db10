"""Asks every contestant the same prompts, one contestant after the other, so that each has the machine to itself."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgebit.asked_process.process import AskedProcess
from edgebit.compare.contestant import Contestant
from edgebit.compare.making import make
from edgebit.errors import EdgebitError
from edgebit.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """What is asked."""

    prompts: tuple[str, ...]
    system: str | None = None
    raw: bool = False  # without the model's chat template
    max_tokens: int = 64


@dataclass(slots=True)
class Outcome:
    """What one contestant came to."""

    contestant: Contestant
    about: dict[str, Any] = field(default_factory=dict)  # of Worker.about(); empty: it could not be opened
    answers: list[dict[str, Any]] = field(default_factory=list)  # of Worker.answer(), as far as it came
    peak_rss_bytes: int | None = None
    error: str | None = None  # why it did not come to its end


def run_comparison(
    contestants: Sequence[Contestant], questions: Questions, progress: Progress, folder: Path
) -> list[Outcome]:
    """Ask all of them, in order. One that fails keeps what it had, and does not end the others.

    folder: for what is made of models that an engine does not run as they are
    """
    each = 1 + len(questions.prompts)
    total = len(contestants) * each
    outcomes = []
    for number, contestant in enumerate(contestants):
        outcome = Outcome(contestant)

        def step(what: str, at: int, contestant: Contestant = contestant, done: int = number * each) -> None:
            progress(f"{contestant.name}: {what}", done + at, total)

        try:
            _ask(make(contestant, folder, progress), outcome, questions, step)
        except EdgebitError as error:
            outcome.error = str(error)
        outcomes.append(outcome)
    progress("done", total, total)
    return outcomes


def _ask(contestant: Contestant, outcome: Outcome, questions: Questions, step: Callable[[str, int], None]) -> None:
    argument = json.dumps(asdict(contestant), default=str)
    step("load", 0)
    with AskedProcess.of_module("edgebit.compare.worker", argument, contestant.settings.threads) as process:
        outcome.about = process.ask("about")
        for number, prompt in enumerate(questions.prompts, 1):
            step(f"prompt {number} of {len(questions.prompts)}", number)
            answer = process.ask(
                "answer", prompt=prompt, system=questions.system, raw=questions.raw, max_tokens=questions.max_tokens
            )
            outcome.answers.append(answer)
        outcome.peak_rss_bytes = process.ask("memory")["peak_rss_bytes"]
