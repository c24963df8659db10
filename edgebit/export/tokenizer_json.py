"""tokenizer.json and tokenizer_config.json of a tokenizer that a model file kept."""

from typing import Any

from edgebit.checkpoint.tokenizer import ADDED, SPECIAL, UNUSED, CheckpointTokenizer
from edgebit.checkpoint.tokenizer.pre_tokenizers import LLAMA3_PATTERN
from edgebit.export.token_names import token_name


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
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": _post_processor(tokenizer, names),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": tokenizer.ignore_merges,
            "vocab": {names[token]: token for token in used if not tokenizer.flags[token] & ADDED},
            "merges": [[names[left], names[right]] for left, right, _ in tokenizer.merges],
        },
    }


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
    special = bool(tokenizer.flags[token] & SPECIAL)
    return {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}


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
