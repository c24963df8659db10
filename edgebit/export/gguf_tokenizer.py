"""A tokenizer as GGUF's metadata has it.

Sources: docs/gguf.md of ggml; llama.cpp, src/llama-vocab.cpp, for what each tokenizer.ggml.pre means.
"""

from edgebit.checkpoint.tokenizer import ADDED, SPECIAL, UNUSED, CheckpointTokenizer
from edgebit.export.gguf_file import flag, i32s, text, texts, u32
from edgebit.export.token_names import token_name

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # token types


def tokenizer_metadata(tokenizer: CheckpointTokenizer | None, vocab_size: int) -> tuple[dict[str, bytes], list[str]]:
    """The keys tokenizer.*, for a vocabulary of `vocab_size` rows, and notes on what the file cannot say."""
    if tokenizer is None:
        note = "there is no tokenizer: programs take token ids only"
        return {"tokenizer.ggml.model": text("no_vocab")}, [note]
    names = [token_name(tokenizer, token) for token in range(len(tokenizer.tokens))]
    names += [""] * (vocab_size - len(names))
    types = [_type(flags) for flags in tokenizer.flags] + [_UNUSED] * (vocab_size - len(tokenizer.flags))
    metadata = {
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.pre": text(_pre(tokenizer)),
        "tokenizer.ggml.tokens": texts([(name or f"[PAD{i}]").encode() for i, name in enumerate(names)]),
        "tokenizer.ggml.token_type": i32s(types),
        "tokenizer.ggml.merges": texts(
            [f"{names[left]} {names[right]}".encode() for left, right, _ in tokenizer.merges]
        ),
        "tokenizer.ggml.add_bos_token": flag(tokenizer.bos_token is not None),
        "tokenizer.ggml.add_eos_token": flag(False),
    }
    special, notes = _special_tokens(tokenizer)
    if tokenizer.chat_template is not None:
        metadata["tokenizer.chat_template"] = text(tokenizer.chat_template)
    return metadata | special, notes


def _type(flags: int) -> int:
    if flags & UNUSED:
        return _UNUSED
    if flags & SPECIAL:
        return _CONTROL
    return _USER_DEFINED if flags & ADDED else _NORMAL


def _pre(tokenizer: CheckpointTokenizer) -> str:
    """Of the names that llama.cpp has for Llama 3's pattern, one that takes whole tokens as this tokenizer does."""
    return "llama-bpe" if tokenizer.ignore_merges else "dbrx"


def _special_tokens(tokenizer: CheckpointTokenizer) -> tuple[dict[str, bytes], list[str]]:
    ids = {
        token: i
        for i, (token, flags) in enumerate(zip(tokenizer.tokens, tokenizer.flags, strict=True))
        if flags & ADDED
    }
    named = {name: ids[value.encode()] for name, value in tokenizer.named_tokens.items() if value.encode() in ids}
    bos = tokenizer.bos_token if tokenizer.bos_token is not None else named.get("bos_token")
    stops = list(tokenizer.stop_tokens)
    eos = named.get("eos_token", stops[0] if stops else None)
    found = {
        "bos": bos,
        "eos": eos,
        "unknown": named.get("unk_token"),
        "padding": named.get("pad_token"),
        "eot": next((stop for stop in stops if stop != eos), None),
    }
    rest = [stop for stop in stops if stop not in (found["eos"], found["eot"])]
    notes = []
    if rest:
        words = ", ".join(tokenizer.tokens[stop].decode(errors="replace") for stop in rest)
        notes.append(
            f"GGUF names two tokens that end an answer; {words} end(s) one as well, where a program knows the name"
        )
    return {f"tokenizer.ggml.{name}_token_id": u32(token) for name, token in found.items() if token is not None}, notes
