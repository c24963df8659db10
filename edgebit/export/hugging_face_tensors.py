"""The tensors of a folder for transformers, chunk by chunk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from edgebit.bundle.model_format import Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.export.dense_weights import dense_chunks
from edgebit.export.float_types import FloatType, to_float_type
from edgebit.export.hugging_face_config import TENSOR_NAMES
from edgebit.export.hugging_face_form import Form
from edgebit.ternary.layouts import pack_quarter_rows

_DTYPES: dict[FloatType, Literal["BF16", "F16", "F32"]] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """A tensor to be written."""

    name: str
    dtype: Literal["U8", "BF16", "F16", "F32"]  # BF16 as its bits, uint16
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[NDArray[Any]]]


def hugging_face_tensors(checkpoint: Checkpoint, head: Checkpoint, form: Form) -> Iterator[SafetensorsTensor]:
    """Every tensor, in the order of the layers; `head`: where the head's rows are read from."""
    conf, dtype = checkpoint.config.conf, _DTYPES[form.dtype]
    for role, layer in conf.roles():
        if role == Role.ROPE_INV_FREQ or (role == Role.HEAD and conf.head_tied):
            continue
        name, shape = f"{TENSOR_NAMES[role].format(layer)}.weight", conf.shape_of(role)
        if role.is_projection:
            write = _packed if form.linear_class is not None else _dense
            yield from write(checkpoint, role, layer, form, name)
        elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
            source = head if role == Role.HEAD else checkpoint
            yield SafetensorsTensor(name, dtype, shape, _rows(source, role, form.dtype))
        else:
            yield SafetensorsTensor(name, dtype, shape[1:], _vector(checkpoint, role, layer, form.dtype))


def _packed(checkpoint: Checkpoint, role: Role, layer: int, form: Form, name: str) -> Iterator[SafetensorsTensor]:
    """The packed weights and, behind them, the scale, which is known once those are read."""
    rows, columns = checkpoint.config.conf.shape_of(role)
    kept = {}

    def weights() -> Iterator[NDArray[Any]]:
        projection = checkpoint.projection(role, layer)
        kept["scale"] = to_float_type(form.stored(projection.scales), form.dtype)
        yield pack_quarter_rows(projection.weights)

    yield SafetensorsTensor(name, "U8", (rows // 4, columns), weights)
    yield SafetensorsTensor(f"{name}_scale", _DTYPES[form.dtype], (1,), lambda: iter([kept["scale"]]))


def _dense(checkpoint: Checkpoint, role: Role, layer: int, form: Form, name: str) -> Iterator[SafetensorsTensor]:
    def weights() -> Iterator[NDArray[Any]]:
        for part in dense_chunks(checkpoint.projection(role, layer), checkpoint.scaling(role, layer)):
            yield to_float_type(part, form.dtype)

    yield SafetensorsTensor(name, _DTYPES[form.dtype], checkpoint.config.conf.shape_of(role), weights)


def _rows(source: Checkpoint, role: Role, kind: FloatType) -> Callable[[], Iterator[NDArray[Any]]]:
    """As they are stored, or as float32."""
    return lambda: (values if kind == "float32" else stored for stored, values in source.rows(role))


def _vector(checkpoint: Checkpoint, role: Role, layer: int, kind: FloatType) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: iter([to_float_type(checkpoint.vector(role, layer), kind)])
