"""The tokenizer files of a checkpoint to be made: written for merges that were learnt, or taken over from another."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebit.checkpoint.chat_template.choice import read_choice
from edgebit.checkpoint.json_text import read_json_text
from edgebit.checkpoint.tokenizer import PreTokenizer, has_tokenizer, read_tokenizer
from edgebit.checkpoint.tokenizer.byte_alphabet import BYTE_OF
from edgebit.checkpoint.tokenizer.pre_tokenizers import write_pre_tokenizer
from edgebit.errors import TrainError

BEGIN_OF_TEXT, END_OF_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
_CONFIG = "tokenizer_config.json"
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", _CONFIG, "special_tokens_map.json", "added_tokens.json",
    "generation_config.json", *_TEMPLATES,
)  # fmt: skip


def adopt_tokenizer(source: Path, folder: Path, *, template: str | None = None) -> None:
    """Copy the tokenizer files of the checkpoint `source` into `folder`, with another chat template if one is chosen.

    Raises TokenizerError where edgebit does not carry the tokenizer over exactly, TrainError where there is none.
    """
    if not has_tokenizer(source):
        raise TrainError(f"{source}: there is no tokenizer.json, nor a tokenizer.model. Name a folder that has one")
    read = read_tokenizer(source)
    jinja = None if template is None else read_choice(template, read)
    remove_tokenizer(folder)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if template is None:
        return
    for name in _TEMPLATES:
        (folder / name).unlink(missing_ok=True)
    config = read_json_text(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
    config.pop("chat_template", None)
    _write_json(folder / _CONFIG, config if jinja is None else config | {"chat_template": jinja})


def remove_tokenizer(folder: Path) -> None:
    """Remove what a training that never came to its first save has left: it would be read with the new files."""
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)


def vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Ids of all tokens that text can become: the bytes, then what the merges give."""
    texts = [*sorted(BYTE_OF), *(left + right for left, right in merges)]
    return {text: token for token, text in enumerate(dict.fromkeys(texts))}


def write_trained(folder: Path, merges: Sequence[tuple[str, str]], special: Sequence[str], jinja: str | None) -> None:
    """tokenizer.json and tokenizer_config.json of a byte-level BPE; `special` tokens come last, begin-of-text first."""
    vocab = vocabulary(merges)
    added = {token: len(vocab) + place for place, token in enumerate(special)}
    marks = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    begin, byte_level = added[BEGIN_OF_TEXT], {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token, "content": text, **marks} for text, token in added.items()],
        "normalizer": None,
        "pre_tokenizer": write_pre_tokenizer(PreTokenizer.LLAMA3),
        "post_processor": _begins_with(BEGIN_OF_TEXT, begin),
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": vocab, "merges": [list(merge) for merge in merges],
        },
    }  # fmt: skip
    config: dict[str, Any] = {
        "added_tokens_decoder": {str(token): {"content": text, **marks} for text, token in added.items()},
        "bos_token": BEGIN_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "model_input_names": ["input_ids", "attention_mask"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    remove_tokenizer(folder)
    # One line for the vocabulary: with one token a line it would be twice the size.
    _write_json(folder / "tokenizer.json", tokenizer, indent=None)
    _write_json(folder / _CONFIG, config if jinja is None else config | {"chat_template": jinja})


def _begins_with(token: str, number: int) -> dict[str, Any]:
    """The post-processor that puts a token before each text."""
    first, text = ({"SpecialToken": {"id": token, "type_id": place}} for place in (0, 1)), ("A", "B")
    parts = [
        [begin, {"Sequence": {"id": name, "type_id": place}}]
        for place, (begin, name) in enumerate(zip(first, text, strict=True))
    ]
    return {
        "type": "TemplateProcessing",
        "single": parts[0],
        "pair": [*parts[0], *parts[1]],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


def _write_json(path: Path, value: object, indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
