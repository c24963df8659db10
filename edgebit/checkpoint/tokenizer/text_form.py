"""What a tokenizer.json does with text before merging and after decoding, as one of the forms that a model file has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgebit.checkpoint.tokenizer.forms import Kind, Normalizer, PreTokenizer, SpacePrefix
from edgebit.checkpoint.tokenizer.pre_tokenizers import read_pre_tokenizer
from edgebit.errors import TokenizerError

SPACE_MARK = "\u2581"  # what SentencePiece writes for a space

_PREPEND = {"type": "Prepend", "prepend": SPACE_MARK}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
_SPLIT_AT_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_DECODERS = [
    {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_PREFIX_OF_SCHEME = {
    "always": SpacePrefix.UNSPACED_SEGMENT,
    "first": SpacePrefix.UNSPACED_TEXT,
    "never": SpacePrefix.NONE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TextForm:
    """The part of CheckpointTokenizer that a tokenizer.json's steps decide."""

    kind: Kind
    pre_tokenizer: PreTokenizer
    normalizer: Normalizer
    space_prefix: SpacePrefix
    strip_leading_space: bool


def read_text_form(data: dict[str, Any]) -> TextForm:
    """From normalizer, pre_tokenizer and decoder; TokenizerError naming the one that no model file has a place for."""
    if data["model"].get("byte_fallback"):
        return TextForm(
            kind=Kind.BYTE_FALLBACK,
            pre_tokenizer=PreTokenizer.NONE,
            normalizer=Normalizer.NONE,
            space_prefix=_space_prefix(data),
            strip_leading_space=_strips_space(data.get("decoder")),
        )
    decoder = data.get("decoder")
    if decoder is not None and decoder.get("type") != "ByteLevel":
        raise TokenizerError(f"decoder {decoder.get('type')} is not supported: only ByteLevel")
    return TextForm(
        kind=Kind.BYTE_LEVEL,
        pre_tokenizer=read_pre_tokenizer(data.get("pre_tokenizer")),
        normalizer=_byte_level_normalizer(data.get("normalizer")),
        space_prefix=SpacePrefix.NONE,
        strip_leading_space=False,
    )


def _steps(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a Sequence, or the one that stands there by itself."""
    if step is None:
        return []
    return [inner for outer in step[key] for inner in _steps(outer, key)] if step.get("type") == "Sequence" else [step]


def _kinds(steps: Sequence[dict[str, Any]]) -> str:
    return ", ".join(str(step.get("type")) for step in steps) or "none"


def _byte_level_normalizer(normalizer: dict[str, Any] | None) -> Normalizer:
    steps = _steps(normalizer, "normalizers")
    if not steps:
        return Normalizer.NONE
    if [step.get("type") for step in steps] == ["NFC"]:
        return Normalizer.NFC
    raise TokenizerError(f"normalizer {_kinds(steps)} is not supported: text must be taken as it is, or as NFC")


def _space_prefix(data: dict[str, Any]) -> SpacePrefix:
    """Of a SentencePiece-style BPE: text is one piece, in which spaces are marks."""
    normalizers = _steps(data.get("normalizer"), "normalizers")
    pre_tokenizers = _steps(data.get("pre_tokenizer"), "pretokenizers")
    if normalizers == [_PREPEND, _REPLACE] and not pre_tokenizers:
        return SpacePrefix.SEGMENT
    if normalizers == [_REPLACE] and pre_tokenizers in ([], [_SPLIT_AT_SPACES]):  # no space is left to split at
        return SpacePrefix.NONE
    if not normalizers and len(pre_tokenizers) == 1 and pre_tokenizers[0].get("type") == "Metaspace":
        return _metaspace_prefix(pre_tokenizers[0])
    raise TokenizerError(
        f"with byte_fallback, normalizer {_kinds(normalizers)} and pre-tokenizer {_kinds(pre_tokenizers)} are not "
        "supported: only (Prepend and) Replace of spaces by U+2581, or Metaspace"
    )


def _metaspace_prefix(metaspace: dict[str, Any]) -> SpacePrefix:
    if metaspace.get("replacement") != SPACE_MARK or metaspace.get("split", True):
        raise TokenizerError("the pre-tokenizer's Metaspace must have split off, and U+2581 as replacement")
    scheme = str(metaspace.get("prepend_scheme", "always"))
    if scheme not in _PREFIX_OF_SCHEME:
        raise TokenizerError(f"the pre-tokenizer's Metaspace has prepend_scheme {scheme!r}: that is not supported")
    return _PREFIX_OF_SCHEME[scheme]


def _strips_space(decoder: dict[str, Any] | None) -> bool:
    steps = _steps(decoder, "decoders")
    if steps == _DECODERS:
        return False
    if steps == [*_DECODERS, _STRIP]:
        return True
    raise TokenizerError(
        f"with byte_fallback, decoder {_kinds(steps)} is not supported: only Replace, ByteFallback, Fuse and Strip of "
        "one space"
    )
