"""The projections that get a side path, by their names as in peft's target_modules."""

from collections.abc import Sequence

from edgebit.bundle.model_format import PROJECTIONS, Role
from edgebit.errors import TrainError

ALL_LINEAR = "all-linear"  # peft's word for every projection, without embedding and head
_BY_NAME = {role.name.lower(): role for role in PROJECTIONS}
_ROWS = ("embed_tokens", "lm_head")


def target_roles(names: Sequence[str]) -> tuple[Role, ...]:
    """The roles of projections, in the order of a layer.

    Raises TrainError on a name that no projection has, saying those there are.
    """
    wanted = set(_BY_NAME) if ALL_LINEAR in names else set(names)
    known = f"Known are {', '.join(_BY_NAME)}, and {ALL_LINEAR} for all of them"
    if not wanted:
        raise TrainError(f"no projection gets a side path. {known}")
    for name in names:
        if name in _ROWS:
            raise TrainError(f"{name} is no ternary projection: neither embedding nor head get a side path. {known}")
        if name not in (*_BY_NAME, ALL_LINEAR):
            raise TrainError(f"there is no projection {name!r}. {known}")
    return tuple(role for name, role in _BY_NAME.items() if name in wanted)
