"""Service: writes a checkpoint of a known shape with random weights, for measuring and for tests, as a stream.

Its speed and memory are those of the real model of that shape; its answers mean nothing.
"""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.hugging_face.safetensors_file import write_safetensors
from edgebit.checkpoint.tokenizer.byte_alphabet import BYTE_OF
from edgebit.checkpoint.tokenizer.pre_tokenizers import LLAMA3_PATTERN
from edgebit.errors import CheckpointError

SHARD_BYTES = 2_000_000_000
_CHUNK_ROWS = 4096
_SPECIALS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_0|>", "<|reserved_1|>", "<|pad|>", "<|reserved_2|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
)  # fmt: skip
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
_README = """---
license: cc0-1.0
---
Random weights in the shape `{name}`, written by `edgebit synthesize`. For measuring: what it answers means nothing.
"""
# Four ternary codes in a byte, by a random byte: all 81 combinations, nearly evenly.
_CODE_BYTES = np.array(
    [(i % 3) | (i // 3 % 3) << 2 | (i // 9 % 3) << 4 | (i // 27 % 3) << 6 for i in range(256)], dtype=np.uint8
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The sizes of a model."""

    hidden_size: int
    ffn_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    n_specials: int  # ids at the end of the vocabulary that text never becomes
    context_max: int


SHAPES = {
    # microsoft/bitnet-b1.58-2B-4T
    "2b4t": Shape(
        hidden_size=2560, ffn_size=6912, n_layers=30, n_heads=20, n_kv_heads=5,
        vocab_size=128_256, n_specials=256, context_max=4096,
    ),
    "tiny": Shape(
        hidden_size=256, ffn_size=704, n_layers=3, n_heads=4, n_kv_heads=2,
        vocab_size=1024, n_specials=16, context_max=2048,
    ),
}  # fmt: skip


def synthesize(shape_name: str, out: Path, *, seed: int = 0, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a checkpoint of SHAPES[shape_name] in bitnet-packed form, with a tokenizer, to the new folder `out`.

    The same seed gives the same bytes. Raises CheckpointError where `out` is there already and not empty, or cannot be
    written; nothing that was written stays then.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: is there already; a new folder is needed")
    try:
        _write_checkpoint(shape_name, out, seed, shard_bytes)
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{error.filename or out}: cannot be written: {error.strerror}. Give another --out or make room"
            ) from error
        raise


def _write_checkpoint(shape_name: str, out: Path, seed: int, shard_bytes: int) -> None:
    shape = SHAPES[shape_name]
    out.mkdir(parents=True, exist_ok=True)
    first_special = shape.vocab_size - shape.n_specials
    _write_json(out / "config.json", _config(shape, first_special))
    stops = [first_special + 1, first_special + 9]
    _write_json(out / "generation_config.json", {"bos_token_id": first_special, "eos_token_id": stops})
    _write_json(out / "tokenizer.json", _tokenizer(first_special, shape.n_specials))
    _write_json(
        out / "tokenizer_config.json",
        {"bos_token": _SPECIALS[0], "eos_token": _SPECIALS[1], "chat_template": _CHAT_TEMPLATE},
    )
    (out / "README.md").write_text(_README.format(name=shape_name), encoding="utf-8")
    _write_weights(out, _tensors(shape), np.random.default_rng(seed), shard_bytes)


def _config(shape: Shape, first_special: int) -> dict[str, Any]:
    return {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_size,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.context_max,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "relu2",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": first_special,
        "eos_token_id": first_special + 1,
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
        },
    }


def _tensors(shape: Shape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name, dtype and shape of every tensor, in the order they are written."""
    hidden, ffn = shape.hidden_size, shape.ffn_size
    kv = hidden // shape.n_heads * shape.n_kv_heads
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("BF16", (shape.vocab_size, hidden)),
        "model.norm.weight": ("BF16", (hidden,)),
    }
    projections = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }  # fmt: skip
    norms = {
        "input_layernorm": hidden, "post_attention_layernorm": hidden,
        "self_attn.attn_sub_norm": hidden, "mlp.ffn_sub_norm": ffn,
    }  # fmt: skip
    for layer in range(shape.n_layers):
        prefix = f"model.layers.{layer}."
        for name, (rows, columns) in projections.items():
            tensors[f"{prefix}{name}.weight"] = ("U8", (rows // 4, columns))
            tensors[f"{prefix}{name}.weight_scale"] = ("BF16", (1,))
        tensors |= {f"{prefix}{name}.weight": ("BF16", (size,)) for name, size in norms.items()}
    return tensors


def _write_weights(
    out: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], rng: np.random.Generator, shard_bytes: int
) -> None:
    shards: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    taken = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * (1 if dtype == "U8" else 2)
        if shards[-1] and taken + size > shard_bytes:
            shards.append({})
            taken = 0
        shards[-1][name] = (dtype, shape)
        taken += size
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        many = len(shards) > 1
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if many else "model.safetensors"
        write_safetensors(out / file_name, shard, _random_chunks(shard, rng), {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file_name)
    if len(shards) > 1:
        _write_json(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _random_chunks(
    tensors: dict[str, tuple[str, tuple[int, ...]]], rng: np.random.Generator
) -> Iterator[NDArray[np.uint8] | NDArray[np.uint16]]:
    """The values of each tensor: codes that are nearly even, a scale that keeps the size of what goes through, norms
    about 1, and a normal embedding."""
    scale = np.float32(0)
    for name, (dtype, shape) in tensors.items():
        if dtype == "U8":
            scale = np.float32(1 / math.sqrt(shape[1] * 2 / 3))
            for first in range(0, shape[0], _CHUNK_ROWS):
                n_bytes = min(_CHUNK_ROWS, shape[0] - first) * shape[1]
                yield _CODE_BYTES[np.frombuffer(rng.bytes(n_bytes), np.uint8)]
        elif name.endswith("weight_scale"):
            yield _bf16(np.array([scale], np.float32))
        elif len(shape) == 1:
            yield _bf16(1 + 0.1 * rng.standard_normal(shape[0], np.float32))
        else:
            for first in range(0, shape[0], _CHUNK_ROWS):
                rows = min(_CHUNK_ROWS, shape[0] - first)
                yield _bf16(0.6 * rng.standard_normal((rows, shape[1]), np.float32))


def _bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of finite float32 values."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _tokenizer(n_text: int, n_specials: int) -> dict[str, Any]:
    """tokenizer.json of a byte-level BPE: every byte, then merges of two bytes, then of three, up to n_text tokens."""
    letters = [char for char, _ in sorted(BYTE_OF.items(), key=lambda item: item[1])]
    vocab = {char: i for i, char in enumerate(letters)}
    merges: list[list[str]] = []
    for left in (*letters, *(a + b for a in letters for b in letters)):
        if len(vocab) >= n_text:
            break
        for right in letters[: n_text - len(vocab)]:
            merges.append([left, right])
            vocab[left + right] = len(vocab)
    specials = [*_SPECIALS, *(f"<|reserved_{i}|>" for i in range(3, n_specials))][:n_specials]
    added = [
        {
            "id": n_text + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }
        for i, content in enumerate(specials)
    ]  # fmt: skip
    bos = specials[0]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [n_text], "tokens": [bos]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
