"""Two models compared part by part."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np

from edgebit.bundle.model_format import Conf, Norms
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.model_diff.templates import template_differences
from edgebit.model_diff.tensors import shared_tensors, tensor_differences
from edgebit.model_diff.tokenizers import tokenizer_differences
from edgebit.progress import Progress, unwatched

_OF_THE_TOKENIZER = ("bos_token", "stop_tokens")  # fields of Conf that the tokenizer's files have the last word on


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same."""

    name: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What was compared of one part of the models."""

    title: str
    compared: str
    differences: tuple[Difference, ...]
    counts: bool = True  # whether a difference makes them other models


def diff_models(a: Checkpoint, b: Checkpoint, progress: Progress = unwatched) -> list[Part]:
    """Everything that differs between `a` and `b`, in the order in which a prompt meets it; weights in that of a pass.

    Raises CheckpointError and TokenizerError for what is wrong with one of them.
    """
    progress("tokenizers", 0, 0)
    tokenizers = a.tokenizer(), b.tokenizer()
    tensors = shared_tensors(a.config.conf, b.config.conf)
    return [
        _part("architecture", f"{len(fields(Conf))} properties", _conf_differences(a.config.conf, b.config.conf)),
        _part("tokenizer", _sizes(tokenizers), tokenizer_differences(*tokenizers)),
        _part("chat template", _whether(tokenizers), template_differences(*tokenizers)),
        _part("stop tokens", "ids", _stop_differences(_stops(a, tokenizers[0]), _stops(b, tokenizers[1]))),
        _part("response schema", _which_have(a, b), _schema_differences(a, b)),
        _part("tensors", f"{len(tensors)} that both have", tensor_differences(a, b, progress)),
        Part(
            title="metadata",
            compared="name, family, licence, advice for sampling",
            differences=tuple(Difference(*each) for each in _metadata_differences(a, b)),
            counts=False,
        ),
    ]


def are_equal(parts: Iterable[Part]) -> bool:
    """Whether both compute the same from the same prompts."""
    return not any(part.differences and part.counts for part in parts)


def _part(title: str, compared: str, differences: Iterable[tuple[str, str]]) -> Part:
    return Part(title=title, compared=compared, differences=tuple(Difference(*each) for each in differences))


def _which_have(a: Checkpoint, b: Checkpoint) -> str:
    return " and ".join("none" if each.response_schema() is None else "a schema" for each in (a, b))


def _schema_differences(a: Checkpoint, b: Checkpoint) -> list[tuple[str, str]]:
    one, other = (None if text is None else json.loads(text) for text in (a.response_schema(), b.response_schema()))
    if json.dumps(one) == json.dumps(other):
        return []
    return [("response schema", "answers under the model's own schema are other ones")]


def _conf_differences(a: Conf, b: Conf) -> list[tuple[str, str]]:
    names = [field.name for field in fields(Conf) if field.name not in _OF_THE_TOKENIZER]
    pairs = [(name, _stored(getattr(a, name)), _stored(getattr(b, name))) for name in names]
    return [(name, f"{_shown(one)} and {_shown(other)}") for name, one, other in pairs if one != other]


def _stored(value: Any) -> Any:
    """A number as files have it whose floats are of 32 bits, and a dict of such."""
    if isinstance(value, dict):
        return {key: str(_stored(each)) for key, each in value.items()}
    return np.float32(value) if isinstance(value, float) else value


def _metadata_differences(a: Checkpoint, b: Checkpoint) -> list[tuple[str, str]]:
    pairs = [
        ("name", a.config.name, b.config.name),
        ("family", a.family, b.family),
        ("licence", a.config.licence, b.config.licence),
        ("advised for sampling", _stored(a.config.generation), _stored(b.config.generation)),
    ]
    return [(name, f"{_shown(one)} and {_shown(other)}") for name, one, other in pairs if one != other]


def _stops(checkpoint: Checkpoint, tokenizer: CheckpointTokenizer | None) -> tuple[int, ...]:
    return (tokenizer.stop_tokens if tokenizer else ()) or checkpoint.config.conf.stop_tokens


def _stop_differences(one: tuple[int, ...], other: tuple[int, ...]) -> list[tuple[str, str]]:
    if set(one) == set(other):
        return []
    return [("stop tokens", f"{', '.join(map(str, one)) or 'none'} and {', '.join(map(str, other)) or 'none'}")]


def _sizes(tokenizers: Iterable[CheckpointTokenizer | None]) -> str:
    return " and ".join("none" if each is None else f"{len(each.tokens):,} tokens" for each in tokenizers)


def _whether(tokenizers: Iterable[CheckpointTokenizer | None]) -> str:
    return " and ".join("none" if each is None or each.chat_template is None else "a program" for each in tokenizers)


def _shown(value: Any) -> str:
    if isinstance(value, Norms):
        return " ".join(str(norm.name).lower() for norm in value) or "none"
    return value.name.lower() if isinstance(value, IntEnum) else str(value)
