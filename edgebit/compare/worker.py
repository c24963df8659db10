"""The process of one contestant: a program that opens an engine and answers prompts (edgebit.bench.serving)."""

import json
import sys
from pathlib import Path
from typing import Any

from edgebit.bench.serving import serve
from edgebit.bundle.prompt_program import Message
from edgebit.compare.contestant import Contestant, Settings
from edgebit.engines.choice import open_engine
from edgebit.engines.figures import answer_figures
from edgebit.runtime.generation import Answer
from edgebit.runtime.memory import peak_rss_bytes
from edgebit.runtime.native import SamplingParams

_WARM_PROMPT, _WARM_TOKENS = "a", 2


class Worker:
    """What can be asked of it."""

    def __init__(self, contestant: Contestant) -> None:
        """Open the engine, and have it answer once: what is measured then has its memory and code in place."""
        self._engine = open_engine(contestant.path, contestant.options(), contestant.engine)
        self._answer(self._engine.prompt_ids(_WARM_PROMPT), _WARM_TOKENS)

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
        if raw or not self._engine.has_chat_template:
            ids = self._engine.prompt_ids(prompt)
        else:
            messages = [Message("system", system)] if system is not None else []
            ids = self._engine.chat_ids([*messages, Message("user", prompt)])
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


if __name__ == "__main__":
    main(sys.argv[1])
