"""Packs a trained master into the checkpoint that ships: ternary weights of two bits, the form of BitNet b1.58 2B4T."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgebit.train.bit_linear import absmean_codes, absmean_factor

PACKED_ALSO = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "response_schema.json")


def pack(codes: Tensor) -> Tensor:
    """Pack codes [out, in] of -1, 0, +1 to uint8 [out / 4, in].

    Row i * out / 4 + r of the codes, plus one, lies in bits 2i and 2i + 1 of stored row r, for i in 0..3.
    """
    quarters = (codes.to(torch.int16) + 1).reshape(4, codes.shape[0] // 4, codes.shape[1])
    packed = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
    return packed.to(torch.uint8)


def packed_tensors(master: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a master with each projection packed and its scale, mean|W|, beside it; all else as it is."""
    tensors: dict[str, Tensor] = {}
    for name, value in sorted(master.items()):
        tensors[name] = value.contiguous()
        if name.endswith("_proj.weight"):
            weight = value.float()
            tensors[name] = pack(absmean_codes(weight)).contiguous()
            tensors[f"{name}_scale"] = (1 / absmean_factor(weight)).reshape(1).to(torch.bfloat16)
    return tensors


def packed_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the packed form of a master's."""
    return {**config, "quantization_config": {**config["quantization_config"], "quantization_mode": "offline"}}


def pack_master(master: Path, folder: Path) -> None:
    """Write the packed checkpoint of the master in a folder; a model card and a licence there stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PACKED_ALSO:
        if (master / name).is_file():
            shutil.copyfile(master / name, folder / name)
    config = packed_config(json.loads((master / "config.json").read_text()))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = folder / "model.safetensors"
    save_file(packed_tensors(load_file(master / "model.safetensors")), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # save_file makes it readable for its owner alone
