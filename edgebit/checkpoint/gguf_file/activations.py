"""What the activations of a GGUF model were rounded to in training, as far as the file gives evidence of it.

No key of GGUF's says it; our own export writes one. BitNet's architectures always have int8; of ternary models with
Llama's or Qwen's, some were trained with int8 (Llama3-8B-1.58, Falcon3-1.58bit), others with floats (TriLM, Bonsai).
"""

import re
from collections.abc import Collection, Mapping

from edgebit.bundle.model_format import ActivationQuantisation, Granularity, Scaling
from edgebit.checkpoint.gguf_file.architectures import Architecture
from edgebit.checkpoint.gguf_file.metadata import Value
from edgebit.checkpoint.hints import ActivationsHint
from edgebit.checkpoint.own_gguf_keys import ACTIVATIONS
from edgebit.errors import CheckpointError

_INT8_NAMES = re.compile(r"1\.58|bitnet|falcon-?3|falcon-?e\b", re.IGNORECASE)
_FLOAT_NAMES = re.compile(r"trilm|bonsai", re.IGNORECASE)
_MODE: Mapping[ActivationsHint, ActivationQuantisation] = {
    "int8": ActivationQuantisation.INT8,
    "float": ActivationQuantisation.INT15,
}


def find_activations(
    architecture: Architecture, name: str, types: Collection[str], scaling: Scaling, said: ActivationsHint | None
) -> tuple[ActivationQuantisation, str | None]:
    """How activations are rounded, and a note where that is a guess.

    types: of the projections' tensors; scaling: of one of them; said: by the user, or by the file's own key
    """
    if said is not None:
        return _MODE[said], None
    if architecture.int8_activations:
        return _MODE["int8"], None
    if _FLOAT_NAMES.search(name):
        return _MODE["float"], None
    if _INT8_NAMES.search(name) or "I2_S" in types:  # bitnet.cpp computes with int8 always
        return _MODE["int8"], None
    if scaling.granularity == Granularity.GROUP:
        return _MODE["float"], None
    note = (
        "the file does not say whether the model was trained with int8 or float activations: float is taken (15 bits), "
        "which serves both. If it was int8, --activations int8 gives its own arithmetic and about twice the speed"
    )
    return _MODE["float"], note


def stated_activations(fields: Mapping[str, Value], where: str) -> ActivationsHint | None:
    """What edgebit's own key says; None where there is none. Raises CheckpointError at a value that it never has."""
    value = fields.get(ACTIVATIONS)
    for known in _MODE:
        if isinstance(value, str) and value == known:
            return known
    if value is not None:
        raise CheckpointError(f"{where}: {ACTIVATIONS} is {value!r}; known are {', '.join(_MODE)}")
    return None
