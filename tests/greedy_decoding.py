"""Greedy generation with a decoder that is trained, many prompts at once, to measure it."""

from collections.abc import Collection, Sequence

import torch

from edgebit.train.decoder import Decoder


@torch.no_grad()
def greedy(
    decoder: Decoder, prompts: Sequence[Sequence[int]], *, stop: Collection[int], limit: int, device: str = "cpu"
) -> list[list[int]]:
    """The most likely continuation of each prompt, up to a token of `stop`, which is left out, or to `limit` tokens.

    All is computed anew for each token: no KV cache. Prompts of one length go together, so that none is padded.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    by_length: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(number)
    for going in by_length.values():
        ids = torch.tensor([list(prompts[number]) for number in going], device=device)
        for _ in range(limit):
            positions = torch.arange(ids.shape[1], device=device).expand_as(ids)
            hidden = decoder.model(ids, positions, torch.zeros_like(ids))[:, -1]
            best = decoder.head(hidden).argmax(dim=-1)
            kept = [row for row, token in enumerate(best.tolist()) if token not in stop]
            if not kept:
                break
            ids = torch.cat((ids, best[:, None]), dim=1)[kept]
            going = [going[row] for row in kept]
            for row, number in enumerate(going):
                answers[number].append(int(ids[row, -1]))
    return answers
