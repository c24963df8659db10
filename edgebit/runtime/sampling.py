"""How tokens are drawn where nobody said: as the model's makers advise, else greedily."""

from collections.abc import Mapping
from typing import Any

from edgebit.runtime.sampler import SamplingParams

# What a model's makers may advise, of SamplingParams: as what kind of number the sampler takes it, from what to what.
_ADVICE: dict[str, tuple[type[float] | type[int], float, float]] = {
    "temperature": (float, 0, 10),
    "top_k": (int, 0, 1 << 20),
    "top_p": (float, 0, 1),
    "min_p": (float, 0, 1),
    "repetition_penalty": (float, 0.01, 100),
}


def advised_sampling(given: object) -> dict[str, float]:
    """What the makers advise, of META's "generation", as far as it has numbers that the sampler takes."""
    if not isinstance(given, Mapping):
        return {}
    return {
        name: kind(value)
        for name, (kind, least, most) in _ADVICE.items()
        if isinstance(value := given.get(name), int | float) and not isinstance(value, bool) and least <= value <= most
    }


def choose_sampling(asked: Mapping[str, float | None], advice: Mapping[str, float], *, seed: int) -> SamplingParams:
    """Fields of SamplingParams as asked for; what is not (or None), as advised, else greedy."""
    values: dict[str, Any] = {**advice, **{name: value for name, value in asked.items() if value is not None}}
    return SamplingParams(**values, seed=seed)
