"""Adapters with random matrices, for a model of any shape."""

import numpy as np

from edgebit.adapters import stored_pair
from edgebit.bundle.adapter_format import AdapterFile
from edgebit.bundle.model_format import PROJECTIONS, Conf, Encoding, Role
from edgebit.checkpoint.hugging_face.peft_folder import LowRankPair
from edgebit.runtime.model import Model


def random_adapter(
    model: Model,
    conf: Conf,
    *,
    seed: int = 0,
    encoding: Encoding = Encoding.F16,
    roles: tuple[Role, ...] = PROJECTIONS,
    rank: int = 0,
) -> AdapterFile:
    """A pair for those projections of each layer; rank 0: another of 1 to 20 for each.

    What a side path adds is about as large as what its projection gives, so that no test passes without it.
    """
    random = np.random.default_rng(seed)
    pairs = []
    for layer in range(conf.n_layers):
        for role in roles:
            rows, columns = conf.shape_of(role)
            r = rank or int(random.integers(1, 21))
            a, b = (random.standard_normal(shape).astype("<f4") for shape in ((r, columns), (rows, r)))
            pairs.append(stored_pair((layer, role), LowRankPair(a, b, float(np.float32(0.5 / np.sqrt(r)))), encoding))
    return AdapterFile(f"random-{seed}", model.weights_fingerprint(), tuple(pairs))
