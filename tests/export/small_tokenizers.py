"""Small tokenizers of every form, trained by `tokenizers`: folders with tokenizer.json and tokenizer_config.json."""

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edgebit.checkpoint.tokenizer.pre_tokenizers import LLAMA3_PATTERN, QWEN2_PATTERN

TEXT_FILE = Path(__file__).parents[1] / "data" / "tokenizers" / "scripts.txt"
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


def _byte_level(cut: pre_tokenizers.PreTokenizer, *, nfc: bool = False, whole: bool = False) -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=whole))
    made.pre_tokenizer, made.decoder = cut, decoders.ByteLevel()
    if nfc:
        made.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    made.train([__file__, str(TEXT_FILE)], trainer)
    made.add_special_tokens([AddedToken("<|mark|>", normalized=False)])
    made.add_tokens([AddedToken("  ", normalized=nfc), AddedToken("<tool>", normalized=False)])
    return made


def _byte_fallback(prefix: str) -> Tokenizer:
    """As Llama 2's: text with marks for spaces, a token for each byte."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=700, limit_alphabet=120, show_progress=False)
    trained.train([__file__, str(TEXT_FILE)], trainer)
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocab = {name: token for token, name in enumerate(dict.fromkeys(names))}
    by_token = [[(name[:cut], name[cut:]) for cut in range(len(name) - 1, 0, -1)] for name in pieces]
    merges = [pair for pairs in by_token for pair in pairs if pair[0] in pieces and pair[1] in pieces]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if prefix == "prepend":
        made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    elif prefix == "never":
        made.normalizer = normalizers.Replace(" ", SPACE)
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, *([] if prefix == "never" else [decoders.Strip(" ", 1, 0)])])
    made.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    made.add_tokens([AddedToken("<tool>", normalized=False)])
    return made


FORMS: dict[str, Callable[[], Tokenizer]] = {
    "llama3": lambda: _byte_level(_split(LLAMA3_PATTERN), whole=True),
    "llama3-merged": lambda: _byte_level(_split(LLAMA3_PATTERN)),
    "gpt2": lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "qwen2-nfc": lambda: _byte_level(_split(QWEN2_PATTERN), nfc=True),
    "falcon": lambda: _byte_level(_falcon()),
    "sentencepiece": lambda: _byte_fallback("prepend"),
    "sentencepiece-no-prefix": lambda: _byte_fallback("never"),
    "metaspace-always": lambda: _byte_fallback("always"),
    "metaspace-first": lambda: _byte_fallback("first"),
}


def save(form: str, folder: Path) -> Path:
    """tokenizer.json and the configuration beside it, in `folder`."""
    FORMS[form]().save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    if FORMS[form]().token_to_id("<unk>") is not None:
        named["unk_token"] = "<unk>"
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder
