"""The master of a trained model: a Hugging Face checkpoint in bfloat16 whose codes are those that were trained.

transformers loads it as BitNetForCausalLM and computes the codes from it at each forward, as edgebit does once.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgebit.bundle.part_file import faults_named
from edgebit.bundle.work_folder import work_folder
from edgebit.errors import TrainError
from edgebit.train.bit_linear import BitLinear, absmean_codes, absmean_factor
from edgebit.train.decoder import Decoder
from edgebit.train.master_config import read_config
from edgebit.train.shape import ModelShape

WEIGHTS = "model.safetensors"
_MARGIN = 1e-5  # of a weight over its scale to the threshold 1/2, which sums in another order do not reach


@dataclass(frozen=True, slots=True)
class Rounding:
    """What became of the latent weights on the way to bfloat16."""

    weights: int
    moved: int  # rounded to the neighbour of the nearest bfloat16, so that the code stays
    scale_error: float  # the greatest relative change of a tensor's scale


def round_latent(weight: Tensor) -> tuple[Tensor, int]:
    """The weights in bfloat16 with the codes of the float32 ones, and how many are not the nearest bfloat16 for that.

    A weight near the threshold, half the mean of all |W|, may cross it when it is rounded: it goes to the other
    neighbour then. The mean moves a little with the rounding, so this is done until all codes stay.
    """
    codes = absmean_codes(weight)
    nearest = weight.to(torch.bfloat16)
    rounded = nearest.clone()
    while True:
        share = rounded.float().abs() * absmean_factor(rounded.float())
        up = (codes != 0) & (share < 0.5 + _MARGIN)
        down = (codes == 0) & (share > 0.5 - _MARGIN)
        if not (up | down).any():
            return rounded, int((rounded != nearest).sum())
        # The bits of a bfloat16 without its sign grow with its size, so the next one is a step of 1 away.
        bits = rounded.view(torch.int16)
        rounded = torch.where(up, bits + 1, torch.where(down, bits - 1, bits)).view(torch.bfloat16)


def master_tensors(decoder: Decoder) -> tuple[dict[str, Tensor], Rounding]:
    """The tensors of the checkpoint; of a float twin they are float32 as they are."""
    state = {name: value.detach().cpu().contiguous() for name, value in decoder.state_dict().items()}
    if not decoder.ternary:
        return state, Rounding(0, 0, 0.0)
    latent = {f"{name}.weight" for name, module in decoder.named_modules() if isinstance(module, BitLinear)}
    tensors: dict[str, Tensor] = {}
    weights, moved, scale_error = 0, 0, 0.0
    for name, value in state.items():
        tensors[name] = value.to(torch.bfloat16)
        if name in latent:
            tensors[name], changed = round_latent(value)
            ratio = absmean_factor(value) / absmean_factor(tensors[name].float())
            weights, moved = weights + value.numel(), moved + changed
            scale_error = max(scale_error, abs(ratio.item() - 1))
    return tensors, Rounding(weights, moved, scale_error)


def master_config(decoder: Decoder, bos: int | None, eos: int | None) -> dict[str, Any]:
    """The content of config.json."""
    config: dict[str, Any] = {
        "architectures": ["BitNetForCausalLM"], "attention_dropout": 0.0, "bos_token_id": bos, "eos_token_id": eos,
        "initializer_range": 0.02, "model_type": "bitnet", "pad_token_id": None,
        "torch_dtype": "bfloat16" if decoder.ternary else "float32", "use_cache": True, **asdict(decoder.shape),
    }  # fmt: skip
    if decoder.ternary:
        config["quantization_config"] = {
            "linear_class": "autobitlinear", "quant_method": "bitnet", "quantization_mode": "online",
        }  # fmt: skip
    return dict(sorted(config.items()))


def write_master(
    folder: Path,
    decoder: Decoder,
    files: Mapping[str, bytes],
    *,
    bos: int | None = None,
    eos: int | None = None,
    stop: tuple[int, ...] = (),
) -> Rounding:
    """Write the checkpoint into `folder`, each file whole or not at all, the weights last.

    files: the tokenizer's and what else goes with it (tokenizer.json, tokenizer_config.json, README.md ...), by name;
        they go before what would be made here
    bos, eos: ids of the tokens that begin and end a text; stop: ids that end an answer as well
    Raises TrainError where it cannot be written.
    """
    tensors, rounding = master_tensors(decoder)
    generation = {
        "bos_token_id": bos, "do_sample": False, "eos_token_id": sorted({*([] if eos is None else [eos]), *stop}),
        "max_length": decoder.shape.max_position_embeddings,
    }  # fmt: skip
    contents = {
        "config.json": _json(master_config(decoder, bos, eos)),
        "generation_config.json": _json(generation),
        **files,
    }
    with ExitStack() as stack, faults_named(folder, TrainError):
        folder.mkdir(parents=True, exist_ok=True)
        made = stack.enter_context(work_folder(folder / WEIGHTS))
        for name, content in contents.items():
            (made / name).write_bytes(content)
        try:
            save_file(tensors, made / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise TrainError(f"{folder / WEIGHTS}: cannot be written: {error}") from error
        (made / WEIGHTS).chmod(0o644)  # save_file makes it readable for its owner alone
        for name in (*contents, WEIGHTS):
            (made / name).replace(folder / name)
    return rounding


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def read_master(folder: Path) -> Decoder:
    """The decoder of a master, or of a float twin that has no quantization_config; its parameters are float32.

    Raises TrainError where the checkpoint is no master, or a tensor is missing or of another shape.
    """
    config = read_config(folder)
    decoder = Decoder(ModelShape.from_config(config), ternary=bool(config.get("quantization_config")))
    path = folder / WEIGHTS
    if not path.is_file():
        raise TrainError(f"{path} is not there. A master in one file is what can be trained on")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise TrainError(f"{path}: damaged: {error}. Copy it again") from error
    wanted = decoder.state_dict()
    if decoder.shape.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    for name, value in wanted.items():
        if name not in tensors or tensors[name].shape != value.shape or not tensors[name].is_floating_point():
            found = f"is {list(tensors[name].shape)} of {tensors[name].dtype}" if name in tensors else "is missing"
            raise TrainError(f"{path}: {name} {found}, and must be a float tensor {list(value.shape)}")
    if surplus := tensors.keys() - wanted.keys():
        raise TrainError(f"{path}: {min(surplus)} has no place in this model")
    decoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    decoder.eval()
    return decoder
