"""The daemon with a model that needs no native library: run as a program, `fake_daemon.py CONFIG STATE`, by the tests.

Everything but the model is the daemon's own. The prompt says what to answer: `say N` gives N tokens "w0 w1 ...",
`slow N` the same with 50 ms between them, `json TEXT` the text, `hang` nothing, for ever,
`bytes` characters of 1 to 4 bytes, `fail` an engine's fault, `long` a prompt that does not fit.
"""

import dataclasses
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebit.daemon.adapters.shelf import AdapterShelf
from edgebit.daemon.app import Daemon, set_up_logging
from edgebit.daemon.config.reader import read_config
from edgebit.daemon.contract.messages import GenerateRequest, Refusal
from edgebit.errors import BundleError, EdgebitError, EngineError
from edgebit.runtime.eval_errors import Cancelled, ContextFullError
from edgebit.runtime.generation import Answer

SLOW_S = 0.05


class FakeGeneration:
    """Words that the prompt's own words ask for; the first pass takes the prompt."""

    def __init__(self, prompt: str, max_tokens: int, answer: Answer) -> None:
        words = prompt.split()
        if words[0] == "long":
            raise ContextFullError("the prompt has 65 tokens and the context 64: shorten it")
        self.slow, self.fails, self.hangs = (words[0] == name for name in ("slow", "fail", "hang"))
        if words[0] in ("say", "slow"):
            self.pieces = [f"w{n} " for n in range(int(words[1]))]
        elif words[0] == "json":
            self.pieces = [f"{word} " for word in prompt.partition(" ")[2].split(" ")]
        else:
            self.pieces = {"bytes": ["é", "", "€", "𝄞", "z"], "fail": [], "hang": []}[words[0]]
        self.max_tokens = max_tokens
        self.answer = answer
        self.prompt_left = len(prompt)
        self.done = False
        self.error: EdgebitError | None = None

    def step(self) -> list[str]:
        if self.hangs:
            threading.Event().wait()
        if self.prompt_left:
            self.prompt_left, self.answer.prompt_ns = 0, 1000
        number = len(self.answer.tokens)
        if number == len(self.pieces) or number == self.max_tokens:
            self.done, self.answer.done_reason = True, "stop" if number == len(self.pieces) else "length"
            return []
        self.answer.tokens.append(number)
        self.answer.text += self.pieces[number]
        return [self.pieces[number]]

    def cancel(self) -> str:
        self.done, self.answer.done_reason = True, "cancelled"
        return ""


class FakeProbes:
    """Golden probes that pass."""

    def check(self) -> int:
        return 1

    def cancel(self) -> None:
        """Nothing to end."""


class FakeAdapter:
    """Of the model `fake`, where its first line says so."""

    def __init__(self, data: bytes) -> None:
        head = data.partition(b"\n")[0].decode(errors="replace")
        if head != "adapter of fake":
            if head.startswith("adapter of "):
                words = f"the adapter was made for {head[11:]}, and this model is fake"
                raise Refusal(409, "adapter_unfit", words)
            raise EngineError("it is no adapter file: its first bytes are another")

    def close(self) -> None:
        """Nothing."""


class FakeModel:
    """Several answers at once, each a word a pass; a pass with a slow one among them takes its time."""

    names = {"fake"}  # noqa: RUF012
    ctx_len = 64
    probes = FakeProbes()

    def __init__(self, sequences: int = 4) -> None:
        self.sequences = sequences
        self.adapters: AdapterShelf[FakeAdapter] = AdapterShelf()
        self._cancelled = threading.Event()

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
            "system_messages": True,
            "response_schema": True,
        }
        engine = {
            "version": "0",
            "isa": "none",
            "threads": 4,
            "ctx_len": 64,
            "sequences": self.sequences,
            "weight_bytes": 0,
            "kv_bytes": 0,
            "arena_bytes": 0,
        }
        return {"model": model, "bundle": None, "engine": engine}

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def open_adapter(self, data: bytes) -> FakeAdapter:
        return FakeAdapter(data)

    def fitting(self, request: GenerateRequest) -> GenerateRequest:
        if request.adapter is None:
            return request
        return dataclasses.replace(request, adapter_sha256=self.adapters.sha256(request.adapter))

    def request_ids(self, request: GenerateRequest) -> list[int]:
        if request.messages and request.messages[-1].role != "user":
            raise EngineError("the last message must be the user's")
        return self.encode(request.prompt if request.prompt is not None else request.messages[-1].content)

    def answer_key(self, request: GenerateRequest, ids: Sequence[int]) -> bytes | None:
        return repr((ids, request.max_tokens)).encode() if request.seed_given else None

    def begin(self, request: GenerateRequest, ids: Sequence[int], answer: Answer, owner: str) -> FakeGeneration:
        return FakeGeneration(bytes(ids).decode(), request.max_tokens, answer)

    def step(
        self, generations: Sequence[FakeGeneration], prompt_most: int | None
    ) -> list[tuple[FakeGeneration, list[str]]]:
        if any(each.slow for each in generations) and self._cancelled.wait(SLOW_S):
            self._cancelled.clear()
            raise Cancelled
        if any(each.fails for each in generations):
            raise EngineError("the engine broke")
        return [(each, each.step()) for each in generations if not each.done]

    def end(self, generation: FakeGeneration) -> None:
        """Nothing."""

    forget = end

    def warm_up(self) -> tuple[GenerateRequest, list[int]]:
        request = GenerateRequest(
            prompt="", messages=(), sampling={}, seed=0, max_tokens=2, stop=(), stream=False, format="json"
        )
        return request, self.encode("say 3")

    def keep(self) -> None:
        """Nothing."""

    def set_threads(self, threads: int) -> None:
        """Nothing."""

    def cancel(self) -> None:
        self._cancelled.set()

    def cancel_reset(self) -> None:
        self._cancelled.clear()

    def close(self) -> None:
        """Nothing."""


def load_slowly() -> FakeModel:
    time.sleep(1.0)
    return FakeModel()


def load_nothing() -> FakeModel:
    raise BundleError("model.ebm is damaged")


if __name__ == "__main__":
    set_up_logging("debug")
    config_path, state = Path(sys.argv[1]), Path(sys.argv[2])
    config = read_config(config_path)
    loads = {"fast": lambda: FakeModel(config.engine.sequences or 4), "slow": load_slowly, "broken": load_nothing}
    sys.exit(Daemon(config, state, loads[sys.argv[3]]).run())
