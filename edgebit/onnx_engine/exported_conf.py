"""What a runner must know of an exported model beside its graph: the JSON in model.onnx's property edgebit.conf."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from edgebit.bundle.conf_section import SIZE_MAX
from edgebit.errors import OnnxError

_SIZES = ("n_layers", "n_kv_heads", "head_dim", "vocab_size", "context_max")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedConf:
    """Names and meaning as in bundle.model_format.Conf; `generation` is the makers' advice, as META has it."""

    n_layers: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    context_max: int  # tokens
    bos_token: int | None
    stop_tokens: tuple[int, ...]
    generation: Mapping[str, Any]

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read it. Raises OnnxError, with `where` in front, saying what in it cannot be."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise OnnxError(f"{where}: edgebit.conf is no JSON: {error}. Export the model again") from None
        if not isinstance(content, dict):
            raise OnnxError(f"{where}: edgebit.conf is no JSON object. Export the model again")
        for name in _SIZES:
            value = content.get(name)
            if type(value) is not int or not 1 <= value <= SIZE_MAX[name]:
                raise OnnxError(
                    f"{where}: edgebit.conf says {name} is {value!r}; 1 to {SIZE_MAX[name]} are possible. "
                    "Export the model again"
                )
        bos, stops, vocab_size = content.get("bos_token"), content.get("stop_tokens", []), content["vocab_size"]
        begin = [] if bos in (None, -1) else [bos]
        if not isinstance(stops, list) or any(
            type(token) is not int or not 0 <= token < vocab_size for token in [*stops, *begin]
        ):
            raise OnnxError(
                f"{where}: edgebit.conf has the begin-of-text token {bos!r} and the stop tokens {stops!r}, "
                f"the vocabulary {vocab_size} tokens. Export the model again"
            )
        generation = content.get("generation")
        return cls(
            **{name: content[name] for name in _SIZES},
            bos_token=None if bos in (None, -1) else bos,
            stop_tokens=tuple(stops),
            generation=generation if isinstance(generation, dict) else {},
        )
