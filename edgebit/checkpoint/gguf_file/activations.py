"""What the activations of a GGUF model were rounded to in training, as far as the file gives evidence of it.

No key says it. BitNet's architectures always have int8; of ternary models with Llama's or Qwen's, some were trained
with int8 (Llama3-8B-1.58, Falcon3-1.58bit), others with floats (TriLM, Bonsai).
"""

import re
from collections.abc import Collection

from edgebit.bundle.model_format import ActivationQuantisation, Scales, Scaling
from edgebit.checkpoint.gguf_file.architectures import Architecture
from edgebit.checkpoint.hints import ActivationsHint

_INT8_NAMES = re.compile(r"1\.58|bitnet|falcon-?3|falcon-?e\b", re.IGNORECASE)
_FLOAT_NAMES = re.compile(r"trilm|bonsai", re.IGNORECASE)
_MODE = {"int8": ActivationQuantisation.INT8, "float": ActivationQuantisation.INT15}


def find_activations(
    architecture: Architecture, name: str, types: Collection[str], scaling: Scaling, hint: ActivationsHint | None
) -> tuple[ActivationQuantisation, str | None]:
    """How activations are rounded, and a note where that is a guess.

    types: of the projections' tensors; scaling: of one of them
    """
    if hint is not None:
        return _MODE[hint], None
    if architecture.int8_activations:
        return _MODE["int8"], None
    if _FLOAT_NAMES.search(name):
        return _MODE["float"], None
    if _INT8_NAMES.search(name) or "I2_S" in types:  # bitnet.cpp computes with int8 always
        return _MODE["int8"], None
    if scaling.granularity == Scales.GROUP:
        return _MODE["float"], None
    note = (
        "the file does not say whether the model was trained with int8 or float activations: float is taken (15 bits), "
        "which serves both. If it was int8, --activations int8 gives its own arithmetic and about twice the speed"
    )
    return _MODE["float"], note
