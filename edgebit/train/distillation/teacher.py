"""A float model of Llama's kind: the teacher, and the ternary student that begins as a copy of it."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from edgebit.bundle.model_format import Norms, Role
from edgebit.checkpoint.hugging_face.families import FLOAT_FAMILIES
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.matching import match_family
from edgebit.checkpoint.hugging_face.safetensors_file import as_float32
from edgebit.checkpoint.hugging_face.tensor_folder import TensorFolder
from edgebit.checkpoint.opening import open_float_model
from edgebit.train.batch import batch_of
from edgebit.train.checkpoint_shape import SUB_NORMS, shape_of
from edgebit.train.decoder import Decoder, Layer
from edgebit.train.rows import Row

Form = Literal["bitnet", "llama"]  # of a student: with sub-norms, or without as the teacher
_MEASURED_ROWS = 16


def read_teacher(folder: Path) -> Decoder:
    """The decoder of an ordinary checkpoint, in float32, none of whose parameters is trained.

    Raises CheckpointError where it cannot be read, or is ternary, and TrainError where the decoder cannot compute it.
    """
    with closing(open_float_model(folder)) as checkpoint:
        norms = SUB_NORMS if SUB_NORMS in checkpoint.config.conf.norms else Norms(0)
        decoder = Decoder(shape_of(checkpoint, norms=norms), ternary=False)
        roles = [each for each in checkpoint.config.conf.roles() if each[0] != Role.ROPE_INV_FREQ]
    if not norms:
        remove_sub_norms(decoder)
    family = match_family(read_json(folder / "config.json"), str(folder), FLOAT_FAMILIES)
    values = {}
    with closing(TensorFolder(folder)) as tensors:
        for role, layer in roles:
            name = family.tensor_name(role, layer)
            if role != Role.HEAD or not decoder.shape.tie_word_embeddings:
                values[name] = torch.from_numpy(as_float32(tensors.read(name), tensors.info(name).dtype).copy())
    decoder.load_state_dict(values)
    decoder.requires_grad_(False)
    decoder.eval()
    return decoder


def student_of(teacher: Decoder, form: Form, rows: Sequence[Row]) -> Decoder:
    """A ternary decoder with the teacher's weights as latent ones.

    A sub-norm cannot be an identity: it divides by the length of its input. Its weights begin as the mean length
    (root mean square) that the teacher has there on some of the `rows`, so that it passes on what it gets in size.
    """
    student = Decoder(teacher.shape, ternary=True)
    state = dict(teacher.state_dict())
    if form == "llama":
        remove_sub_norms(student)
    elif not has_sub_norms(teacher):
        state |= _sub_norm_weights(teacher, rows)
    student.load_state_dict({name: value.clone() for name, value in state.items()})
    return student


def remove_sub_norms(decoder: Decoder) -> None:
    """Make it a model of Llama's kind."""
    for layer in layers_of(decoder):
        layer.self_attn.attn_sub_norm = nn.Identity()
        layer.mlp.ffn_sub_norm = nn.Identity()


def has_sub_norms(decoder: Decoder) -> bool:
    """Whether the decoder is a BitNet, not of Llama's kind."""
    return not isinstance(layers_of(decoder)[0].mlp.ffn_sub_norm, nn.Identity)


def layers_of(decoder: Decoder) -> list[Layer]:
    """The blocks, in order."""
    return [layer for layer in decoder.model.layers if isinstance(layer, Layer)]


def _sub_norm_weights(teacher: Decoder, rows: Sequence[Row]) -> dict[str, Tensor]:
    names = [name for name, _ in teacher.named_modules() if name.endswith("_sub_norm")]
    batch = batch_of(rows[:_MEASURED_ROWS])
    with _watching(teacher, names) as lengths, torch.no_grad():
        teacher.model(batch.ids, batch.positions, batch.documents)
    sizes = {"attn_sub_norm": teacher.shape.hidden_size, "ffn_sub_norm": teacher.shape.intermediate_size}
    return {f"{name}.weight": torch.full((sizes[name.rpartition(".")[2]],), lengths[name]) for name in names}


@contextmanager
def _watching(decoder: Decoder, names: Sequence[str]) -> Iterator[dict[str, float]]:
    """The root mean square of what goes into modules, by their names."""
    found: dict[str, float] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name] = inputs[0].square().mean(dim=-1).sqrt().mean().item()

        return decoder.get_submodule(name).register_forward_pre_hook(look)

    handles = [watch(name) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
