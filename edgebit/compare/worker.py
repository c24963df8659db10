"""The process of one contestant: a program that opens an engine and answers prompts (asked_process/serving.py)."""

import json
from pathlib import Path
from typing import Any

from edgebit.asked_process.serving import serve
from edgebit.compare.contestant import Contestant, Settings
from edgebit.engines.choice import choose_engine, open_engine
from edgebit.engines.figures import answer_figures
from edgebit.engines.question import question_ids
from edgebit.runtime.generation import Answer
from edgebit.runtime.memory import peak_rss_bytes
from edgebit.runtime.sampler import SamplingParams

_OTHER_PROMPT, _WARM_TOKENS = "a", 2


class Worker:
    """What can be asked of it."""

    def __init__(self, contestant: Contestant) -> None:
        """Open the engine, and have it answer once: what is measured then has its memory and code in place."""
        self._path = contestant.path
        engine = choose_engine(contestant.path, contestant.engine)
        self._engine = open_engine(contestant.path, contestant.options(), engine)
        self._other_ids = self._engine.prompt_ids(_OTHER_PROMPT)
        self._answer(self._other_ids, _WARM_TOKENS)

    def about(self) -> dict[str, Any]:
        """What was opened."""
        engine = self._engine
        return {
            "description": engine.description,
            "load_s": engine.load_s,
            "notes": list(engine.notes),
            "figures": engine.figures(),
        }

    def answer(self, prompt: str, system: str | None, raw: bool, max_tokens: int) -> dict[str, Any]:
        """The greedy answer to a prompt: in the model's template where it has one, and not `raw`."""
        ids = question_ids(self._engine, self._path, prompt, system, raw=raw)
        # What a prompt shares with the one before, such as its template's beginning, some engines need not compute.
        self._answer(self._other_ids, 1)
        answer = self._answer(ids, max_tokens)
        return {
            "prompt_ids": ids,
            "tokens": answer.tokens,
            "text": answer.text,
            **answer_figures(self._engine, answer, SamplingParams()),
        }

    def memory(self) -> dict[str, Any]:
        """The most that this process has held."""
        return {"peak_rss_bytes": peak_rss_bytes()}

    def _answer(self, ids: list[int], max_tokens: int) -> Answer:
        answer = Answer(prompt_tokens=len(ids))
        for _ in self._engine.generate(ids, answer, sampling=SamplingParams(), max_tokens=max_tokens):
            pass
        return answer


def main(argument: str) -> None:
    """Serve the contestant that `argument`, JSON, says."""
    given = json.loads(argument)
    contestant = Contestant(**{**given, "path": Path(given["path"]), "settings": Settings(**given["settings"])})
    serve(lambda: Worker(contestant), ("about", "answer", "memory"))
