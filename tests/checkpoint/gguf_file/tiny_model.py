"""A small random ternary model, as a Hugging Face checkpoint and as GGUF files of every type."""

import json
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
from gguf_files import F16, F32, I2_S, TYPES, File, Row, floats, gguf_name, interleave_heads, pack, pack_i2_s
from safetensors.numpy import save_file

from edgebit.bundle.model_format import (
    Conf,
)
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.convert import convert

SIZES = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}  # fmt: skip
PROJECTION_SHAPES = {
    "self_attn.q_proj": (256, 256), "self_attn.k_proj": (128, 256), "self_attn.v_proj": (128, 256),
    "self_attn.o_proj": (256, 256), "mlp.gate_proj": (512, 256), "mlp.up_proj": (512, 256), "mlp.down_proj": (256, 512),
}  # fmt: skip


def quarter_rows(weights: np.ndarray) -> np.ndarray:
    """transformers' packed form."""
    quarters = (weights + 1).astype(np.uint8).reshape(4, -1, weights.shape[1])
    return quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6


class Tiny:
    """A random ternary model of one layer, as a Hugging Face checkpoint and as a GGUF file."""

    def __init__(self, form: str, folder: Path, *, tied: bool = True) -> None:
        """form: bitnet (2B-4T), 1bitllm or llama."""
        self.form, self.folder, self.tied = form, folder, tied
        random = np.random.default_rng(3)
        self.weights = {
            name: random.integers(-1, 2, shape).astype(np.int8) for name, shape in PROJECTION_SHAPES.items()
        }
        self.scales = {name: float(2.0 ** random.integers(-3, 3)) for name in PROJECTION_SHAPES}
        norms = {"input_layernorm": 256, "post_attention_layernorm": 256}
        if form != "llama":
            subs = ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm")
            legacy = ("self_attn.inner_attn_ln", "mlp.ffn_layernorm")
            norms |= dict(zip(legacy if form == "1bitllm" else subs, (256, 512), strict=True))
        self.floats = {f"model.layers.0.{name}.weight": random.random(n, np.float32) + 0.5 for name, n in norms.items()}
        self.floats["model.norm.weight"] = random.random(256, np.float32) + 0.5
        self.floats["model.embed_tokens.weight"] = (
            random.standard_normal((96, 256)).astype(np.float16).astype(np.float32)
        )
        if not tied:
            self.floats["lm_head.weight"] = random.standard_normal((96, 256)).astype(np.float32)

    def hugging_face(self) -> Path:
        """The checkpoint's folder."""
        architecture, model_type, act = {
            "bitnet": ("BitNetForCausalLM", "bitnet", "relu2"),
            "1bitllm": ("BitnetForCausalLM", "llama", "silu"),
            "llama": ("LlamaForCausalLM", "llama", "silu"),
        }[self.form]
        quantised = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
        if self.form == "llama":
            quantised["linear_class"] = "bitlinear"
        config = {
            **SIZES, "architectures": [architecture], "model_type": model_type, "hidden_act": act,
            "tie_word_embeddings": self.tied, "bos_token_id": 1, "eos_token_id": 2,
            **({"weight_bits": 1, "input_bits": 8} if self.form == "1bitllm" else {"quantization_config": quantised}),
        }  # fmt: skip
        tensors = dict(self.floats)
        for name, weights in self.weights.items():
            scale = np.float32(self.scales[name])
            if self.form == "1bitllm":  # masters whose mean of absolute values is the scale
                magnitude = scale * np.float32(weights.size / np.count_nonzero(weights))
                tensors[f"model.layers.0.{name}.weight"] = weights * magnitude
            else:
                tensors[f"model.layers.0.{name}.weight"] = quarter_rows(weights)
                stored = np.float32(1) / scale if self.form == "llama" else scale
                tensors[f"model.layers.0.{name}.weight_scale"] = np.array([stored])
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(config))
        save_file(tensors, self.folder / "model.safetensors")
        return self.folder

    def gguf(self, kind: str, *, architecture: str | None = None, embedding: int = F32, **changes: Any) -> File:
        """The model with its projections in a type of TYPES, "F16", or "I2_S/" and a dialect."""
        name = architecture or {"bitnet": "bitnet-b1.58", "1bitllm": "bitnet", "llama": "llama"}[self.form]
        stops = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
        file = File(fields=gguf_files.keys(name, SIZES, **stops, **changes))
        for tensor, values in self.floats.items():
            file.tensors[gguf_name(tensor)] = floats(values, embedding if values.ndim == 2 else F32)
        for tensor, weights in self.weights.items():
            heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(tensor)
            rows = interleave_heads(weights, heads) if name == "llama" and heads else weights
            file.tensors[gguf_name(f"model.layers.0.{tensor}.weight")] = self._row(kind, rows, self.scales[tensor])
        return file

    def _row(self, kind: str, weights: np.ndarray, scale: float) -> Row:
        if kind == "F16":
            return floats(weights * np.float32(scale), F16)
        if kind.startswith("I2_S/"):
            return Row(I2_S, weights.shape, pack_i2_s(kind.removeprefix("I2_S/"), weights, scale))
        return Row(TYPES[kind].type_id, weights.shape, pack(kind, weights, scale))


def converted(path: Path, out: Path, hints: Hints = NO_HINTS) -> tuple[Conf, bytes]:
    """CONF and DATA of the model file that a checkpoint becomes."""
    convert(path, out, probes=False, hints=hints)
    with ModelFile(out) as file:
        return file.conf, bytes(file.content("DATA") or b"")
