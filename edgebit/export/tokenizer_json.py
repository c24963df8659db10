"""tokenizer.json and tokenizer_config.json of a tokenizer that a model file kept."""

from typing import Any

from edgebit.checkpoint.tokenizer import ADDED, NORMALIZED, SPECIAL, UNUSED, CheckpointTokenizer, Kind
from edgebit.export.token_names import token_name
from edgebit.export.tokenizer_steps import decoder, normalizer, pre_tokenizer


def tokenizer_json(tokenizer: CheckpointTokenizer) -> dict[str, Any]:
    """tokenizer.json as `tokenizers` reads it."""
    used = [token for token, flags in enumerate(tokenizer.flags) if not flags & UNUSED]
    names = {token: token_name(tokenizer, token) for token in used}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token, "content": names[token], **_added(tokenizer, token)}
            for token in used
            if tokenizer.flags[token] & ADDED
        ],
        "normalizer": normalizer(tokenizer),
        "pre_tokenizer": pre_tokenizer(tokenizer),
        "post_processor": _post_processor(tokenizer, names),
        "decoder": decoder(tokenizer),
        "model": _model(tokenizer, names),
    }


def _model(tokenizer: CheckpointTokenizer, names: dict[int, str]) -> dict[str, Any]:
    falls_back, unknown = tokenizer.kind == Kind.BYTE_FALLBACK, tokenizer.unknown_token
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None if unknown is None else names[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": falls_back,
        "byte_fallback": falls_back,
        "ignore_merges": tokenizer.ignore_merges,
        "vocab": {names[token]: token for token in sorted(_in_vocab(tokenizer, names))},
        "merges": [[names[left], names[right]] for left, right, _ in _merges(tokenizer)],
    }


def _in_vocab(tokenizer: CheckpointTokenizer, names: dict[int, str]) -> set[int]:
    """The tokens that stand in `vocab`: `tokenizers` numbers added ones that do not from the size of `vocab` on."""
    ids = {token for token in names if token in tokenizer.merged_ids or not tokenizer.flags[token] & ADDED}
    if tokenizer.unknown_token is not None:
        ids.add(tokenizer.unknown_token)
    rest = sorted(set(names) - ids)
    misnumbered = [i for i, token in enumerate(rest) if token != len(ids) + i]
    return ids.union(rest[: misnumbered[-1] + 1] if misnumbered else [])


def _merges(tokenizer: CheckpointTokenizer) -> list[tuple[int, int, int]]:
    """By rank, each its own; of one score as transformers writes SentencePiece's: the longer left half first."""
    merged_ids, scores, tokens = tokenizer.merged_ids, tokenizer.scores, tokenizer.tokens
    merges = [merge for merge in tokenizer.merges if merged_ids.issuperset(merge)]
    if scores is None:
        return merges
    return sorted(merges, key=lambda merge: (-scores[merge[2]], -len(tokens[merge[0]].decode(errors="replace"))))


def tokenizer_config_json(tokenizer: CheckpointTokenizer, context_max: int) -> dict[str, Any]:
    """tokenizer_config.json as transformers reads it; the chat template is in a file of its own."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(token): {"content": token_name(tokenizer, token), **_added(tokenizer, token)}
            for token, flags in enumerate(tokenizer.flags)
            if flags & ADDED
        },
        **tokenizer.named_tokens,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context_max,
        **({} if tokenizer.chat_template is None else {"chat_template": tokenizer.chat_template}),
    }


def _added(tokenizer: CheckpointTokenizer, token: int) -> dict[str, bool]:
    flags = tokenizer.flags[token]
    whole = {"single_word": False, "lstrip": False, "rstrip": False}
    return {**whole, "normalized": bool(flags & NORMALIZED), "special": bool(flags & SPECIAL)}


def _post_processor(tokenizer: CheckpointTokenizer, names: dict[int, str]) -> dict[str, Any] | None:
    """What puts begin-of-text first."""
    if tokenizer.bos_token is None:
        return None
    bos = names[tokenizer.bos_token]
    first, second = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, second],
        "pair": [first, second, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_token], "tokens": [bos]}},
    }
