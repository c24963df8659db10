"""What `run` and `chat` share: the options of a generation, how Ctrl-C ends one, and its statistics in words."""

import contextlib
import functools
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click

from edgebit.bundle.conf_section import SIZE_MAX
from edgebit.engines.engine import OpenOptions, TextEngine
from edgebit.runtime.abi import MAX_DRAFT
from edgebit.runtime.engine import KV_TYPES
from edgebit.runtime.sampler import SamplingParams
from edgebit.runtime.session import SPECULATE


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """The options of generation_options(); None where the model's makers are asked."""

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repeat_penalty: float | None
    seed: int | None
    stop: tuple[str, ...]
    threads: int | None
    ctx: int
    kv: str
    speculate: int
    prefix_cache: Path | None
    adapter: Path | None
    schema: str | None

    def open_options(self, library: str | None = None) -> OpenOptions:
        """What an engine is opened with."""
        return OpenOptions(
            threads=self.threads,
            ctx_len=self.ctx,
            kv=self.kv,
            speculate=self.speculate,
            prefix_cache=self.prefix_cache,
            adapter=self.adapter,
            schema=self.schema,
            ort_library=library,
        )

    def sampling(self, engine: TextEngine) -> SamplingParams:
        """What was asked for, then what the model's makers advise, then greedy."""
        asked = {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repeat_penalty,
        }
        return engine.sampling(asked, seed=self.seed if self.seed is not None else secrets.randbits(32))


def generation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a generation, as one GenerationOptions argument named `generation`."""
    names = GenerationOptions.__slots__

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        chosen = {name: arguments.pop(name) for name in names}
        command(generation=GenerationOptions(**chosen), **arguments)

    for option in reversed(
        (
            click.option("-n", "--max-tokens", type=click.IntRange(1), help="End after so many tokens."),
            click.option("--temperature", type=click.FloatRange(0), help="0 is greedy. Default: as the makers advise."),
            click.option("--top-k", type=click.IntRange(0, 1 << 20), help="Draw among the K likeliest tokens only."),
            click.option(
                "--top-p", type=click.FloatRange(0, 1), help="Draw among tokens that make up this probability."
            ),
            click.option(
                "--min-p", type=click.FloatRange(0, 1), help="Leave out tokens below this share of the likeliest."
            ),
            click.option("--repeat-penalty", type=click.FloatRange(0, min_open=True), help="Above 1: repeat less."),
            click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="The same seed gives the same answer."),
            click.option("--stop", multiple=True, help="End before this text. May be given several times."),
            click.option(
                "--threads", type=click.IntRange(1, 1024), help="Worker threads.  [default: one for each big core]"
            ),
            click.option(
                "--ctx",
                type=click.IntRange(0, SIZE_MAX["context_max"]),
                default=0,
                help="Context in tokens.  [default: the model's own]",
            ),
            click.option(
                "--kv",
                type=click.Choice(KV_TYPES),
                default=KV_TYPES[0],
                show_default=True,
                help="Type of the KV cache: int8 takes half the memory, and its answers differ a little.",
            ),
            click.option(
                "--speculate",
                type=click.IntRange(0, MAX_DRAFT),
                default=SPECULATE,
                show_default=True,
                help="Try drafts of at most so many tokens, found in the text itself. Changes no answer.",
            ),
            click.option(
                "--prefix-cache",
                type=click.Path(file_okay=False, path_type=Path),
                help="A folder that keeps what was computed for prompts, at most 1 GiB. Changes no answer.",
            ),
            click.option(
                "--adapter",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="A LoRA adapter of edgebit adapter convert, that every token goes through.",
            ),
            click.option(
                "--schema",
                metavar="FILE|json|model",
                help="Hold answers to the JSON Schema in a file, to any JSON object, or to the model's own schema.",
            ),
        )
    ):
        wrapped = option(wrapped)
    return wrapped


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C raises nothing: the function it gives says whether it was pressed."""
    pressed = False

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def statistics_line(figures: dict[str, Any]) -> str:
    """The figures of an answer for people, on one line."""
    return _native_line(figures) if figures["engine"] == "native" else _line(figures)


def _line(figures: dict[str, Any]) -> str:
    """Of any engine."""
    own = {name: figures[name] for name in ("kernel", "fallback", "onnxruntime") if figures.get(name) is not None}
    return (
        f"{figures['engine']}: loaded in {figures['load_s']} s, "
        f"prefill {figures['prompt_tokens'] - figures['reused_tokens']} tokens at {figures['prefill_tok_s']} tok/s, "
        f"decode {figures['answer_tokens']} tokens at {figures['decode_tok_s']} tok/s, "
        f"first token after {figures['first_token_s']} s; peak RSS {figures['peak_rss_mib']} MiB; "
        f"{''.join(f'{name} {value}, ' for name, value in own.items())}{figures['threads']} threads, "
        f"seed {figures['seed']}; ended by: {figures['done_reason']}"
    )


def _native_line(figures: dict[str, Any]) -> str:
    return (
        f"prefill {figures['prompt_tokens'] - figures['reused_tokens']} tokens at {figures['prefill_tok_s']} tok/s, "
        f"decode {figures['answer_tokens']} tokens at {figures['decode_tok_s']} tok/s "
        f"({figures['accepted_tokens']} of {figures['drafted_tokens']} drafted came true), "
        f"{_head_words(figures['head_rows_reread'])}first token after {figures['first_token_s']} s; "
        f"weights {figures['weights_mib']} MiB mapped, KV cache {figures['kv_cache_mib']} MiB, "
        f"peak RSS {figures['peak_rss_mib']} MiB; {figures['isa']}, {figures['threads']} threads, "
        f"seed {figures['seed']}; ended by: {figures['done_reason']}"
    )


def _head_words(rows: float | None) -> str:
    return "" if rows is None else f"{rows} rows of the head read again a token, "
