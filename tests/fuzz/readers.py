"""What is fuzzed: every reader of files that come from others, with sound files to begin from.

Each takes any bytes, in a folder that is its own, and may raise nothing but EdgebitError.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf_files
import numpy as np

from edgebit.bundle.model_format import PROJECTIONS, Encoding, Granularity, Norms, Role, Scaling
from edgebit.checkpoint.chat_template.compiler import compile_chat_template
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.hugging_face.pytorch_file import PytorchFile
from edgebit.checkpoint.hugging_face.safetensors_file import SafetensorsFile
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, read_gguf_tokenizer, read_tokenizer
from tests.checkpoint.gguf_file.test_hostile import sound
from tests.checkpoint.hugging_face.bin_file import archive, state_dict, tensor
from tests.checkpoint.hugging_face.test_checkpoint import base_config, write_checkpoint
from tests.kernels.tiny_model import TinyModel, tiny_conf

TESTS = Path(__file__).resolve().parents[1]
TOKENIZER = TESTS / "reference" / "bitnet-packed"
VALUES = bytes(4096)


@dataclass(frozen=True, slots=True)
class Reader:
    """One fuzzer."""

    seeds: Callable[[], Iterator[bytes]]
    read: Callable[[bytes, Path], object]
    is_json: bool = False  # the input is JSON, and changed as such
    max_len: int = 8192


def read_everything(checkpoint: Checkpoint) -> None:
    """All tensors of an open checkpoint and its tokenizer."""
    with closing(checkpoint):
        for role, layer in checkpoint.config.conf.roles():
            if role in PROJECTIONS:
                checkpoint.scaling(role, layer)
                checkpoint.projection(role, layer)
            elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
                for _ in checkpoint.rows(role):
                    pass
            elif role != Role.ROPE_INV_FREQ:
                checkpoint.vector(role, layer)
        carry_over(checkpoint.tokenizer())


def carry_over(tokenizer: CheckpointTokenizer | None) -> None:
    if tokenizer is not None:
        tokenizer.section()


# safetensors


def safetensors_seeds() -> Iterator[bytes]:
    header = json.dumps({
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    }).encode()  # fmt: skip
    yield struct.pack("<Q", len(header)) + header + bytes(32)


def read_safetensors(data: bytes, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    with SafetensorsFile(path) as file:
        for name in file.tensors:
            file.read(name)


def safetensors_header_seeds() -> Iterator[bytes]:
    for seed in safetensors_seeds():
        header = json.loads(seed[8:-32])
        header["c"] = {"dtype": "I8", "shape": [4064], "data_offsets": [32, 4096]}
        yield json.dumps(header).encode()


def read_safetensors_header(data: bytes, folder: Path) -> None:
    read_safetensors(struct.pack("<Q", len(data)) + data + VALUES, folder)


# PyTorch


def pickle_seeds() -> Iterator[bytes]:
    for kind in ("FloatStorage", "BFloat16Storage", "CharStorage"):
        for parameter in (False, True):
            yield state_dict({"w": tensor("0", kind, 6, [2, 3], parameter=parameter)})


def archive_seeds() -> Iterator[bytes]:
    for pickled in pickle_seeds():
        yield archive({"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(24)})


def read_archive(data: bytes, folder: Path) -> None:
    path = folder / "pytorch_model.bin"
    path.write_bytes(data)
    with closing(PytorchFile(path)) as file:
        for name in file.tensors:
            file.read(name)


def read_pickle(data: bytes, folder: Path) -> None:
    read_archive(archive({"data.pkl": data, "data/0": bytes(24)}), folder)


# Hugging Face: the JSON files, beside sound weights


def config_seeds() -> Iterator[bytes]:
    for form in ("packed", "masters"):
        yield json.dumps(base_config(form)).encode()
    for config in sorted(TESTS.glob("reference/*/config.json")):
        yield config.read_bytes()


def read_config(data: bytes, folder: Path) -> None:
    if not (folder / "model.safetensors").exists():
        write_checkpoint(folder, {})
    (folder / "config.json").write_bytes(data)
    (folder / "generation_config.json").write_bytes(data)
    read_everything(open_checkpoint(folder))


def tokenizer_json_seeds() -> Iterator[bytes]:
    """The reference tokenizer, cut to its bytes and a few merges, and one as SentencePiece has it."""
    data = json.loads((TOKENIZER / "tokenizer.json").read_bytes())
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_bytes())
    yield json.dumps([data, config]).encode()
    spm = {
        "added_tokens": [{"content": name, "id": token, "special": True} for token, name in enumerate(_MARKS)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {
            "type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True,
            "vocab": {text: token for token, text in enumerate(_pieces())}, "merges": ["\u2581 a", "a b"],
        },
    }  # fmt: skip
    yield json.dumps([spm, {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True}]).encode()


_MARKS = ("<unk>", "<s>", "</s>")


def _pieces() -> list[str]:
    return [*_MARKS, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "\u2581a", "ab"]


def read_tokenizer_json(data: bytes, folder: Path) -> None:
    """[tokenizer.json, tokenizer_config.json]."""
    try:
        first, second = json.loads(data)
    except (ValueError, TypeError, RecursionError):
        first, second = None, None
    (folder / "tokenizer.json").write_bytes(data if first is None else json.dumps(first).encode())
    (folder / "tokenizer_config.json").write_text(json.dumps(second or {}))
    carry_over(read_tokenizer(folder))


def tokenizer_model_seeds() -> Iterator[bytes]:
    """Pieces with score and type, a BPE's trainer, and a normalizer that changes nothing."""
    kinds = [2, 3, 3] + [6] * 256 + [1] * 5
    pieces = (
        message(1, message(1, text.encode()) + b"\x15" + struct.pack("<f", -number) + bytes([0x18, kind]))
        for number, (text, kind) in enumerate(zip(_pieces(), kinds, strict=True))
    )
    yield b"".join(pieces) + message(2, b"\x18\x02") + message(3, b"\x18\x01\x20\x00\x28\x01")


