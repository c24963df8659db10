"""How alike two engines' answers to the same prompt are, in tokens."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreement:
    """An answer beside the one that it is compared with."""

    equal_tokens: int  # from their beginning on
    parts_at: int | None  # the first place, from 0, where they differ, one's end among it; None: nowhere
    same_prompt: bool  # whether both engines made the same tokens of the prompt

    @property
    def is_equal(self) -> bool:
        """All of it: the answer's tokens, and those of the prompt that they answer."""
        return self.parts_at is None and self.same_prompt


def compare_tokens(found: Sequence[int], wanted: Sequence[int], *, same_prompt: bool = True) -> Agreement:
    """Compare an answer's tokens with those of another engine."""
    shorter = min(len(found), len(wanted))
    parting = next((at for at in range(shorter) if found[at] != wanted[at]), None)
    if parting is None and len(found) != len(wanted):
        parting = shorter
    return Agreement(shorter if parting is None else parting, parting, same_prompt)
