"""A LoRA adapter as peft keeps it: a folder of adapter_config.json and adapter_model.safetensors.

Without torch. peft names a tensor base_model.model.<module>.lora_A.weight, [rank, in], and lora_B, [out, rank]; a
projection then computes y = W x + scale * B (A x), where x has not been rounded.
Source: peft 0.21, tuners/lora/layer.py and utils/save_and_load.py.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import PROJECTIONS, Conf, Role
from edgebit.checkpoint.hugging_face.families import PROJECTION_MODULES
from edgebit.checkpoint.hugging_face.lora_config import CONFIG_NAME, LoraConfig, read_lora_config
from edgebit.checkpoint.hugging_face.safetensors_file import SafetensorsFile, as_float32, write_safetensors
from edgebit.checkpoint.hugging_face.tensor_source import FLOAT_DTYPES
from edgebit.errors import CheckpointError

WEIGHTS_NAME = "adapter_model.safetensors"
BASE_KEY = "edgebit.base_sha256"  # in the weights' metadata: SHA-256 of each weight file of the base, by commas
_PREFIX = "base_model.model."
_TENSOR_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_LAYER_NUMBER = re.compile(r"\.layers\.(\d{1,6})\.")

Place = tuple[int, Role]  # a projection: its layer and role


@dataclass(frozen=True, slots=True)
class LowRankPair:
    """What an adapter adds to one projection's output: scale * b @ (a @ x)."""

    a: NDArray[np.float32]  # [rank, in]
    b: NDArray[np.float32]  # [out, rank]
    scale: float

    @property
    def rank(self) -> int:
        return len(self.a)

    def product(self) -> NDArray[np.float32]:
        """The matrix that it adds, [out, in]; infinite where float32 ends."""
        with np.errstate(over="ignore", invalid="ignore"):
            product: NDArray[np.float32] = np.float32(self.scale) * (self.b @ self.a)
        return product


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """An adapter: its settings, and the pair of each projection that it changes."""

    config: LoraConfig
    pairs: Mapping[Place, LowRankPair]  # in the order of layers and roles
    base_sha256: tuple[str, ...] = ()  # of the weight files it was trained on, where edgebit wrote it

    def check_base(self, conf: Conf, whose: str) -> None:
        """Raise CheckpointError where a pair does not fit the projections of a model, which `whose` names."""
        for (layer, role), pair in self.pairs.items():
            if layer >= conf.n_layers:
                advice = "The adapter was trained on another base"
                raise CheckpointError(f"{whose} has {conf.n_layers} layers, the adapter's last is {layer}. {advice}")
            rows, columns = conf.shape_of(role)
            found = len(pair.b), pair.a.shape[1]
            if found != (rows, columns):
                raise CheckpointError(
                    f"{whose}: {module_name((layer, role))} is [{rows}, {columns}], the adapter's pair is for "
                    f"[{found[0]}, {found[1]}]: it was trained on another base"
                )


def module_name(place: Place) -> str:
    """The name that transformers has for a projection: model.layers.0.self_attn.q_proj."""
    layer, role = place
    return PROJECTION_MODULES[role].format(layer)


def read_peft_folder(folder: Path) -> PeftAdapter:
    """Read and check an adapter.

    Raises CheckpointError naming file, key or tensor: where it is no plain LoRA of projections, a tensor of a pair is
    missing or has another shape than its rank gives, or a value is NaN or infinite.
    """
    config = read_lora_config(folder)
    path = folder / WEIGHTS_NAME
    if not path.is_file() and (folder / "adapter_model.bin").is_file():
        raise CheckpointError(f"{folder}: there is adapter_model.bin. Save it as safetensors: safe_serialization=True")
    with closing(SafetensorsFile(path)) as file:
        found = _tensors_by_place(file)
        pairs = {
            place: _read_pair(file, place, *_both(path, place, names), config) for place, names in sorted(found.items())
        }
        base = file.metadata.get(BASE_KEY, "")
    if not pairs:
        raise CheckpointError(f"{path}: there is no tensor in it: no adapter")
    return PeftAdapter(config, pairs, tuple(base.split(",")) if base else ())


def write_peft_folder(folder: Path, adapter: PeftAdapter) -> None:
    """Write both files into a folder that is there, as peft would."""
    tensors: dict[str, NDArray[np.float32]] = {}
    for place, pair in adapter.pairs.items():
        name = _PREFIX + module_name(place)
        tensors |= {f"{name}.lora_A.weight": pair.a, f"{name}.lora_B.weight": pair.b}
    metadata = {"format": "pt"} | ({BASE_KEY: ",".join(adapter.base_sha256)} if adapter.base_sha256 else {})
    described = {name: ("F32", values.shape) for name, values in tensors.items()}
    (folder / CONFIG_NAME).write_text(json.dumps(adapter.config.as_json(), indent=2, sort_keys=True) + "\n")
    write_safetensors(folder / WEIGHTS_NAME, described, _little_endian(tensors), metadata)


def _little_endian(tensors: Mapping[str, NDArray[np.float32]]) -> Iterator[NDArray[Any]]:
    return (values.astype("<f4", copy=False) for values in tensors.values())


def _tensors_by_place(file: SafetensorsFile) -> dict[Place, dict[str, str]]:
    """The names of the tensors A and B of each projection."""
    places: dict[Place, dict[str, str]] = {}
    for name in file.tensors:
        match = _TENSOR_NAME.fullmatch(name)
        place = _place_of(match[1]) if match else None
        if match is None or place is None:
            known = ", ".join(role.name.lower() for role in PROJECTIONS)
            raise CheckpointError(
                f"{file.path}: tensor {name} belongs to no projection. Known are lora_A and lora_B of {known}; "
                "neither embeddings nor the head can have a side path"
            )
        places.setdefault(place, {})[match[2]] = name
    return places


def _place_of(module: str) -> Place | None:
    number = _LAYER_NUMBER.search(module)
    layer = int(number[1]) if number else 0
    return next(((layer, role) for role in PROJECTIONS if module_name((layer, role)) == module), None)


def _both(path: Path, place: Place, names: Mapping[str, str]) -> tuple[str, str]:
    for part in "AB":
        if part not in names:
            raise CheckpointError(f"{path}: {module_name(place)} has no lora_{part}: half of a pair. Save it again")
    return names["A"], names["B"]


def _read_pair(file: SafetensorsFile, place: Place, a_name: str, b_name: str, config: LoraConfig) -> LowRankPair:
    module = module_name(place)
    a, b, rank = _read_matrix(file, a_name), _read_matrix(file, b_name), config.rank_of(module)
    for name, found in ((a_name, a.shape[0]), (b_name, b.shape[1])):
        if found != rank:
            raise CheckpointError(f"{file.path}: tensor {name} is of rank {found}; {CONFIG_NAME} asks for {rank}")
    return LowRankPair(a, b, config.scale_of(module))


def _read_matrix(file: SafetensorsFile, name: str) -> NDArray[np.float32]:
    info = file.tensors[name]
    if info.dtype not in FLOAT_DTYPES or len(info.shape) != 2:
        raise CheckpointError(
            f"{file.path}: tensor {name} is {info.dtype} {list(info.shape)}; a matrix of {', '.join(FLOAT_DTYPES)} is "
            "needed"
        )
    values = as_float32(file.read(name), info.dtype)
    if not np.isfinite(values).all():
        row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(values)))
        raise CheckpointError(
            f"{file.path}: tensor {name} holds {values[row, column]} at row {row}, column {column}: the training went "
            "astray. Train again with a lower learning rate"
        )
    return values
