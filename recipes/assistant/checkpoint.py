"""Writes the trained model as a Hugging Face checkpoint with packed ternary weights, the form of BitNet b1.58 2B4T."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from data import BOS, END_OF_TEXT, END_OF_TURN
from model import BitLinear, BitNet, Shape, absmean_codes, absmean_scale
from safetensors.torch import load_file, save_file
from tokenizer import tokenizer_config
from tokenizers import Tokenizer
from torch import Tensor


def pack(codes: Tensor) -> Tensor:
    """Pack codes [out, in] of -1, 0, +1 to uint8 [out / 4, in].

    Row i * out / 4 + r of the codes, plus one, lies in bits 2i and 2i + 1 of stored row r, for i in 0..3.
    """
    quarters = (codes.to(torch.int16) + 1).reshape(4, codes.shape[0] // 4, codes.shape[1])
    packed = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
    return packed.to(torch.uint8)


def unpack(packed: Tensor) -> Tensor:
    """The codes -1, 0, +1, [out, in], of a packed tensor."""
    return torch.cat([(packed >> shift & 3).to(torch.float32) - 1 for shift in (0, 2, 4, 6)])


def packed_tensors(model: BitNet) -> dict[str, Tensor]:
    """The tensors of model.safetensors: ternary weights packed, each with its scale; all else bfloat16."""
    tensors = {name: value.detach().to(torch.bfloat16) for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, BitLinear):
            weight = module.weight.detach()
            tensors[f"{name}.weight"] = pack(absmean_codes(weight))
            tensors[f"{name}.weight_scale"] = absmean_scale(weight).reshape(1).to(torch.bfloat16)
    return {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}


def config(model: BitNet, tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of config.json."""
    shape = model.shape
    return {
        "architectures": ["BitNetForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "hidden_act": "relu2",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "model_type": "bitnet",
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "quantization_config": {
            "linear_class": "autobitlinear",
            "quant_method": "bitnet",
            "quantization_mode": "offline",
        },
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def write_checkpoint(model: BitNet, tokenizer: Tokenizer, folder: Path) -> None:
    """Write all files that transformers and edgebit read; the model card and the licence are kept by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = model.shape
    generation = {
        "bos_token_id": tokenizer.token_to_id(BOS),
        "do_sample": False,
        "eos_token_id": [tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(END_OF_TURN)],
        "max_length": shape.max_position_embeddings,
    }
    files = {
        "config.json": config(model, tokenizer),
        "generation_config.json": generation,
        "tokenizer_config.json": tokenizer_config(tokenizer, shape.max_position_embeddings),
        "tokenizer.json": json.loads(tokenizer.to_str()),
    }
    for name, content in files.items():
        # One line for the vocabulary: with one token a line it would be twice the size.
        indent = None if name == "tokenizer.json" else 2
        (folder / name).write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n")
    weights = folder / "model.safetensors"
    save_file(packed_tensors(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # save_file makes it readable for its owner alone


def read_checkpoint(folder: Path) -> tuple[BitNet, Tokenizer]:
    """The model and tokenizer that write_checkpoint wrote, computing with exactly the packed codes and scales.

    Latent weights are chosen that absmean rounds back to the file's codes, and whose mean absolute value is its scale.
    """
    stored = json.loads((folder / "config.json").read_text())
    model = BitNet(Shape(**{field.name: stored[field.name] for field in fields(Shape)}))
    tensors = load_file(folder / "model.safetensors")
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.uint8:
            codes = unpack(tensor)
            state[name] = codes * (tensors[f"{name}_scale"].float() / codes.abs().mean())
        elif not name.endswith(".weight_scale"):
            state[name] = tensor.float()
    model.load_state_dict(state)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))
