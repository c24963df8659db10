"""Service: writes a checkpoint of a known shape with random weights, for measuring and for tests, as a stream.

Its speed and memory are those of the real model of that shape; its answers mean nothing.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Conf, Role
from edgebit.checkpoint.hugging_face.config import ACTIVATIONS
from edgebit.checkpoint.hugging_face.families import SCALE_SUFFIX, Family, Scale, family_named
from edgebit.checkpoint.hugging_face.safetensors_file import DTYPE_BYTES, write_safetensors
from edgebit.checkpoint.tokenizer.byte_alphabet import BYTE_OF
from edgebit.checkpoint.tokenizer.forms import PreTokenizer
from edgebit.checkpoint.tokenizer.pre_tokenizers import write_pre_tokenizer
from edgebit.errors import CheckpointError
from edgebit.progress import Progress, unwatched

SHARD_BYTES = 2_000_000_000
_CHUNK_VALUES = 4 << 20
_RMS_NORM_EPS = 1e-5
_MEAN_MAGNITUDE = math.sqrt(2 / math.pi)  # of a normal variable, in its deviations
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
    """The sizes of a model, and the form that its checkpoint has."""

    family: Family
    dtype: Literal["BF16", "F16"]  # of all that is not packed
    hidden_size: int
    ffn_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    n_specials: int  # ids at the end of the vocabulary that text never becomes
    context_max: int  # tokens

    @property
    def first_special(self) -> int:
        """The begin-of-text token; the first id that is no text."""
        return self.vocab_size - self.n_specials

    @property
    def conf(self) -> Conf:
        """What a model of this shape computes."""
        return Conf(
            hidden_size=self.hidden_size, ffn_size=self.ffn_size, n_layers=self.n_layers, n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads, head_dim=self.hidden_size // self.n_heads, vocab_size=self.vocab_size,
            context_max=self.context_max, rms_norm_eps=_RMS_NORM_EPS,
            activation=ACTIVATIONS[self.family.architecture.defaults["hidden_act"]], norms=self.family.norms,
            head_tied=True, bos_token=self.first_special, stop_tokens=(self.first_special + 1, self.first_special + 9),
        )  # fmt: skip


SHAPES = {
    # microsoft/bitnet-b1.58-2B-4T
    "2b4t": Shape(
        family=family_named("bitnet-packed"), dtype="BF16",
        hidden_size=2560, ffn_size=6912, n_layers=30, n_heads=20, n_kv_heads=5,
        vocab_size=128_256, n_specials=256, context_max=4096,
    ),
    # 1bitLLM/bitnet_b1_58-3B, but for its tokenizer
    "1bitllm-3b": Shape(
        family=family_named("bitnet-1bitllm-master"), dtype="F16",
        hidden_size=3200, ffn_size=8640, n_layers=26, n_heads=32, n_kv_heads=32,
        vocab_size=32_002, n_specials=16, context_max=2048,
    ),
    "tiny": Shape(
        family=family_named("bitnet-packed"), dtype="BF16",
        hidden_size=256, ffn_size=704, n_layers=3, n_heads=4, n_kv_heads=2,
        vocab_size=1024, n_specials=16, context_max=2048,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _RandomTensor:
    """A tensor to write: random codes where the type is U8, else normal values."""

    dtype: str
    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float = 0.0


def synthesize(
    shape_name: str, out: Path, *, seed: int = 0, shard_bytes: int = SHARD_BYTES, progress: Progress = unwatched
) -> None:
    """Write a checkpoint of SHAPES[shape_name], with a tokenizer, to the new folder `out`.

    The same seed gives the same bytes. Raises CheckpointError where `out` is there already and not empty, or cannot be
    written; nothing that was written stays then.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: is there already; a new folder is needed")
    try:
        _write_checkpoint(shape_name, out, seed, shard_bytes, progress)
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{error.filename or out}: cannot be written: {error.strerror}. Give another --out or make room"
            ) from error
        raise


