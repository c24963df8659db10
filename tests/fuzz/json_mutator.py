"""Changes a JSON text somewhere inside, so that what comes out is JSON still: a mutator for coverage-guided fuzzing."""

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

_ODD = (
    None, True, False, 0, -1, 1, 2, 255, 65536, 2**31, 2**32 - 1, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", " ", "\u2581", "\ud800", "\x00", "a" * 300, "../x", "{{ 1 }}", "<0x41>", [], {}, [[]], {"": None},
)  # fmt: skip
_DEEPEST = 40


def mutate_json(data: bytes, max_size: int, seed: int, fallback: Callable[[bytes, int], bytes]) -> bytes:
    """`data` with one to three changes; what `fallback` makes of it where it is no JSON, or has become too long."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return fallback(data, max_size)
    chance = random.Random(seed)
    root = [value]
    for _ in range(chance.randint(1, 3)):
        _change(root, chance)
    made = json.dumps(root[0] if root else None).encode()
    return made if len(made) <= max_size else fallback(data, max_size)


def _change(root: list[Any], chance: random.Random) -> None:
    """Replace, remove, double or move a value that is reached by steps at random."""
    within: Any = root
    key: Any = 0
    for _ in range(_DEEPEST):
        if not within:
            return
        key = chance.choice(list(within)) if isinstance(within, dict) else chance.randrange(len(within))
        if not isinstance(within[key], dict | list) or chance.random() < 0.1:
            break
        if not within[key]:
            break
        within = within[key]
    match chance.randrange(6):
        case 0 | 1:
            within[key] = deepcopy(chance.choice(_ODD))
        case 2:
            del within[key]
        case 3 if isinstance(within, list):
            within.insert(key, deepcopy(within[key]))
        case 3:
            within[chance.choice(("", "x", "type", "content"))] = deepcopy(within[key])
        case 4 if isinstance(within[key], int | float) and not isinstance(within[key], bool):
            within[key] = chance.choice((-within[key], within[key] + 1, within[key] * 1000, str(within[key])))
        case 4 if isinstance(within[key], str):
            text = within[key]
            at = chance.randrange(len(text) + 1)
            within[key] = text[:at] + chance.choice(("", "x", " ", "\u2581", "é", text)) + text[at + 1 :]
        case _:
            other = chance.choice(list(within)) if isinstance(within, dict) else chance.randrange(len(within))
            within[key], within[other] = within[other], within[key]
