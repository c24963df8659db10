"""Our own engine behind the protocol of all: a model file or bundle, in one runtime.session.Session."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebit.bundle.archive import locate_model
from edgebit.bundle.prompt_program import Message
from edgebit.engines.engine import OpenOptions
from edgebit.errors import BundleError, SchemaError
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.cores import default_threads
from edgebit.runtime.generation import Answer
from edgebit.runtime.json_schema import any_object, compile_schema, parse_schema
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.prefix_cache import PrefixCache
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.session import Session

_PREFIX_BYTES = 1 << 30


class NativeEngine:
    """A Session, and the model that it keeps open."""

    name = "native"

    def __init__(
        self,
        model: Model,
        session: Session,
        load_s: float,
        adapter: Adapter | None = None,
        program: bytes | None = None,
    ) -> None:
        """All are its own from here on. adapter: what every answer goes through; program: what it is held to."""
        self.session = session
        self.load_s = load_s
        self._model = model
        self._adapter = adapter
        self._program = program
        self._answer: Answer | None = None

    @property
    def description(self) -> str:
        """Version, ISA level, KV type, threads."""
        engine = self.session.engine
        threads = engine.stats().n_threads
        return f"edgebit {self._model.library.version}, {engine.isa}, KV cache {engine.kv}, {threads} threads"

    @property
    def context_len(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.session.engine.ctx_len

    @property
    def has_chat_template(self) -> bool:
        """Whether the model has a prompt program."""
        return self.session.program is not None

    @property
    def notes(self) -> Sequence[str]:
        """None: there is only one way that it runs."""
        return ()

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a plain prompt, begin-of-text first."""
        return self.session.prompt_ids(prompt)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation in the model's own template."""
        return self.session.chat_ids(messages)

    def sampling(self, asked: Mapping[str, float | None], *, seed: int) -> SamplingParams:
        """As asked for, then as the model's makers advise, then greedy."""
        return self.session.sampling(asked, seed=seed)

    def generate(
        self,
        ids: Sequence[int],
        answer: Answer,
        *,
        sampling: SamplingParams,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[str]:
        """Yield the answer to `ids` piece by piece, and fill in `answer`."""
        self._answer = answer
        yield from self.session.generate(
            ids, answer,
            sampling=sampling, max_tokens=max_tokens, stop=stop, adapter=self._adapter, constraint=self._program,
            cancelled=cancelled,
        )  # fmt: skip

    def figures(self) -> dict[str, Any]:
        """Drafts of the last answer, rows of the head read again, memory in MiB, ISA level, threads."""
        stats = self.session.engine.stats()
        return {
            "drafted_tokens": self._answer.drafted_tokens if self._answer else 0,
            "accepted_tokens": self._answer.accepted_tokens if self._answer else 0,
            "head_rows_reread": _rows_a_token(stats.head_middle_rows, stats.head_tokens),
            "weights_mib": round(stats.weight_bytes / 2**20, 1),
            "kv_cache_mib": round(stats.kv_bytes / 2**20, 1),
            "scratch_mib": round(stats.arena_bytes / 2**20, 1),
            "isa": self.session.engine.isa,
            "threads": stats.n_threads,
        }

    def keep(self) -> None:
        """Put what the answer's prompt took into the prefix cache, if there is one."""
        self.session.keep()

    def close(self) -> None:
        """Give session, adapter and model back."""
        self.session.close()
        if self._adapter is not None:
            self._adapter.close()
        self._model.close()


def open_engine(path: Path, options: OpenOptions) -> NativeEngine:
    """The model at `path`, a model file or a bundle. Raises BundleError or EngineError where it cannot be opened."""
    started = time.monotonic()
    place = locate_model(path)
    prefixes = None
    if options.prefix_cache is not None:
        prefixes = PrefixCache(memory_bytes=0, folder=options.prefix_cache, disk_bytes=_PREFIX_BYTES)
    model = Model.open(Library.load(), place.path, offset=place.offset, size=place.size)
    adapter = None
    try:
        program = None if options.schema is None else _program(options.schema, model)
        if options.adapter is not None:
            adapter = Adapter.open(model.library, model, _read(options.adapter))
        session = Session(
            model,
            threads=options.threads or default_threads(),
            ctx_len=options.ctx_len,
            kv=options.kv,
            speculate=options.speculate,
            prefix_cache=prefixes,
        )
    except BaseException:
        if adapter is not None:
            adapter.close()
        model.close()
        raise
    return NativeEngine(model, session, time.monotonic() - started, adapter, program)


def _read(adapter: Path) -> bytes:
    try:
        return adapter.read_bytes()
    except OSError as error:
        raise BundleError(f"{adapter}: cannot be read: {error.strerror}") from error


def _program(asked: str, model: Model) -> bytes:
    """What --schema names, compiled. Raises SchemaError."""
    if asked == "json":
        return any_object()
    if asked == "model":
        text = model.section("SCHM")
        if text is None:
            raise SchemaError(f"{model.source} has no schema of its own: give a file with one, or json")
        return compile_schema(parse_schema(text))
    try:
        return compile_schema(parse_schema(Path(asked).read_bytes()))
    except OSError as error:
        raise SchemaError(f"--schema {asked}: cannot be read: {error.strerror}. Give a file, json or model") from error
    except SchemaError as error:
        raise SchemaError(f"{asked}: {error}") from error


def _rows_a_token(rows: int, tokens: int) -> float | None:
    """Rows of the head that were read past their high plane, a token; None where all logits were wanted."""
    return round(rows / tokens, 1) if tokens else None
