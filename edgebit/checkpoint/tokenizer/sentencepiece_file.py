"""A checkpoint's tokenizer.model: SentencePiece's protobuf, of a BPE with byte fallback, as Llama 2 has it.

Source: sentencepiece_model.proto (field numbers below); what transformers' LlamaTokenizer makes of it.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebit.bundle.lfs_pointer import LFS_POINTER, is_lfs_pointer
from edgebit.checkpoint.tokenizer.chat_template_file import read_chat_template
from edgebit.checkpoint.tokenizer.forms import Kind, Normalizer, PreTokenizer, SpacePrefix
from edgebit.checkpoint.tokenizer.json_object import read_json_object
from edgebit.checkpoint.tokenizer.pieces import Pieces, PieceType, merges_by_score, sort_pieces
from edgebit.checkpoint.tokenizer.prompt_tokens import bos_token, named_tokens, stop_tokens
from edgebit.checkpoint.tokenizer.protobuf_message import read_fields
from edgebit.checkpoint.tokenizer.text_form import TextForm
from edgebit.checkpoint.tokenizer.tokenizer import CheckpointTokenizer
from edgebit.checkpoint.tokenizer.vocabulary import bytes_without_token, read_vocabulary
from edgebit.errors import TokenizerError

_MAX_BYTES = 16 << 20  # Gemma's 262,144 pieces take 4.7 MB
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # of ModelProto
_PIECE, _SCORE, _TYPE = 1, 2, 3  # of SentencePiece
_MODEL_TYPE, _SPACE_AS_SUFFIX, _UNK_ID, _BOS_ID, _EOS_ID = 3, 24, 40, 41, 42  # of TrainerSpec
_CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES, _ESCAPE_SPACES, _RULES = 2, 3, 4, 5, 6  # of NormalizerSpec
_UNIGRAM, _BPE = 1, 2
_MODEL_TYPES = {_UNIGRAM: "unigram", 3: "word", 4: "char"}


@dataclass(slots=True)
class _Model:
    texts: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    trainer: dict[int, Any] = field(default_factory=dict)
    normalizer: dict[int, Any] = field(default_factory=dict)


def read_sentencepiece_file(file: Path) -> CheckpointTokenizer:
    """Read a tokenizer.model with the configuration files beside it.

    Raises TokenizerError naming the file and what in it edgebit does not carry over exactly.
    """
    try:
        with file.open("rb") as opened:
            if is_lfs_pointer(opened):
                raise TokenizerError(f"{file}: {LFS_POINTER}")
            data = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise TokenizerError(f"{file}: cannot be read: {error}") from error
    if len(data) > _MAX_BYTES:
        raise TokenizerError(f"{file}: has more than {_MAX_BYTES} bytes, which are the limit")
    folder = file.parent
    config = read_json_object(folder / "tokenizer_config.json") or {}
    try:
        return _build(_parse(data), config, folder)
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error) as error:
        raise TokenizerError(f"{file}: not a SentencePiece model: {error!r}") from error


def _parse(data: bytes) -> _Model:
    model = _Model()
    for number, value in read_fields(data):
        if number not in (_PIECES, _TRAINER, _NORMALIZER):
            continue
        if not isinstance(value, bytes):
            raise TokenizerError(f"not a SentencePiece model: field {number} is a number")
        fields = dict(read_fields(value))
        if number == _PIECES:
            model.texts.append(_bytes(fields[_PIECE]).decode())
            model.scores.append(struct.unpack("<f", _bytes(fields.get(_SCORE, bytes(4))))[0])
            model.types.append(int(fields.get(_TYPE, PieceType.NORMAL)))
        else:
            (model.trainer if number == _TRAINER else model.normalizer).update(fields)
    if not model.texts:
        raise TokenizerError("not a SentencePiece model: it has no pieces")
    return model


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TokenizerError("not a SentencePiece model: a number where bytes are expected")
    return value


def _check_model(model: _Model) -> None:
    """Raise TokenizerError for any setting that changes ids and that section TOKN has no place for."""
    kind = model.trainer.get(_MODEL_TYPE, _UNIGRAM)
    if kind != _BPE:
        raise TokenizerError(f"a SentencePiece model of type {_MODEL_TYPES.get(kind, kind)} is not supported: only bpe")
    if model.normalizer.get(_CHARSMAP) or model.normalizer.get(_RULES):
        raise TokenizerError("its normalization rules are not supported: only identity")
    for number, default, words in (
        (_REMOVE_SPACES, 1, "remove_extra_whitespaces is on"),
        (_ESCAPE_SPACES, 1, "escape_whitespaces is off"),
    ):
        if bool(model.normalizer.get(number, default)) != (number == _ESCAPE_SPACES):
            raise TokenizerError(f"its {words}: that is not supported")
    if model.trainer.get(_SPACE_AS_SUFFIX):
        raise TokenizerError("its treat_whitespace_as_suffix is on: that is not supported")
    if PieceType.UNUSED in model.types:
        raise TokenizerError("it has unused pieces, which are taken apart again: that is not supported")


def _build(model: _Model, config: dict[str, Any], folder: Path) -> CheckpointTokenizer:
    _check_model(model)
    pieces = sort_pieces(model.texts, model.types)
    named = _names(model) | named_tokens(config)
    _put_added(pieces, config, folder, named)
    prefix = bool(model.normalizer.get(_DUMMY_PREFIX, 1))
    legacy = (
        config.get("legacy") is not False
    )  # transformers: the prefix goes before each segment, else before the text
    form = TextForm(
        kind=Kind.BYTE_FALLBACK,
        pre_tokenizer=PreTokenizer.NONE,
        normalizer=Normalizer.NONE,
        space_prefix=(SpacePrefix.SEGMENT if legacy else SpacePrefix.UNSPACED_TEXT) if prefix else SpacePrefix.NONE,
        strip_leading_space=prefix,
    )
    vocabulary = read_vocabulary(form, pieces.vocab, pieces.added)
    if missing := bytes_without_token(form.kind, vocabulary):
        raise TokenizerError(f"byte 0x{min(missing):02X} has no token (byte_fallback): text could not be kept")
    scores = tuple(model.scores) + (0.0,) * (len(vocabulary.tokens) - len(model.scores))
    template = read_chat_template(folder)
    ids, adds_bos = pieces.ids, {"add_bos_token": config.get("add_bos_token", True)}
    return CheckpointTokenizer(
        kind=form.kind,
        pre_tokenizer=form.pre_tokenizer,
        normalizer=form.normalizer,
        space_prefix=form.space_prefix,
        strip_leading_space=form.strip_leading_space,
        unknown_token=ids.get(named.get("unk_token", "")),
        tokens=vocabulary.tokens,
        flags=vocabulary.flags,
        merges=merges_by_score(pieces.vocab, scores, vocabulary.merged_ids),
        scores=scores,
        ignore_merges=False,
        merged_ids=vocabulary.merged_ids,
        bos_token=bos_token({}, config | adds_bos, named, ids, template),
        stop_tokens=stop_tokens(folder, named, ids, pieces.added, template),
        named_tokens=named,
        chat_template=template,
    )


def _names(model: _Model) -> dict[str, str]:
    """Unknown, begin-of-text and end-of-text token, by the names that chat templates have for them."""
    defaults = {"unk_token": (_UNK_ID, 0), "bos_token": (_BOS_ID, 1), "eos_token": (_EOS_ID, 2)}
    ids = {key: int(model.trainer.get(number, default)) for key, (number, default) in defaults.items()}
    return {key: model.texts[token] for key, token in ids.items() if token < len(model.texts)}


def _put_added(pieces: Pieces, config: dict[str, Any], folder: Path, named: dict[str, str]) -> None:
    """Tokens behind the model's own: of tokenizer_config.json, or of added_tokens.json as older files have it."""
    known = pieces.ids
    entries = [{"id": int(token), **entry} for token, entry in (config.get("added_tokens_decoder") or {}).items()]
    special = {*named.values(), *map(str, config.get("additional_special_tokens") or [])}
    for content, token in (read_json_object(folder / "added_tokens.json") or {}).items():
        if all(entry["content"] != content for entry in entries):
            entries.append({"content": content, "id": int(token), "special": content in special})
    for entry in entries:
        if known.get(entry["content"]) != entry["id"]:
            pieces.added.append({**entry, "normalized": False})
