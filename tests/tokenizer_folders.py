"""Folders with a tokenizer of 512 tokens, written by `tokenizers` in the forms of well-known families."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from edgebit.resources import evaluation_text

SPACE = "\u2581"
VOCAB_SIZE = 512
_SPECIAL = ["<unk>", "<s>", "</s>"]


def write_sentencepiece_like(folder: Path, prefix: str, **config: Any) -> None:
    """As Llama 2's (prefix "prepend") or a newer one's (Metaspace's scheme). config: of tokenizer_config.json."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    hf = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    hf.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    hf.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _train(hf, _SPECIAL + bytes_)
    if prefix != "prepend":
        hf.normalizer = None
        hf.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    _write(folder, hf, config)


def write_gpt2_like(folder: Path, **config: Any) -> None:
    """Byte-level, cut by GPT-2's pattern, in NFC."""
    hf = tokenizers.Tokenizer(models.BPE())
    hf.normalizer = normalizers.NFC()
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    _train(hf, _SPECIAL, sorted(pre_tokenizers.ByteLevel.alphabet()))
    _write(folder, hf, config)


def _train(hf: tokenizers.Tokenizer, special: list[str], alphabet: list[str] | None = None) -> None:
    lines = evaluation_text().read_text(encoding="utf-8").split("\n")[:400]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=special, initial_alphabet=alphabet or [], show_progress=False
    )
    hf.train_from_iterator([*lines, "### Instruction: [INST] <<SYS>>"], trainer)


def _write(folder: Path, hf: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    data = json.loads(hf.to_str())
    data["added_tokens"] = data["added_tokens"][: len(_SPECIAL)]  # bytes are none
    (folder / "tokenizer.json").write_text(json.dumps(data))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config))
