"""Whether a GGUF file has the tensors of its architecture: no less, no other shape, and no more."""

from edgebit.bundle.model_format import Conf, Role
from edgebit.checkpoint.gguf_file.architectures import Architecture
from edgebit.checkpoint.gguf_file.tensor_names import ROPE_FACTORS, scale_name, tensor_name
from edgebit.checkpoint.gguf_file.tensor_types import START_AGAIN
from edgebit.checkpoint.gguf_file.tensors import GgufTensors
from edgebit.errors import CheckpointError

_IGNORED_SUFFIX = ".attn_rot_embd"  # older files store the frequencies, which follow from the keys


def check_tensors(tensors: GgufTensors, architecture: Architecture, conf: Conf) -> None:
    """Raise CheckpointError naming the first tensor that is missing, unknown, or of the wrong shape or type."""
    expected = {ROPE_FACTORS}
    names = set(tensors.names())
    if ROPE_FACTORS in names:
        _check_shape(tensors, ROPE_FACTORS, (conf.head_dim // 2,))
    for role, layer in conf.roles():
        if role == Role.ROPE_INV_FREQ:
            continue
        name = tensor_name(role, layer)
        expected.add(name)
        if role == Role.HEAD and name not in names:
            continue  # it is the embedding
        rows, columns = conf.shape_of(role)
        if role.is_projection:
            _check_shape(tensors, name, (rows, columns))
            _check_ternary(tensors, name)
            factor = scale_name(role, layer)
            expected.add(factor)
            if factor in names:
                _check_shape(tensors, factor, (1,))
                _check_float(tensors, factor)
        elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
            _check_shape(tensors, name, (rows, columns))
            if tensors.type(name).name == "I2_S":
                raise CheckpointError(f"{tensors.where(name)} is of type I2_S, which an embedding or a head has never")
        else:
            _check_shape(tensors, name, (columns,))
            _check_float(tensors, name)
    unknown = [name for name in tensors.names() if name not in expected and not _is_ignored(name)]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise CheckpointError(
            f"{tensors.where(unknown[0])}{more}: architecture {architecture.name} has no such tensor, "
            "so the model would compute something else"
        )


def _is_ignored(name: str) -> bool:
    return name.removesuffix(".weight").endswith(_IGNORED_SUFFIX)


def _check_shape(tensors: GgufTensors, name: str, shape: tuple[int, ...]) -> None:
    found = tensors.shape(name)
    if found != shape:
        raise CheckpointError(f"{tensors.where(name)} has shape {list(found)}; the keys ask for {list(shape)}")


def _check_float(tensors: GgufTensors, name: str) -> None:
    if not tensors.type(name).is_float:
        raise CheckpointError(f"{tensors.where(name)} is of type {tensors.type(name).name}; F32, F16 or BF16 are known")


def _check_ternary(tensors: GgufTensors, name: str) -> None:
    kind = tensors.type(name)
    if not kind.is_ternary and not kind.is_float:
        raise CheckpointError(
            f"{tensors.where(name)} is of type {kind.name}, whose weights are not ternary. edgebit takes models "
            f"that were trained to ternary weights. If this is one of them: {START_AGAIN[0].lower()}{START_AGAIN[1:]}"
        )
