"""What is said of an answer, the same for every engine, so that they can be compared."""

from typing import Any

from edgebit.engines.engine import TextEngine
from edgebit.runtime.generation import Answer
from edgebit.runtime.memory import peak_rss_bytes
from edgebit.runtime.sampler import SamplingParams


def answer_figures(engine: TextEngine, answer: Answer, sampling: SamplingParams) -> dict[str, Any]:
    """Engine, tokens, tok/s, seconds to load and to the first token, memory in MiB; then the engine's own figures."""
    decoded = max(len(answer.tokens) - 1, 0)  # the first token comes with the prefill
    return {
        "engine": engine.name,
        "load_s": round(engine.load_s, 4),
        "prompt_tokens": answer.prompt_tokens,
        "reused_tokens": answer.reused_tokens,
        "answer_tokens": len(answer.tokens),
        "prefill_tok_s": _rate(answer.prompt_tokens - answer.reused_tokens, answer.prompt_ns),
        "decode_tok_s": _rate(decoded, answer.decode_ns),
        "first_token_s": round(answer.prompt_ns / 1e9, 4),
        "peak_rss_mib": round(peak_rss_bytes() / 2**20, 1),
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "done_reason": answer.done_reason,
        **engine.figures(),
    }


def _rate(tokens: int, nanoseconds: int) -> float:
    return round(tokens / nanoseconds * 1e9, 2) if nanoseconds else 0.0
