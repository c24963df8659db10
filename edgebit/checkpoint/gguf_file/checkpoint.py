"""Checkpoints in GGUF files: see edgebit.checkpoint.checkpoint.Checkpoint."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import PROJECTIONS, Encoding, Role, Scaling
from edgebit.checkpoint.checkpoint import Format, ModelConfig, Projection
from edgebit.checkpoint.gguf_file.activations import find_activations, stated_activations
from edgebit.checkpoint.gguf_file.architectures import match_architecture
from edgebit.checkpoint.gguf_file.config import read_config
from edgebit.checkpoint.gguf_file.expected_tensors import check_tensors
from edgebit.checkpoint.gguf_file.ffn_activation import find_ffn_activation
from edgebit.checkpoint.gguf_file.i2s_dialect import dialect_like, known_dialect, undecided
from edgebit.checkpoint.gguf_file.keys import Keys
from edgebit.checkpoint.gguf_file.split import GgufModel
from edgebit.checkpoint.gguf_file.tensor_names import ROPE_FACTORS, tensor_name
from edgebit.checkpoint.gguf_file.tensors import GgufTensors
from edgebit.checkpoint.gguf_file.ternary_tensors import TernaryTensors
from edgebit.checkpoint.gguf_file.tokenizer import read_tokenizer
from edgebit.checkpoint.hints import Hints
from edgebit.checkpoint.own_gguf_keys import RESPONSE_SCHEMA
from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.errors import CheckpointError


def open_gguf(path: Path, hints: Hints) -> "GgufCheckpoint":
    """Open a GGUF file, or the parts that `path` is one of; no weights are read, but those of a head that may be tied.

    Raises CheckpointError naming the file, and the key or tensor at fault.
    """
    model = GgufModel(path)
    try:
        return GgufCheckpoint(path, model, hints)
    except BaseException:
        model.close()
        raise


class GgufCheckpoint:
    """A checkpoint in GGUF files: see Checkpoint."""

    format: Format = "gguf"

    def __init__(self, path: Path, model: GgufModel, hints: Hints) -> None:
        """Check names, shapes and types of all tensors, and what the user must say. Raises CheckpointError."""
        self.path, self._model, self._hints = path, model, hints
        self.notes: list[str] = []
        self._tokenizer: CheckpointTokenizer | None = None
        self._has_read_tokenizer = False
        self._architecture = match_architecture(model.fields.get("general.architecture"), str(path))
        self.family = self._architecture.name
        self._tensors = GgufTensors(model)
        self.config = self._read_config()
        check_tensors(self._tensors, self._architecture, self.config.conf)
        self._ternary = TernaryTensors(self._tensors, self._architecture, self.config.conf)
        self._settle_i2s(hints)
        self._settle_head()
        self._settle_activations(hints)

    def close(self) -> None:
        self._model.close()

    def weight_files(self) -> list[Path]:
        """The files that the weights come from."""
        return [part.path for part in self._model.parts]

    def embedding_encoding(self) -> Encoding:
        return self._tensors.encoding(tensor_name(Role.TOKEN_EMBEDDING))

    def vector(self, role: Role, layer: int) -> NDArray[np.float32]:
        return self._tensors.vector(tensor_name(role, layer))

    def rows(self, role: Role) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        is_tied = role == Role.HEAD and self.config.conf.head_tied
        name = tensor_name(Role.TOKEN_EMBEDDING if is_tied else role)
        return self._tensors.float_rows(name)

    def scaling(self, role: Role, layer: int) -> Scaling:
        return self._ternary.scaling(role, layer)

    def projection(self, role: Role, layer: int) -> Projection:
        return self._ternary.projection(role, layer)

    def tokenizer(self) -> CheckpointTokenizer | None:
        if not self._has_read_tokenizer:
            where, hint = str(self._model.parts[0].path), self._hints.pre_tokenizer
            self._tokenizer, notes = read_tokenizer(self._model.fields, hint, where)
            self.notes += notes
            self._has_read_tokenizer = True
        return self._tokenizer

    def response_schema(self) -> bytes | None:
        """A key of edgebit's own. Raises CheckpointError where it holds no text."""
        value = self._model.fields.get(RESPONSE_SCHEMA)
        if value is None:
            return None
        if not isinstance(value, str):
            raise CheckpointError(f"{self.path}: {RESPONSE_SCHEMA} must be the text of a JSON Schema")
        return value.encode()

    def _read_config(self) -> ModelConfig:
        embedding = tensor_name(Role.TOKEN_EMBEDDING)
        factors = None
        if ROPE_FACTORS in self._tensors.names():
            factors = self._tensors.vector(ROPE_FACTORS)
            if not (factors > 0).all():
                raise CheckpointError(f"{self._tensors.where(ROPE_FACTORS)} holds what is not above 0")
        fields, vocab_size = self._model.fields, self._tensors.shape(embedding)[0]
        keys = Keys(self.path, fields, self._architecture.name)
        activation, note = find_ffn_activation(keys, self._architecture, vocab_size)
        self.notes += [note] if note else []
        return read_config(
            self.path,
            fields,
            self._architecture,
            activation=activation,
            vocab_size=vocab_size,
            rope_factors=factors,
        )

    def _settle_i2s(self, hints: Hints) -> None:
        projections = self._ternary.i2_s_projections()
        if not projections:
            if hints.i2s_dialect is not None or hints.i2s_reference is not None:
                self.notes.append("no weights are in I2_S: its dialect does not matter")
            return
        where = self._tensors.where(tensor_name(*projections[0]))
        dialect = hints.i2s_dialect
        if hints.i2s_reference is not None:
            shown = dialect_like(self._ternary, hints.i2s_reference, where)
            if dialect not in (None, shown):
                raise CheckpointError(
                    f"{where}: --i2s-dialect says {dialect}, and {hints.i2s_reference} shows {shown}. "
                    "Leave the wrong one out"
                )
            dialect = shown
            self.notes.append(f"I2_S is in dialect {dialect}, as {hints.i2s_reference} shows")
        known = known_dialect(self._model, where)
        if known is not None and dialect not in (None, known):
            raise CheckpointError(f"{where}: the file itself says dialect {known}, not {dialect}. Leave that out")
        dialect = dialect or known
        if dialect is None:
            raise undecided(where)
        self._ternary.use_dialect(dialect)

    def _settle_head(self) -> None:
        head, embedding = (tensor_name(role) for role in (Role.HEAD, Role.TOKEN_EMBEDDING))
        stored = head in self._tensors.names()
        if stored and self._tensors.are_equal(head, embedding):
            self.notes.append(f"{head} is {embedding} once more: the head is taken as tied to the embedding")
            stored = False
        self._change_conf(head_tied=not stored)
        if self._tensors.type(embedding).has_groups:
            self.notes.append(
                f"the embedding is what the file has, {self._tensors.type(embedding).name} dequantised to f32; "
                "--embedding int8 makes it smaller"
            )

    def _settle_activations(self, hints: Hints) -> None:
        types = {self._tensors.type(tensor_name(role, 0)).name for role in PROJECTIONS}
        said = hints.activations or stated_activations(self._model.fields, str(self.path))
        mode, note = find_activations(self._architecture, self.config.name, types, self.scaling(Role.Q_PROJ, 0), said)
        self._change_conf(activation_quantisation=mode)
        self.notes += [note] if note else []

    def _change_conf(self, **changes: Any) -> None:
        conf = dataclasses.replace(self.config.conf, **changes)
        self.config = dataclasses.replace(self.config, conf=conf)
