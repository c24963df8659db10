"""The daemon with a model that needs no native library: run as a program, `fake_daemon.py CONFIG STATE`, by the tests.

Everything but the model is the daemon's own. The prompt says what to answer: `say N` gives N tokens "w0 w1 ...",
`slow N` the same with 50 ms between them, `bytes` characters of 1 to 4 bytes, `fail` an engine's fault, `long` a prompt
that does not fit.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgebit.daemon.app import Daemon, set_up_logging
from edgebit.daemon.config.reader import read_config
from edgebit.daemon.contract.messages import GenerateRequest
from edgebit.errors import BundleError, EngineError
from edgebit.runtime.generation import Answer
from edgebit.runtime.native import ContextFullError

SLOW_S = 0.05


class FakeModel:
    """Answers with words that the prompt's own words ask for."""

    names = {"fake"}  # noqa: RUF012
    ctx_len = 64

    def __init__(self) -> None:
        self._cancelled = False
        self._prompt = ""

    def describe(self) -> dict[str, Any]:
        model = {
            "name": "fake",
            "aliases": [],
            "sha256": "0" * 64,
            "family": "fake",
            "licence": "Apache-2.0",
            "parameters": 1,
            "context_max": 64,
            "vocab_size": 256,
            "chat_template": True,
        }
        engine = {
            "version": "0",
            "isa": "none",
            "threads": 1,
            "ctx_len": 64,
            "weight_bytes": 0,
            "kv_bytes": 0,
            "arena_bytes": 0,
        }
        return {"model": model, "bundle": None, "engine": engine}

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def request_ids(self, request: GenerateRequest) -> list[int]:
        if request.messages and request.messages[-1].role != "user":
            raise EngineError("the last message must be the user's")
        self._prompt = request.prompt if request.prompt is not None else request.messages[-1].content
        return self.encode(self._prompt)

    def generate(
        self, request: GenerateRequest, ids: Sequence[int], answer: Answer, cancelled: Callable[[], bool]
    ) -> Iterator[str]:
        words = self._prompt.split()
        if words[0] == "long":
            raise ContextFullError("the prompt has 65 tokens and the context 64: shorten it")
        if words[0] == "fail":
            raise EngineError("the engine broke")
        answer.prompt_ns = 1000
        pieces = ["é", "", "€", "𝄞", "z"] if words[0] == "bytes" else [f"w{n} " for n in range(int(words[1]))]
        for piece in pieces:
            if cancelled() or self._cancelled:
                answer.done_reason = "cancelled"
                return
            if len(answer.tokens) == request.max_tokens:
                answer.done_reason = "length"
                return
            if words[0] == "slow":
                time.sleep(SLOW_S)
            answer.tokens.append(len(answer.tokens))
            answer.text += piece
            yield piece
        answer.done_reason = "stop"

    def keep(self) -> None:
        """Nothing."""

    def cancel(self) -> None:
        self._cancelled = True

    def cancel_reset(self) -> None:
        self._cancelled = False

    def close(self) -> None:
        self._prompt = ""


def load_slowly() -> FakeModel:
    time.sleep(1.0)
    return FakeModel()


def load_nothing() -> FakeModel:
    raise BundleError("model.ebm is damaged")


if __name__ == "__main__":
    set_up_logging("debug")
    config_path, state = Path(sys.argv[1]), Path(sys.argv[2])
    loads = {"fast": FakeModel, "slow": load_slowly, "broken": load_nothing}
    sys.exit(Daemon(read_config(config_path), state, loads[sys.argv[3]]).run())
