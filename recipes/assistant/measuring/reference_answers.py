"""What PyTorch answers: the reference implementation (transformers, peft) of the ternary model, and the float twin.

Greedy decoding as a fixed point: all tokens of a draft are predicted at once, the predictions are the next draft, and
what no longer changes is what greedy decoding gives token by token (Jacobi decoding; Santilli et al. 2023,
arXiv:2305.10427). A good first draft, such as another engine's answer, makes this a few passes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgebit.train.decoder import Decoder
from edgebit.train.master import read_master

ROWS = 48  # of one pass
LogitsOf = Callable[[Tensor], Tensor]  # token ids [rows, tokens] -> logits [rows, tokens, vocabulary]


def decoder_logits(decoder: Decoder) -> LogitsOf:
    """Of a decoder of edgebit.train."""

    def logits(ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        out: Tensor = decoder(ids, positions, torch.zeros_like(ids))
        return out

    return logits


def float_twin(folder: Path) -> LogitsOf:
    """Of the float model that was trained as the ternary one was."""
    return decoder_logits(read_master(folder))


def transformers_model(folder: Path) -> Any:
    """The checkpoint as transformers computes it, in float32."""
    import transformers

    with torch.compiler.set_stance("force_eager"):  # its unpacking is marked to be compiled, tensor by tensor
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(torch.float32).eval()


def transformers_logits(model: Any) -> LogitsOf:
    """Of a model of transformers, or one of peft."""

    def logits(ids: Tensor) -> Tensor:
        with torch.compiler.set_stance("force_eager"):
            out: Tensor = model(ids, use_cache=False).logits
        return out

    return logits


@torch.inference_mode()
def greedy_answers(
    logits_of: LogitsOf,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    *,
    stop: Sequence[int],
    limit: int,
) -> list[list[int]]:
    """The greedy answer to each prompt up to a token of `stop`, left out, or `limit` tokens; drafts: first guesses."""
    answers: list[list[int]] = [[] for _ in prompts]
    going = {number: [*draft, stop[0]] for number, draft in enumerate(drafts)}
    while going:
        order = sorted(going, key=lambda number: len(prompts[number]) + len(going[number]))
        for at in range(0, len(order), ROWS):
            numbers = order[at : at + ROWS]
            predicted = _predict(logits_of, [(prompts[number], going[number]) for number in numbers])
            for number, best in zip(numbers, predicted, strict=True):
                next_draft = _until_stop(best, stop)[:limit]
                if next_draft == going[number] and (next_draft[-1] in stop or len(next_draft) == limit):
                    answers[number] = [token for token in next_draft if token not in stop]
                    del going[number]
                else:
                    going[number] = next_draft
    return answers


def _until_stop(tokens: list[int], stop: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in stop), len(tokens) - 1)
    return tokens[: end + 1]


def _predict(logits_of: LogitsOf, pairs: Sequence[tuple[Sequence[int], list[int]]]) -> list[list[int]]:
    """What is most likely at each place of a draft and after its last, given all before it."""
    longest = max(len(prompt) + len(draft) for prompt, draft in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    for row, (prompt, draft) in enumerate(pairs):
        ids[row, : len(prompt) + len(draft)] = torch.tensor([*prompt, *draft])
    best = logits_of(ids).argmax(dim=-1)
    return [best[row, len(prompt) - 1 : len(prompt) + len(draft)].tolist() for row, (prompt, draft) in enumerate(pairs)]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers part, and how near the two tokens are there in the reference's logits."""

    number: int
    place: int
    gap: float  # logit of the reference's token less that of the other's


@torch.inference_mode()
def differences(
    logits_of: LogitsOf,
    prompts: Sequence[Sequence[int]],
    reference: Sequence[Sequence[int]],
    others: Sequence[Sequence[int]],
    stop: int,
) -> list[Difference]:
    """Each answer of `others` that is not the reference's."""
    found = []
    for number, (mine, other) in enumerate(zip(reference, others, strict=True)):
        if list(mine) == list(other):
            continue
        a, b = [*mine, stop], [*other, stop]
        place = next(place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        logits = logits_of(torch.tensor([[*prompts[number], *mine[:place]]]))[0, -1]
        found.append(Difference(number, place, float(logits[a[place]] - logits[b[place]])))
    return found
