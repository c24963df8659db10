"""How fast an engine is on this machine: short measurements that are bounded in time, for `edgebit plan` and `tune`."""

import time
from dataclasses import dataclass
from statistics import median

from edgebit.runtime.engine import Engine
from edgebit.runtime.token_ids import spread_ids

_STEPS_LEAST = 5  # decode steps, however long they take
_WARM_UP = 2  # steps that are not counted: pages are mapped and cores wake up in them


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Tokens a second, from medians."""

    prefill_tok_s: float
    decode_tok_s: float
    context: int  # tokens that were there when decoding began


def measure_speed(engine: Engine, *, prompt: int, batch_len: int, budget_s: float) -> Speed:
    """Prefill `prompt` tokens in the empty engine, again and again, then decode greedily, token by token.

    It takes about `budget_s` seconds, half of it for each: where one prefill takes longer it is cut, to one pass of
    `batch_len` tokens at least, and some steps are decoded in any case.
    """
    prompt = max(1, min(prompt, engine.ctx_len - _WARM_UP - _STEPS_LEAST - 1))
    ids = spread_ids(engine.model.info.vocab_size, prompt)
    began = time.monotonic()
    prefills = [_prefill(engine, ids, batch_len, began + budget_s / 2)]  # seconds a token
    while time.monotonic() < began + budget_s / 2:
        prefills.append(_prefill(engine, ids, batch_len, began + budget_s / 2))
    context = engine.length()
    steps: list[float] = []
    while len(steps) < _WARM_UP + _STEPS_LEAST or time.monotonic() - began < budget_s:
        if engine.length() >= engine.ctx_len:
            engine.truncate(length=context)
        steps.append(_seconds(engine, [ids[len(steps) % prompt]], head=True))
    return Speed(
        prefill_tok_s=1 / median(prefills[1:] or prefills),  # memory was touched first in the first
        decode_tok_s=1 / median(steps[_WARM_UP:]),
        context=context,
    )


def _prefill(engine: Engine, ids: list[int], batch_len: int, end: float) -> float:
    """Seconds a token; it is cut at `end`, but not before the first pass."""
    engine.truncate()
    seconds = 0.0
    while engine.length() == 0 or (engine.length() < len(ids) and time.monotonic() < end):
        tokens = ids[engine.length() : engine.length() + batch_len]
        seconds += _seconds(engine, tokens, head=engine.length() + len(tokens) == len(ids))
    return seconds / engine.length()


def _seconds(engine: Engine, tokens: list[int], *, head: bool) -> float:
    """Of a call that computes no more of the head than the last token's best logit needs, or nothing of it."""
    wanted = [False] * len(tokens)
    wanted[-1] = head
    began = time.monotonic()
    engine.eval_batch(tokens, [0] * len(tokens), wanted, n_best=1)
    return time.monotonic() - began
