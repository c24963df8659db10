"""The form in which a folder for transformers keeps weights and floats, chosen so that nothing is lost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import ActivationQuantisation, Granularity, Norms, Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.errors import ExportError
from edgebit.export.float_types import FloatType, fits, rounded
from edgebit.export.hugging_face_config import TENSOR_NAMES, HuggingFaceClass, LinearClass

_STORED_TYPES: dict[str, FloatType] = {"<u2": "bfloat16", "<f2": "float16", "<f4": "float32"}


@dataclass(frozen=True, slots=True)
class Form:
    """How scales and floats are kept. transformers loads a model in one type, so all floats are of one."""

    linear_class: LinearClass | None  # of packed weights; None: code x scale as floats, which take no int8 activations
    dtype: FloatType

    def stored(self, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is stored for `scales`, float32 values of `dtype`."""
        return rounded(np.float32(1) / scales if self.linear_class == "bitlinear" else scales, self.dtype)

    def holds(self, scales: NDArray[np.float32]) -> bool:
        """Whether the scales come back to the bit."""
        stored = self.stored(scales)
        return np.array_equal(np.float32(1) / stored if self.linear_class == "bitlinear" else stored, scales)


_PACKED = (  # the first that holds all of a model is taken; the last holds any
    Form("bitlinear", "bfloat16"),
    Form("autobitlinear", "bfloat16"),
    Form("bitlinear", "float32"),
    Form("autobitlinear", "float32"),
)
_DENSE = (Form(None, "float16"), Form(None, "bfloat16"), Form(None, "float32"))


def choose_form(checkpoint: Checkpoint, kind: HuggingFaceClass, head: Checkpoint) -> Form:
    """The first form that holds every scale, norm and row to the bit.

    Packed weights where a model takes int8 activations, as transformers' packed layers do; floats otherwise.
    Raises ExportError where transformers has no form that computes the same.
    """
    conf = checkpoint.config.conf
    if conf.activation_quantisation == ActivationQuantisation.INT8:
        _check_packable(checkpoint)
        possible = [form for form in _PACKED if form.linear_class == "autobitlinear" or kind.model_type != "bitnet"]
    elif conf.norms & ~Norms.QK_NORM:
        raise ExportError("this model was trained with float activations; transformers has its norms with int8 alone")
    else:
        possible = list(_DENSE)
    possible = [form for form in possible if form.dtype == "float32" or _floats_fit(checkpoint, head, form.dtype)]
    for role, layer in conf.roles():
        if role.is_projection and len(possible) > 1:
            scales = checkpoint.projection(role, layer).scales
            possible = [form for form in possible if form == possible[-1] or form.holds(scales)]
    return possible[0]


def _check_packable(checkpoint: Checkpoint) -> None:
    conf = checkpoint.config.conf
    for role, layer in conf.roles():
        if role.is_projection:
            granularity, rows = checkpoint.scaling(role, layer).granularity, conf.shape_of(role)[0]
            if granularity != Granularity.TENSOR or rows % 4:
                raise ExportError(
                    f"{TENSOR_NAMES[role].format(layer)} has {rows} rows and one scale a {granularity.name.lower()}; "
                    "transformers' packed form has a multiple of 4 and one scale a tensor"
                )


def _floats_fit(checkpoint: Checkpoint, head: Checkpoint, dtype: FloatType) -> bool:
    """Whether rows and norms are of the type."""
    for role, layer in checkpoint.config.conf.roles():
        if role in (Role.TOKEN_EMBEDDING, Role.HEAD):
            stored, _ = next(iter((head if role == Role.HEAD else checkpoint).rows(role)))
            if _STORED_TYPES[stored.dtype.newbyteorder("<").str] != dtype:
                return False
        elif not role.is_projection and role != Role.ROPE_INV_FREQ and not fits(checkpoint.vector(role, layer), dtype):
            return False
    return True
