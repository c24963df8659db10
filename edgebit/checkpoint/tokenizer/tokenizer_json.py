"""A checkpoint's tokenizer.json, read with the configuration files beside it. Standard library only."""

from pathlib import Path
from typing import Any

from edgebit.checkpoint.tokenizer.chat_template_file import read_chat_template
from edgebit.checkpoint.tokenizer.forms import Kind
from edgebit.checkpoint.tokenizer.json_object import read_json_object
from edgebit.checkpoint.tokenizer.prompt_tokens import bos_token, named_tokens, stop_tokens
from edgebit.checkpoint.tokenizer.text_form import read_text_form
from edgebit.checkpoint.tokenizer.tokenizer import CheckpointTokenizer
from edgebit.checkpoint.tokenizer.vocabulary import Vocabulary, bytes_without_token, read_merges, read_vocabulary
from edgebit.errors import TokenizerError

_DISORDER = (
    LookupError, TypeError, ValueError, AttributeError, StopIteration, ArithmeticError, RecursionError,
)  # fmt: skip


def read_tokenizer_json(file: Path) -> CheckpointTokenizer:
    """Read a tokenizer.json with the configuration files beside it.

    Raises TokenizerError naming the file and what in it edgebit does not carry over exactly.
    """
    data = read_json_object(file)
    if data is None:
        raise TokenizerError(f"{file}: there is no such file, nor a tokenizer.model")
    folder = file.parent
    config = read_json_object(folder / "tokenizer_config.json") or {}
    try:
        return _build(data, config, folder)
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from None
    except _DISORDER as error:
        raise TokenizerError(f"{file}: not a tokenizer.json as `tokenizers` writes it: {error!r}") from error


def _build(data: dict[str, Any], config: dict[str, Any], folder: Path) -> CheckpointTokenizer:
    model = data["model"]
    _check_model(model)
    form = read_text_form(data)
    vocab: dict[str, int] = model["vocab"]
    entries = data.get("added_tokens") or []
    vocabulary = read_vocabulary(form, vocab, entries)
    _check_bytes(form.kind, vocabulary, model.get("unk_token"))
    ids = vocab | {entry["content"]: entry["id"] for entry in entries}
    named = named_tokens(config)
    template = read_chat_template(folder)
    bos = bos_token(data, config, named, ids, template)
    if bos is not None and not 0 <= bos < len(vocabulary.tokens):
        raise TokenizerError(f"post-processor puts token {bos} before a text: there are {len(vocabulary.tokens)}")
    return CheckpointTokenizer(
        kind=form.kind,
        pre_tokenizer=form.pre_tokenizer,
        normalizer=form.normalizer,
        space_prefix=form.space_prefix,
        strip_leading_space=form.strip_leading_space,
        unknown_token=ids.get(model.get("unk_token")),
        tokens=vocabulary.tokens,
        flags=vocabulary.flags,
        merges=tuple(read_merges(model["merges"], vocab, vocabulary.merged_ids)),
        ignore_merges=bool(model.get("ignore_merges", False)),
        merged_ids=vocabulary.merged_ids,
        bos_token=bos,
        stop_tokens=stop_tokens(folder, named, ids, entries, template),
        named_tokens=named,
        chat_template=template,
    )


def _check_model(model: dict[str, Any]) -> None:
    """Raise TokenizerError for any setting that changes ids and that section TOKN has no place for."""
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(f"model type {model['type']} is not supported: only BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"model.{key} = {model[key]!r} is not supported")
    if model.get("byte_fallback") and model.get("ignore_merges"):
        raise TokenizerError("model.ignore_merges with byte_fallback is not supported")


def _check_bytes(kind: Kind, vocabulary: Vocabulary, unk_token: str | None) -> None:
    """Raise TokenizerError where a byte without a token becomes the unknown token; without one, it is left out."""
    missing = bytes_without_token(kind, vocabulary)
    if missing and (kind == Kind.BYTE_FALLBACK or unk_token is not None):
        raise TokenizerError(f"byte 0x{min(missing):02X} has no token, so text that holds it could not be kept")
