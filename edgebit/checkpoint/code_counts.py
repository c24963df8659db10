"""How many of a model's ternary weights are -1, 0 and +1."""

from collections.abc import Mapping

import numpy as np

from edgebit.bundle.model_format import Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.progress import Progress, unwatched

Counts = Mapping[tuple[Role, int], tuple[int, int, int]]  # of a projection, by role and layer: of -1, 0 and +1


def count_codes(checkpoint: Checkpoint, progress: Progress = unwatched) -> Counts:
    """Of every projection, one in memory at a time. Raises CheckpointError as reading them does."""
    projections = [(role, layer) for role, layer in checkpoint.config.conf.roles() if role.is_projection]
    counts = {}
    for done, (role, layer) in enumerate(projections):
        progress(f"{role.name.lower()}[{layer}]", done, len(projections))
        weights = checkpoint.projection(role, layer).weights
        minus, plus = int(np.count_nonzero(weights == -1)), int(np.count_nonzero(weights == 1))
        counts[role, layer] = (minus, weights.size - minus - plus, plus)
    return counts
