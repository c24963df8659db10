"""An adapter in a decoder: pairs are put beside its frozen projections, trained, and taken out again."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebit.bundle.part_file import faults_named
from edgebit.bundle.work_folder import work_folder
from edgebit.checkpoint.hugging_face.lora_config import CONFIG_NAME, MAX_ALPHA, LoraConfig
from edgebit.checkpoint.hugging_face.peft_folder import (
    WEIGHTS_NAME,
    LowRankPair,
    PeftAdapter,
    Place,
    module_name,
    write_peft_folder,
)
from edgebit.errors import TrainError
from edgebit.train.decoder import Decoder
from edgebit.train.lora.layers import FrozenBitLinear, LoraLinear
from edgebit.train.lora.targets import ALL_LINEAR, target_roles


def add_lora(decoder: Decoder, config: LoraConfig) -> None:
    """Put a pair, of torch's generator, beside each target of a frozen decoder; pairs are what is trained now.

    Raises TrainError on targets that there are not, and on a rank that is none.
    """
    if config.rank < 1:
        raise TrainError(f"rank {config.rank}: a side path needs a rank of 1 at least")
    if not 0 < config.alpha <= MAX_ALPHA:
        raise TrainError(f"alpha {config.alpha:g}: more than 0 is needed, up to {MAX_ALPHA:g}")
    targets = config.target_modules
    roles = target_roles((targets,) if isinstance(targets, str) else targets)
    for layer in range(decoder.shape.num_hidden_layers):
        for role in roles:
            name = module_name((layer, role))
            _put_beside(decoder, (layer, role), config.rank_of(name), config.scale_of(name), config.dropout)


def load_adapter(decoder: Decoder, adapter: PeftAdapter) -> None:
    """Put an adapter's pairs beside a frozen decoder's projections. Raises TrainError where they do not fit."""
    for place, pair in adapter.pairs.items():
        layer = _put_beside(decoder, place, pair.rank, pair.scale, adapter.config.dropout)
        for linear, values in ((layer.lora_A, pair.a), (layer.lora_B, pair.b)):
            if linear.weight.shape != values.shape:
                raise TrainError(
                    f"{module_name(place)}: the adapter has {list(values.shape)}, the base "
                    f"{list(linear.weight.shape)}: the adapter is of another base"
                )
            linear.weight.data = torch.from_numpy(np.array(values))


def adapter_of(decoder: Decoder, config: LoraConfig, base_sha256: tuple[str, ...] = ()) -> PeftAdapter:
    """The pairs as they are now, and as settings those that peft reads. Raises TrainError where one is not finite."""
    pairs = {}
    for place, layer in lora_layers(decoder):
        pair = LowRankPair(_values(layer.lora_A.weight), _values(layer.lora_B.weight), layer.scale)
        if not (np.isfinite(pair.a).all() and np.isfinite(pair.b).all()):
            raise TrainError(f"{module_name(place)}: the trained pair is not finite. Lower the learning rate")
        pairs[place] = pair
    names = tuple(dict.fromkeys(role.name.lower() for _, role in pairs))
    return PeftAdapter(replace(config, target_modules=names), pairs, base_sha256)


def save_adapter(folder: Path, adapter: PeftAdapter) -> None:
    """Write peft's two files into `folder`, each whole or not at all, the weights last. Raises TrainError."""
    with ExitStack() as stack, faults_named(folder, TrainError):
        folder.mkdir(parents=True, exist_ok=True)
        made = stack.enter_context(work_folder(folder / WEIGHTS_NAME))
        write_peft_folder(made, adapter)
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            (made / name).replace(folder / name)


def lora_layers(decoder: Decoder) -> Iterator[tuple[Place, LoraLinear]]:
    """The layers that have a pair, in the order of layers and roles."""
    for layer in range(decoder.shape.num_hidden_layers):
        for role in target_roles((ALL_LINEAR,)):
            module = decoder.get_submodule(module_name((layer, role)))
            if isinstance(module, LoraLinear):
                yield (layer, role), module


def _put_beside(decoder: Decoder, place: Place, rank: int, scale: float, dropout: float) -> LoraLinear:
    name = module_name(place)
    if place[0] >= decoder.shape.num_hidden_layers:
        raise TrainError(
            f"{name}: the base has {decoder.shape.num_hidden_layers} layers: the adapter is of another base"
        )
    parent, _, last = name.rpartition(".")
    frozen = decoder.get_submodule(name)
    assert isinstance(frozen, FrozenBitLinear)
    layer = LoraLinear(frozen, rank, scale, dropout)
    setattr(decoder.get_submodule(parent), last, layer)
    return layer


def _values(weight: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = weight.detach().cpu().float().contiguous().numpy()
    return values