def message(field: int, content: bytes) -> bytes:
    """A field of a protobuf that holds less than 128 bytes."""
    return bytes([field << 3 | 2, len(content)]) + content


def read_tokenizer_model(data: bytes, folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(data)
    carry_over(read_tokenizer(folder))


def chat_template_seeds() -> Iterator[bytes]:
    for path in sorted((TESTS / "checkpoint" / "chat_templates").glob("*.jinja")):
        yield path.read_bytes()


def read_template(data: bytes, folder: Path) -> None:
    compile_chat_template(data.decode("utf-8", "surrogateescape"), _tokenizer()).to_bytes()


_TOKENIZERS: list[CheckpointTokenizer] = []


def _tokenizer() -> CheckpointTokenizer:
    if not _TOKENIZERS:
        _TOKENIZERS.append(read_tokenizer(TOKENIZER))
    return _TOKENIZERS[0]


# GGUF


def gguf_seeds() -> Iterator[bytes]:
    """Everything before the tensors."""
    for architecture in ("bitnet", "llama", "qwen3"):
        file = sound(architecture)
        file.fields |= {"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.scores": [0.5, 1.5]}
        yield file.front()


_TENSORS = b"".join(row.data for row in sound().tensors.values())


def read_gguf(data: bytes, folder: Path) -> None:
    path = folder / "model.gguf"
    path.write_bytes(data + bytes(-len(data) % 32) + _TENSORS)
    read_everything(open_checkpoint(path))


_TERNARY = (gguf_files.I2_S, *(kind.type_id for kind in gguf_files.TYPES.values()))
_TYPES = sorted({0, 1, 12, 30, 38, 39, 142, 143, *_TERNARY})
_DIALECTS = ("x86", "arm", "rows4", None)


def gguf_type_seeds() -> Iterator[bytes]:
    weights = np.random.default_rng(0).integers(-1, 2, (256, 256)).astype(np.int8)
    for name, kind in gguf_files.TYPES.items():
        yield bytes([_TYPES.index(kind.type_id), 0]) + gguf_files.pack(name, weights, 1.0)
    yield bytes([_TYPES.index(gguf_files.I2_S), 0]) + gguf_files.pack_i2_s("x86", weights, 1.0)


def read_gguf_type(data: bytes, folder: Path) -> None:
    """A type, a dialect of I2_S, and a projection's bytes."""
    kind, dialect = (*data[:2], 0, 0)[:2]
    file = sound()
    file.tensors["blk.0.attn_q.weight"] = gguf_files.Row(_TYPES[kind % len(_TYPES)], (256, 256), data[2:] or b"\0")
    path = file.write(folder / "model.gguf")
    chosen = _DIALECTS[dialect % len(_DIALECTS)]
    read_everything(open_checkpoint(path, NO_HINTS if chosen is None else Hints(i2s_dialect=chosen)))


def gguf_tokenizer_seeds() -> Iterator[bytes]:
    pieces = _pieces()
    spm = {"model": "llama", "tokens": pieces, "scores": [0.0] * 259 + [-1.0, -2.0, -3.0, -4.0, -5.0],
           "token_type": [2, 3, 3] + [6] * 256 + [1] * 5, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    yield json.dumps(spm).encode()
    data = json.loads((TOKENIZER / "tokenizer.json").read_bytes())
    tokens = sorted(data["model"]["vocab"], key=data["model"]["vocab"].__getitem__)
    added = sorted(data["added_tokens"], key=lambda entry: entry["id"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    texts = tokens + [entry["content"] for entry in added if entry["content"] not in data["model"]["vocab"]]
    for pre in ("llama-bpe", "qwen2"):
        gpt2 = {"model": "gpt2", "pre": pre, "tokens": texts, "merges": merges,
                "token_type": [1] * len(tokens) + [3] * (len(texts) - len(tokens)), "eos_token_id": 1}  # fmt: skip
        yield json.dumps(gpt2).encode()


def read_gguf_fields(data: bytes, folder: Path) -> None:
    """The fields tokenizer.ggml.* as JSON; arrays of numbers become numpy's, as the container gives them."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(fields, dict):
        found = {f"tokenizer.ggml.{key}": _as_field(value) for key, value in fields.items()}
        carry_over(read_gguf_tokenizer({key: value for key, value in found.items() if value is not None}, "fuzz")[0])


def _as_field(value: object) -> object:
    """None where no GGUF file can hold it."""
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return value
        if all(isinstance(item, bool | int | float) and abs(item) < 2**63 for item in value):
            return np.array(value)
        return None
    if isinstance(value, int) and abs(value) >= 2**63:
        return None
    return value if isinstance(value, bool | int | float | str) else None


# Model files


def model_seeds() -> Iterator[bytes]:
    shape = {"hidden_size": 64, "ffn_size": 64, "n_layers": 1, "n_heads": 16, "n_kv_heads": 1,
             "head_dim": 4, "vocab_size": 9, "stop_tokens": (2,)}  # fmt: skip
    for encoding in (Encoding.F32, Encoding.BF16, Encoding.F16, Encoding.I8):
        yield TinyModel(tiny_conf(**shape), embedding=encoding).to_bytes()
    grouped = tiny_conf(**shape, norms=Norms(15), projection_norm_eps=1e-4, rope_attention_factor=1.5)
    yield TinyModel(grouped, scaling=Scaling(Granularity.GROUP, 64)).to_bytes()


def read_model_file(data: bytes, folder: Path) -> None:
    path = folder / "model.ebm"
    path.write_bytes(with_right_sums(data))
    read_everything(open_checkpoint(path))


def with_right_sums(data: bytes) -> bytes:
    """The same model file with its sums as its content has them: else no damage would get past them."""
    if len(data) < 64:
        return data
    fixed = bytearray(data)
    end = 64 + 32 * min(struct.unpack_from("<I", fixed, 12)[0], 32)
    if end <= len(fixed):
        for at in range(64, end, 32):
            offset, size = struct.unpack_from("<QQ", fixed, at + 8)
            struct.pack_into("<I", fixed, at + 4, zlib.crc32(fixed[offset : offset + size]))
        struct.pack_into("<I", fixed, 24, zlib.crc32(fixed[64:end]))
    struct.pack_into("<I", fixed, 28, zlib.crc32(fixed[:28]))
    return bytes(fixed)


READERS = {
    "safetensors": Reader(safetensors_seeds, read_safetensors),
    "safetensors-header": Reader(safetensors_header_seeds, read_safetensors_header, is_json=True),
    "pytorch-archive": Reader(archive_seeds, read_archive),
    "pytorch-pickle": Reader(pickle_seeds, read_pickle),
    "config-json": Reader(config_seeds, read_config, is_json=True),
    "tokenizer-json": Reader(tokenizer_json_seeds, read_tokenizer_json, is_json=True, max_len=65536),
    "tokenizer-model": Reader(tokenizer_model_seeds, read_tokenizer_model),
    "chat-template": Reader(chat_template_seeds, read_template),
    "gguf": Reader(gguf_seeds, read_gguf),
    "gguf-types": Reader(gguf_type_seeds, read_gguf_type, max_len=32768),
    "gguf-tokenizer": Reader(gguf_tokenizer_seeds, read_gguf_fields, is_json=True, max_len=65536),
    "model-file": Reader(model_seeds, read_model_file, max_len=65536),
}