def _write_checkpoint(shape_name: str, out: Path, seed: int, shard_bytes: int, progress: Progress) -> None:
    shape = SHAPES[shape_name]
    conf = shape.conf
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / "config.json", _config(shape))
    _write_json(
        out / "generation_config.json", {"bos_token_id": conf.bos_token, "eos_token_id": list(conf.stop_tokens)}
    )
    _write_json(out / "tokenizer.json", _tokenizer(shape.first_special, shape.n_specials))
    _write_json(
        out / "tokenizer_config.json",
        {"bos_token": _SPECIALS[0], "eos_token": _SPECIALS[1], "chat_template": _CHAT_TEMPLATE},
    )
    (out / "README.md").write_text(_README.format(name=shape_name), encoding="utf-8")
    _write_weights(out, _tensors(shape), np.random.default_rng(seed), shard_bytes, progress)


def _config(shape: Shape) -> dict[str, Any]:
    architecture, storage = shape.family.architecture, shape.family.storage
    config = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_size,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.context_max,
        "rms_norm_eps": _RMS_NORM_EPS,
        "rope_theta": architecture.defaults["rope_theta"],
        "hidden_act": architecture.defaults["hidden_act"],
        "tie_word_embeddings": True,
        "torch_dtype": {"BF16": "bfloat16", "F16": "float16"}[shape.dtype],
        "bos_token_id": shape.first_special,
        "eos_token_id": shape.first_special + 1,
        **architecture.demands,
    }
    if storage.linear_class is not None:
        config["quantization_config"] = {
            "quant_method": "bitnet",
            "linear_class": storage.linear_class,
            "quantization_mode": storage.mode,
        }
    return config


def _tensors(shape: Shape) -> dict[str, _RandomTensor]:
    """Every tensor by name, in the order they are written; what goes through a projection keeps its size."""
    conf, family, dtype = shape.conf, shape.family, shape.dtype
    tensors: dict[str, _RandomTensor] = {}
    for role, layer in conf.roles():
        rows, columns = conf.shape_of(role)
        if role in (Role.ROPE_INV_FREQ, Role.HEAD):
            continue
        name = family.tensor_name(role, layer)
        scale = 1 / math.sqrt(columns * 2 / 3)
        if role == Role.TOKEN_EMBEDDING:
            tensors[name] = _RandomTensor(dtype, (rows, columns), deviation=0.6)
        elif not role.is_projection:
            tensors[name] = _RandomTensor(dtype, (columns,), mean=1, deviation=0.1)
        elif family.storage.scale == Scale.ABSMEAN:
            tensors[name] = _RandomTensor(dtype, (rows, columns), deviation=scale / _MEAN_MAGNITUDE)
        else:
            tensors[name] = _RandomTensor("U8", (rows // 4, columns))
            tensors[name + SCALE_SUFFIX] = _RandomTensor(dtype, (1,), mean=scale)
    return tensors


def _write_weights(
    out: Path, tensors: dict[str, _RandomTensor], rng: np.random.Generator, shard_bytes: int, progress: Progress
) -> None:
    numbers = {name: number for number, name in enumerate(tensors)}
    shards: list[dict[str, _RandomTensor]] = [{}]
    taken = 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * DTYPE_BYTES[tensor.dtype]
        if shards[-1] and taken + size > shard_bytes:
            shards.append({})
            taken = 0
        shards[-1][name] = tensor
        taken += size
    weight_map: dict[str, str] = {}

    def tell(name: str) -> None:
        progress(name, numbers[name], len(numbers))

    for number, shard in enumerate(shards, start=1):
        many = len(shards) > 1
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if many else "model.safetensors"
        header = {name: (tensor.dtype, tensor.shape) for name, tensor in shard.items()}
        write_safetensors(out / file_name, header, _random_chunks(shard, rng, tell), {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file_name)
    if len(shards) > 1:
        _write_json(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _random_chunks(
    tensors: dict[str, _RandomTensor], rng: np.random.Generator, tell: Callable[[str], None]
) -> Iterator[NDArray[Any]]:
    """The values of each tensor, a few at a time; `tell` is called with the name of each."""
    for name, tensor in tensors.items():
        tell(name)
        total = math.prod(tensor.shape)
        for first in range(0, total, _CHUNK_VALUES):
            n = min(_CHUNK_VALUES, total - first)
            if tensor.dtype == "U8":
                yield _CODE_BYTES[np.frombuffer(rng.bytes(n), np.uint8)]
                continue
            values = rng.standard_normal(n, np.float32)
            values = np.float32(tensor.mean) + np.float32(tensor.deviation) * values
            yield _bf16(values) if tensor.dtype == "BF16" else values.astype(np.float16)


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
        "pre_tokenizer": write_pre_tokenizer(PreTokenizer.LLAMA3),
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
