"""A ternary model as the frozen base of an adapter: a master, or any model of its kind that is packed already."""

from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgebit.bundle.model_format import PER_TENSOR, ActivationQuantisation, Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.errors import TrainError
from edgebit.export.hugging_face_config import TENSOR_NAMES
from edgebit.progress import Progress, unwatched
from edgebit.train.bit_linear import BitLinear, ternary
from edgebit.train.checkpoint_shape import SUB_NORMS, shape_of
from edgebit.train.decoder import Decoder
from edgebit.train.lora.layers import FrozenBitLinear
from edgebit.train.master import read_master
from edgebit.train.origin import weight_sums


def open_base(path: Path, progress: Progress = unwatched) -> tuple[Decoder, tuple[str, ...]]:
    """The decoder of the model at `path`, no parameter of which is trained, and SHA-256 of its weight files.

    Raises CheckpointError where it cannot be read, TrainError where it is no BitNet with sub-norms.
    """
    with closing(open_checkpoint(path)) as checkpoint:
        sums = weight_sums(checkpoint.weight_files(), progress)
        decoder = _frozen_master(path) if checkpoint.family == "bitnet-master" else _frozen_codes(checkpoint)
    decoder.requires_grad_(False)
    return decoder, sums


def _frozen_master(folder: Path) -> Decoder:
    """With the ternary weights that transformers computes, to the bit."""
    decoder = read_master(folder)
    with torch.no_grad():
        for name, module in list(decoder.named_modules()):
            if isinstance(module, BitLinear):
                _replace(decoder, name, FrozenBitLinear(ternary(module.weight)))
    return decoder


def _frozen_codes(checkpoint: Checkpoint) -> Decoder:
    _check_rounding(checkpoint)
    decoder = Decoder(shape_of(checkpoint, norms=SUB_NORMS))
    conf = checkpoint.config.conf
    values: dict[str, Tensor] = {}
    for role, layer in conf.roles():
        if role == Role.ROPE_INV_FREQ or (role == Role.HEAD and conf.head_tied):
            continue
        name = TENSOR_NAMES[role].format(layer)
        if role.is_projection:
            projection = checkpoint.projection(role, layer)
            weight = torch.from_numpy(projection.weights).float()
            _replace(decoder, name, FrozenBitLinear(weight, float(projection.scales[0])))
        elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
            rows = np.concatenate([rows for _, rows in checkpoint.rows(role)])
            values[f"{name}.weight"] = torch.from_numpy(rows)
        else:
            values[f"{name}.weight"] = torch.from_numpy(np.array(checkpoint.vector(role, layer)))
    decoder.load_state_dict(values)
    decoder.eval()
    return decoder


def _check_rounding(checkpoint: Checkpoint) -> None:
    conf = checkpoint.config.conf
    scalings = {checkpoint.scaling(role, layer) for role, layer in conf.roles() if role.is_projection}
    if conf.activation_quantisation != ActivationQuantisation.INT8 or scalings != {PER_TENSOR}:
        raise TrainError(
            f"{checkpoint.path} ({checkpoint.family}) has not int8 activations and one scale a projection, as BitNet "
            "models have, which adapters are trained on. Train with peft, and convert what it writes: edgebit adapter "
            "convert"
        )


def _replace(decoder: Decoder, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(decoder.get_submodule(parent), last, module)
