"""A tokenizer as GGUF's metadata has it.

Sources: docs/gguf.md of ggml; llama.cpp, src/llama-vocab.cpp, for what each tokenizer.ggml.pre means.
"""

from collections.abc import Mapping, Sequence

from edgebit.bundle.model_format import Conf
from edgebit.checkpoint.own_gguf_keys import IGNORE_MERGES, NORMALIZER, SPACE_PREFIX, STRIP_LEADING_SPACE
from edgebit.checkpoint.tokenizer import (
    ADDED,
    BYTE,
    SPECIAL,
    UNUSED,
    CheckpointTokenizer,
    Kind,
    Normalizer,
    PreTokenizer,
    SpacePrefix,
)
from edgebit.checkpoint.tokenizer.pieces import PieceType, merges_by_score
from edgebit.export.gguf_file import f32s, flag, i32s, text, texts, u32
from edgebit.export.token_names import token_name

# Of the names that llama.cpp has for a pattern, one that takes pieces that are tokens whole, and one that does not.
_PRE: Mapping[tuple[PreTokenizer, bool], str] = {
    (PreTokenizer.LLAMA3, True): "llama-bpe",
    (PreTokenizer.LLAMA3, False): "dbrx",
    (PreTokenizer.GPT2, False): "gpt-2",
    (PreTokenizer.QWEN2, False): "qwen2",
    (PreTokenizer.FALCON, False): "falcon",
}

_OTHER_PREFIXES = {
    SpacePrefix.UNSPACED_SEGMENT: "not where a text begins with one",
    SpacePrefix.UNSPACED_TEXT: "before the first alone, and not where that begins with one",
}


def tokenizer_metadata(tokenizer: CheckpointTokenizer, vocab_size: int) -> tuple[dict[str, bytes], list[str]]:
    """The keys tokenizer.*, for a vocabulary of `vocab_size` rows, and notes on what the file cannot say."""
    names = [token_name(tokenizer, token) for token in range(len(tokenizer.tokens))]
    names += [""] * (vocab_size - len(names))
    types = [_type(tokenizer, token) for token in range(len(tokenizer.flags))]
    types += [PieceType.UNUSED] * (vocab_size - len(types))
    form, notes = (
        _byte_level(tokenizer, names) if tokenizer.kind == Kind.BYTE_LEVEL else _sentencepiece(tokenizer, names)
    )
    special, more = _special_tokens(tokenizer)
    metadata = {
        **form,
        "tokenizer.ggml.tokens": texts([(name or f"[PAD{i}]").encode() for i, name in enumerate(names)]),
        "tokenizer.ggml.token_type": i32s(types),
        "tokenizer.ggml.add_bos_token": flag(tokenizer.bos_token is not None),
        "tokenizer.ggml.add_eos_token": flag(False),
        **special,
    }
    if tokenizer.chat_template is not None:
        metadata["tokenizer.chat_template"] = text(tokenizer.chat_template)
    return metadata, notes + more


def _type(tokenizer: CheckpointTokenizer, token: int) -> PieceType:
    flags = tokenizer.flags[token]
    if flags & UNUSED:
        return PieceType.UNUSED
    if flags & BYTE:
        return PieceType.BYTE
    if token == tokenizer.unknown_token:
        return PieceType.UNKNOWN
    if flags & SPECIAL:
        return PieceType.CONTROL
    return PieceType.USER_DEFINED if flags & ADDED else PieceType.NORMAL


def _byte_level(tokenizer: CheckpointTokenizer, names: list[str]) -> tuple[dict[str, bytes], list[str]]:
    """GGUF's model gpt2."""
    notes = []
    if tokenizer.normalizer == Normalizer.NFC:
        notes.append("the tokenizer takes text as NFC, llama.cpp as it is: decomposed characters get other ids there")
    pre = _PRE.get((tokenizer.pre_tokenizer, tokenizer.ignore_merges))
    if pre is None:
        pre = _PRE[tokenizer.pre_tokenizer, False]
        notes.append(f"the tokenizer takes pieces that are tokens whole, llama.cpp's {pre} merges them always")
    merges = [f"{names[left]} {names[right]}".encode() for left, right, _ in _merges(tokenizer)]
    return {
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.pre": text(pre),
        "tokenizer.ggml.merges": texts(merges),
        NORMALIZER: text(tokenizer.normalizer.name.lower()),
        IGNORE_MERGES: flag(tokenizer.ignore_merges),
    }, notes


