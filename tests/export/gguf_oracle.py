"""A model computed from a GGUF file alone, in numpy: read and dequantised by the gguf package, arithmetic as BitNet's.

Independent of edgebit: what this computes from a file is what the file says. Activations are int8 per token, as the
models were trained; llama.cpp quantises them in blocks.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

I2_S = 36


class GgufOracle:
    """The model of a GGUF. Raises KeyError where the file lacks what its architecture needs."""

    def __init__(self, path: Path) -> None:
        self.reader = GGUFReader(path)
        self.arch = self.field("general.architecture")
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.heads, self.kv_heads, self.head_dim = (
            self.field(f"{self.arch}.{key}")
            for key in ("attention.head_count", "attention.head_count_kv", "rope.dimension_count")
        )
        self.eps = self.field(f"{self.arch}.attention.layer_norm_rms_epsilon")

    def field(self, key: str):
        field = self.reader.fields.get(key)
        return None if field is None else field.contents()

    def tensor(self, name: str) -> np.ndarray:
        """Values, float32 [rows, columns] or [n]."""
        tensor = self.tensors[name]
        return dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape))).astype(np.float32)

    def logits(self, ids: list[int]) -> np.ndarray:
        """float32 [tokens, vocabulary]."""
        x = self.tensor("token_embd.weight")[ids]
        for layer in range(self.field(f"{self.arch}.block_count")):
            x = self._layer(f"blk.{layer}.", x)
        x = self._norm(x, "output_norm")
        return x @ self.tensor("output.weight" if "output.weight" in self.tensors else "token_embd.weight").T

    def _layer(self, block: str, x: np.ndarray) -> np.ndarray:
        h = self._norm(x, block + "attn_norm")
        q, k, v = (self._linear(h, block + name) for name in ("attn_q", "attn_k", "attn_v"))
        q, k, v = (part.reshape(len(x), -1, self.head_dim).transpose(1, 0, 2) for part in (q, k, v))
        if block + "attn_q_norm.weight" in self.tensors:
            q, k = self._norm(q, block + "attn_q_norm"), self._norm(k, block + "attn_k_norm")
        q, k = self._rope(q), self._rope(k)
        k, v = (np.repeat(part, self.heads // self.kv_heads, axis=0) for part in (k, v))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(self.head_dim)
        scores += np.triu(np.full((len(x), len(x)), -np.inf), 1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        a = self._sub_norm(mixed.transpose(1, 0, 2).reshape(len(x), -1), block + "attn_sub_norm")
        x = x + self._linear(a, block + "attn_output")
        h = self._norm(x, block + "ffn_norm")
        gate, up = self._linear(h, block + "ffn_gate"), self._linear(h, block + "ffn_up")
        relu2 = self.field(f"{self.arch}.hidden_activation") == "relu2"
        gate = np.maximum(gate, 0) ** 2 if relu2 else gate / (1 + np.exp(-gate))
        return x + self._linear(self._sub_norm(gate * up, block + "ffn_sub_norm"), block + "ffn_down")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        factor = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
        y = np.clip(np.rint(x * factor), -128, 127) @ self.tensor(name + ".weight").T / factor
        return y * self.tensor(name + ".scale") if name + ".scale" in self.tensors else y

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean = (x.astype(np.float32) ** 2).mean(axis=-1, keepdims=True)
        return (x / np.sqrt(mean + np.float32(self.eps)) * self.tensor(name + ".weight")).astype(np.float32)

    def _sub_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return self._norm(x, name) if name + ".weight" in self.tensors else x

    def _rope(self, x: np.ndarray) -> np.ndarray:
        """x: [heads, tokens, head_dim]; pairs of neighbours in arch llama, halves in the others."""
        theta = self.field(f"{self.arch}.rope.freq_base")
        frequency = theta ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        if "rope_freqs.weight" in self.tensors:
            frequency = frequency / self.tensor("rope_freqs.weight")
        frequency = frequency / (self.field(f"{self.arch}.rope.scaling.factor") or 1)
        angle = np.arange(x.shape[1])[:, None] * frequency
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        paired = self.arch == "llama"
        a, b = (x[..., 0::2], x[..., 1::2]) if paired else np.split(x, 2, axis=-1)
        first, second = a * cos - b * sin, a * sin + b * cos
        return np.stack([first, second], axis=-1).reshape(x.shape) if paired else np.concatenate([first, second], -1)
