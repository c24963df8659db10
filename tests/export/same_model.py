"""Whether two checkpoints are one model."""

import dataclasses

import numpy as np

from edgebit.bundle.model_format import Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.export.dense_weights import dense_chunks


def assert_same_model(found: Checkpoint, wanted: Checkpoint, *, scale_error: float = 0.0) -> None:
    """Every code, code x scale, norm and row to the bit; frequencies, which are computed anew, to 3e-7 of themselves.

    scale_error: how far a scale may be, of itself
    """
    ours, theirs = found.config, wanted.config
    for field in dataclasses.fields(theirs.conf):
        name = field.name
        if name not in ("bos_token", "stop_tokens"):
            values = [getattr(conf, name) for conf in (ours.conf, theirs.conf)]
            equal = np.float32(values[0]) == np.float32(values[1]) if isinstance(values[0], float) else None
            assert values[0] == values[1] if equal is None else equal, name
    np.testing.assert_allclose(ours.rope_inv_freq, theirs.rope_inv_freq, rtol=3e-7)
    for role, layer in theirs.conf.roles():
        if role.is_projection:
            one, other = found.projection(role, layer), wanted.projection(role, layer)
            assert np.array_equal(one.weights, other.weights), (role, layer)
            weights = [
                np.concatenate(list(dense_chunks(projection, model.scaling(role, layer))))
                for projection, model in ((one, found), (other, wanted))
            ]  # one scale a row may be said as one a tensor, where all are the same
            np.testing.assert_allclose(*weights, rtol=scale_error, atol=0, err_msg=f"{role.name} {layer}")
        elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
            rows = [np.concatenate([values for _, values in model.rows(role)]) for model in (found, wanted)]
            assert rows[0].tobytes() == rows[1].tobytes(), role
        elif role != Role.ROPE_INV_FREQ:
            assert found.vector(role, layer).tobytes() == wanted.vector(role, layer).tobytes(), (role, layer)