def _sentencepiece(tokenizer: CheckpointTokenizer, names: list[str]) -> tuple[dict[str, bytes], list[str]]:
    """GGUF's model llama: no merges, but a score for each token that neighbours can merge to."""
    notes = []
    has_prefix = tokenizer.space_prefix != SpacePrefix.NONE
    if tokenizer.space_prefix in _OTHER_PREFIXES:
        which = _OTHER_PREFIXES[tokenizer.space_prefix]
        notes.append(f"llama.cpp puts a space before every text between special tokens; this tokenizer {which}")
    scores = _scores(tokenizer)
    scores += [0.0] * (len(names) - len(scores))
    merged_ids = frozenset(token for token in tokenizer.merged_ids if not tokenizer.flags[token] & ADDED)
    vocab = {names[token]: token for token in sorted(merged_ids)}
    others = set(merges_by_score(vocab, scores, merged_ids)) ^ set(_merges(tokenizer))
    order = [scores[merged] for _, _, merged in _merges(tokenizer)]
    if others or order != sorted(order, reverse=True):
        notes.append(
            f"GGUF has a score for each token in place of merges, which cannot say all of this tokenizer's "
            f"({len(others)} pairs differ): some texts get other ids"
        )
    return {
        "tokenizer.ggml.model": text("llama"),
        "tokenizer.ggml.pre": text("default"),
        "tokenizer.ggml.scores": f32s(scores),
        "tokenizer.ggml.add_space_prefix": flag(has_prefix),
        SPACE_PREFIX: text(tokenizer.space_prefix.name.lower()),
        STRIP_LEADING_SPACE: flag(tokenizer.strip_leading_space),
    }, notes


def _scores(tokenizer: CheckpointTokenizer) -> list[float]:
    """By token, higher where its merges come sooner; 0 where none gives it."""
    if tokenizer.scores is not None:
        return list(tokenizer.scores)
    scores = [0.0] * len(tokenizer.tokens)
    for rank, (_, _, merged) in reversed(list(enumerate(tokenizer.merges))):
        scores[merged] = -float(rank)
    return scores


def _merges(tokenizer: CheckpointTokenizer) -> list[tuple[int, int, int]]:
    """Those that can happen: an added token is split off before any merging."""
    flags = tokenizer.flags
    return [merge for merge in tokenizer.merges if not any(flags[token] & ADDED for token in merge)]


def _special_tokens(tokenizer: CheckpointTokenizer) -> tuple[dict[str, bytes], list[str]]:
    ids = {
        token: i
        for i, (token, flags) in enumerate(zip(tokenizer.tokens, tokenizer.flags, strict=True))
        if flags & ADDED
    }
    named = {name: ids[value.encode()] for name, value in tokenizer.named_tokens.items() if value.encode() in ids}
    stops = tokenizer.stop_tokens
    eos = named.get("eos_token")
    if eos in stops:
        stops = (eos, *(stop for stop in stops if stop != eos))
    found = {
        "bos": tokenizer.bos_token if tokenizer.bos_token is not None else named.get("bos_token"),
        "unknown": tokenizer.unknown_token if tokenizer.unknown_token is not None else named.get("unk_token"),
        "padding": named.get("pad_token"),
    }
    metadata = {_id_key(name): u32(token) for name, token in found.items() if token is not None}
    ends, rest = _stop_tokens(stops)
    notes = []
    if rest:
        words = ", ".join(tokenizer.tokens[stop].decode(errors="replace") for stop in rest)
        notes.append(
            f"GGUF names three tokens that end an answer; {words} end(s) one as well, where a program knows the name"
        )
    return metadata | ends, notes


def token_id_metadata(conf: Conf) -> tuple[dict[str, bytes], list[str]]:
    """The keys tokenizer.* of a model without a tokenizer, and notes."""
    metadata = {"tokenizer.ggml.model": text("no_vocab"), "tokenizer.ggml.add_bos_token": flag(conf.bos_token >= 0)}
    if conf.bos_token >= 0:
        metadata[_id_key("bos")] = u32(conf.bos_token)
    ends, rest = _stop_tokens(conf.stop_tokens)
    notes = ["there is no tokenizer: programs take token ids only"]
    if rest:
        notes.append(f"GGUF names three tokens that end an answer; {', '.join(map(str, rest))} end(s) one as well")
    return metadata | ends, notes


def _stop_tokens(stops: Sequence[int]) -> tuple[dict[str, bytes], Sequence[int]]:
    """The keys of those that GGUF has names for, and the rest."""
    names = ("eos", "eot", "eom")
    return {_id_key(name): u32(stop) for name, stop in zip(names, stops, strict=False)}, stops[len(names) :]


def _id_key(name: str) -> str:
    return f"tokenizer.ggml.{name}_token_id"
