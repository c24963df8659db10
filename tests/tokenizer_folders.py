"""Small tokenizers of every form, trained by `tokenizers`: folders with tokenizer.json and tokenizer_config.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edgebit.checkpoint.tokenizer.pre_tokenizers import LLAMA3_PATTERN, QWEN2_PATTERN

TEXT_FILE = Path(__file__).parent / "data" / "tokenizers" / "scripts.txt"
SPACE = "\u2581"


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    parts = [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return pre_tokenizers.Sequence(parts)


def _falcon() -> pre_tokenizers.PreTokenizer:
    parts = [
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ]
    return pre_tokenizers.Sequence(parts)


def _byte_level(size: int, cut: pre_tokenizers.PreTokenizer, *, nfc: bool = False, whole: bool = False) -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=whole))
    made.pre_tokenizer, made.decoder = cut, decoders.ByteLevel()
    if nfc:
        made.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 3,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    made.train([__file__, str(TEXT_FILE)], trainer)
    made.add_special_tokens([AddedToken("<|mark|>", normalized=False)])
    made.add_tokens([AddedToken("  ", normalized=nfc), AddedToken("<tool>", normalized=False)])
    return made


def _byte_fallback(size: int, prefix: str) -> Tokenizer:
    """As Llama 2's: text with marks for spaces, a token for each byte."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size - 260, limit_alphabet=120, show_progress=False)
    trained.train([__file__, str(TEXT_FILE)], trainer)
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocab = {name: token for token, name in enumerate(dict.fromkeys(names))}
    by_token = [[(name[:cut], name[cut:]) for cut in range(len(name) - 1, 0, -1)] for name in pieces]
    merges = [pair for pairs in by_token for pair in pairs if pair[0] in pieces and pair[1] in pieces]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if prefix == "prepend":
        made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    elif prefix == "none":
        made.normalizer = normalizers.Replace(" ", SPACE)
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, *([] if prefix in ("none", "never") else [decoders.Strip(" ", 1, 0)])])
    made.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    made.add_tokens([AddedToken("<tool>", normalized=False)])
    return made


FORMS: dict[str, Callable[[int], Tokenizer]] = {
    "llama3": lambda size: _byte_level(size, _split(LLAMA3_PATTERN), whole=True),
    "llama3-merged": lambda size: _byte_level(size, _split(LLAMA3_PATTERN)),
    "gpt2": lambda size: _byte_level(size, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2-nfc": lambda size: _byte_level(size, pre_tokenizers.ByteLevel(add_prefix_space=False), nfc=True),
    "qwen2-nfc": lambda size: _byte_level(size, _split(QWEN2_PATTERN), nfc=True),
    "falcon": lambda size: _byte_level(size, _falcon()),
    "sentencepiece": lambda size: _byte_fallback(size, "prepend"),
    "sentencepiece-no-prefix": lambda size: _byte_fallback(size, "none"),
    "metaspace-always": lambda size: _byte_fallback(size, "always"),
    "metaspace-first": lambda size: _byte_fallback(size, "first"),
    "metaspace-never": lambda size: _byte_fallback(size, "never"),
}


def write_tokenizer(folder: Path, form: str, size: int = 512, **config: Any) -> Path:
    """tokenizer.json and the configuration beside it, in `folder`.

    size: tokens, at most; by default as many as the reference models have. config: more of tokenizer_config.json.
    """
    made = FORMS[form](size)
    made.save(str(folder / "tokenizer.json"))
    named: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    if made.token_to_id("<unk>") is not None:
        named["unk_token"] = "<unk>"
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config))
    return folder
