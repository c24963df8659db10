"""One pass of the engine for several answers: packed together, computed, and handed to each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgebit.runtime.abi import TokenSet
from edgebit.runtime.drafting import Drafting
from edgebit.runtime.generation import Generation
from edgebit.runtime.token_engine import TokenEngine


@dataclass(frozen=True, slots=True)
class Share:
    """What one answer has of a pass."""

    generation: Generation
    tokens: Sequence[int]
    rows: int  # of logits, wanted for the last tokens

    @property
    def decodes(self) -> bool:
        """Whether it has no part of a prompt."""
        return not self.generation.prompt_left


def plan(
    generations: Sequence[Generation], *, batch_len: int, prompt_most: int | None, drafting: Drafting | None
) -> list[Share]:
    """What each answer computes in the next pass: first a token of all that decode, then parts of prompts.

    Answers that are done have no share. Prompts get what is left of batch_len, in equal parts, but not more than
    prompt_most tokens together while others decode: these wait for as long. A draft is tried where one answer is all
    there is: what it costs beside others nobody has measured, and a pass for several reads the weights for all of them.
    """
    going = [each for each in generations if not each.done]
    decoding = [each for each in going if not each.prompt_left]
    shares = []
    for each in decoding:
        tokens = each.next_tokens(drafting if len(going) == 1 else None)
        shares.append(Share(each, tokens, len(tokens)))
    left = max(batch_len - len(shares), 1)
    if decoding and prompt_most is not None:
        left = max(min(left, prompt_most), 1)
    prompts = sorted((each for each in going if each.prompt_left), key=lambda each: each.prompt_left)
    for position, each in enumerate(prompts):
        part = each.prompt_part(-(-left // (len(prompts) - position)))
        left -= len(part)
        if part:
            shares.append(Share(each, part, int(len(part) == each.prompt_left)))
    return shares


def compute(engine: TokenEngine, shares: Sequence[Share]) -> int:
    """One pass for all shares; gives how long it took, in nanoseconds. Raises as its eval_batch() does."""
    tokens: list[int] = []
    sequences: list[int] = []
    wanted: list[bool] = []
    allowed: list[TokenSet | None] = []
    for share in shares:
        tokens += share.tokens
        sequences += [share.generation.held.index] * len(share.tokens)
        wanted += [False] * (len(share.tokens) - share.rows) + [True] * share.rows
        allowed += share.generation.allowed(share.tokens, share.rows)
    reaches = [share.generation.reach(share.rows) for share in shares if share.rows]
    started = time.monotonic_ns()
    engine.eval_batch(
        tokens,
        sequences,
        wanted,
        n_best=max(reaches) if reaches and all(reaches) else 0,
        allowed=allowed if any(each is not None for each in allowed) else None,
    )
    return time.monotonic_ns() - started


def hand_out(
    engine: TokenEngine, shares: Sequence[Share], took_ns: int, drafting: Drafting | None
) -> list[tuple[Generation, list[str]]]:
    """Let each answer go on from what its share has computed; gives the text of the tokens that each has drawn."""
    shown, first_row = [], 0
    for share in shares:
        generation = share.generation
        if not share.rows:
            generation.take_prompt(share.tokens)
            continue
        decodes, accepted_before = share.decodes, generation.answer.accepted_tokens
        rows = [engine.logits(row) for row in range(first_row, first_row + share.rows)]
        shown.append((generation, generation.take_logits(share.tokens, rows)))
        first_row += share.rows
        engine.truncate(generation.held.index, len(generation.held.tokens))
        if decodes and drafting is not None and len(shares) == 1:
            drafting.record(generation.answer.accepted_tokens - accepted_before, took_ns)
    return shown
