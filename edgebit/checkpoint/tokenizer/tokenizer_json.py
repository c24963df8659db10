"""A checkpoint's tokenizer.json, read with the configuration files beside it. Standard library only."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgebit.checkpoint.tokenizer.byte_alphabet import BYTE_OF, byte_level_bytes
from edgebit.checkpoint.tokenizer.chat_template_file import read_chat_template
from edgebit.checkpoint.tokenizer.forms import ADDED, MAX_VOCAB, SPECIAL, UNUSED
from edgebit.checkpoint.tokenizer.json_object import read_json_object
from edgebit.checkpoint.tokenizer.pre_tokenizers import read_pre_tokenizer
from edgebit.checkpoint.tokenizer.prompt_tokens import bos_token, named_tokens, stop_tokens
from edgebit.checkpoint.tokenizer.tokenizer import CheckpointTokenizer
from edgebit.errors import TokenizerError


def read_tokenizer(path: Path) -> CheckpointTokenizer:
    """Read the tokenizer.json at `path`, or in the folder `path`, with the configuration files beside it.

    Raises TokenizerError naming the file and what in it edgebit does not carry over exactly.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    data = read_json_object(file)
    if data is None:
        raise TokenizerError(f"{file}: there is no such file. edgebit reads tokenizer.json, not tokenizer.model")
    folder = file.parent
    config = read_json_object(folder / "tokenizer_config.json") or {}
    try:
        return _build(data, config, folder)
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise TokenizerError(f"{file}: not a tokenizer.json as `tokenizers` writes it: {error!r}") from error


def _build(data: dict[str, Any], config: dict[str, Any], folder: Path) -> CheckpointTokenizer:
    model = data["model"]
    _check_kind(data, model)
    vocab: dict[str, int] = model["vocab"]
    entries = data.get("added_tokens") or []
    tokens, flags, merged_ids = _tokens(vocab, entries)
    merges = tuple(_merges(model["merges"], vocab, merged_ids))
    for byte in range(256):
        if not any(tokens[i] == bytes([byte]) for i in _ids_of_byte(byte, vocab)):
            raise TokenizerError(f"byte 0x{byte:02X} has no token, so text that holds it could not be kept")

    ids = vocab | {entry["content"]: entry["id"] for entry in entries}
    named = named_tokens(config)
    template = read_chat_template(folder)
    return CheckpointTokenizer(
        pre_tokenizer=read_pre_tokenizer(data.get("pre_tokenizer")),
        tokens=tuple(tokens),
        flags=bytes(flags),
        merges=merges,
        ignore_merges=bool(model.get("ignore_merges", False)),
        merged_ids=frozenset(merged_ids),
        bos_token=bos_token(data, config, named, ids, template),
        stop_tokens=stop_tokens(folder, named, ids, entries, template),
        named_tokens=named,
        chat_template=template,
    )


def _check_kind(data: dict[str, Any], model: dict[str, Any]) -> None:
    """Raise TokenizerError for any setting that changes ids and that section TOKN has no place for."""
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(f"model type {model['type']} is not supported: only byte-level BPE")
    if model.get("byte_fallback"):
        raise TokenizerError("byte_fallback (SentencePiece BPE) is not supported: only byte-level BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"model.{key} = {model[key]!r} is not supported")
    normalizer = data.get("normalizer")
    if normalizer is not None and not (normalizer.get("type") == "Sequence" and not normalizer.get("normalizers")):
        raise TokenizerError(f"normalizer {normalizer.get('type')} is not supported: text must be taken as it is")
    decoder = data.get("decoder")
    if decoder is not None and decoder.get("type") != "ByteLevel":
        raise TokenizerError(f"decoder {decoder.get('type')} is not supported: only ByteLevel")


def _tokens(vocab: dict[str, int], entries: Sequence[dict[str, Any]]) -> tuple[list[bytes], bytearray, set[int]]:
    """Bytes and flags of every id, and the ids that merging can give."""
    added = {entry["content"]: entry for entry in entries}
    top = max([*vocab.values(), *(entry["id"] for entry in entries)], default=-1)
    if not 256 <= top + 1 <= MAX_VOCAB or min([*vocab.values(), *(entry["id"] for entry in entries)]) < 0:
        raise TokenizerError(f"token ids go up to {top}: there must be 256 to {MAX_VOCAB} of them")
    tokens, flags = [b""] * (top + 1), bytearray([UNUSED]) * (top + 1)
    merged_ids = set()
    for text, token in vocab.items():
        if not text:
            continue
        if tokens[token]:
            raise TokenizerError(f"token id {token} is given twice, to {text!r} and to another")
        try:
            tokens[token] = byte_level_bytes(text)
            merged_ids.add(token)
        except ValueError:  # no pair of bytes merges to it; where it is decoded, it stands for itself
            tokens[token] = text.encode()
        flags[token] = 0
    for content, entry in added.items():
        token = entry["id"]
        _check_added(entry, vocab)
        if not content:
            continue
        if content not in vocab and tokens[token]:
            raise TokenizerError(f"token id {token} is given twice, to {content!r} and {tokens[token]!r}")
        if content in vocab and tokens[token] != content.encode():
            raise TokenizerError(f"added token {content!r} stands for other bytes in the vocabulary: {tokens[token]!r}")
        tokens[token] = content.encode()
        flags[token] = ADDED | (SPECIAL if entry.get("special") else 0)
    _check_overlaps(list(added.values()))
    return tokens, flags, merged_ids


def _ids_of_byte(byte: int, vocab: dict[str, int]) -> Iterable[int]:
    return (vocab[char] for char, value in BYTE_OF.items() if value == byte and char in vocab)


def _check_added(entry: dict[str, Any], vocab: dict[str, int]) -> None:
    name, token = entry["content"], entry["id"]
    for key in ("lstrip", "rstrip", "single_word"):
        if entry.get(key):
            raise TokenizerError(f"added token {name!r} has {key}: that is not supported")
    if vocab.get(name, token) != token:
        raise TokenizerError(f"added token {name!r} has id {token}, but {vocab[name]} in the vocabulary")


def _check_overlaps(entries: Sequence[dict[str, Any]]) -> None:
    """`tokenizers` splits off the not normalized added tokens first, then the normalized: we split off all at once.

    It is the same unless a name of one kind can overlap with a name of the other in a text: then TokenizerError.
    """
    first = [entry["content"] for entry in entries if not entry.get("normalized", False)]
    second = [entry["content"] for entry in entries if entry.get("normalized", False)]
    for a in first:
        for b in second:
            shorter = min(len(a), len(b))
            if a in b or b in a or any(a[-n:] == b[:n] or b[-n:] == a[:n] for n in range(1, shorter)):
                raise TokenizerError(f"added tokens {a!r} and {b!r} (normalized) can overlap: not supported")


def _merges(merges: Sequence[Any], vocab: dict[str, int], merged_ids: set[int]) -> Iterable[tuple[int, int, int]]:
    """(left, right, merged) of each merge, which stands as "a b" or as ["a", "b"]."""
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2:
            raise TokenizerError(f"merge {rank} is {merge!r}, not two tokens")
        left, right = parts
        try:
            ids = vocab[left], vocab[right], vocab[left + right]
        except KeyError as error:
            raise TokenizerError(f"merge {rank}, {merge!r}, needs {error}, which is not in the vocabulary") from None
        if ids[2] not in merged_ids:
            raise TokenizerError(f"merge {rank}, {merge!r}, has characters that stand for no byte")
        yield ids
