"""Checkpoints as Hugging Face keeps them: config.json, weights in safetensors or from PyTorch, tokenizer.json."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Encoding, Role, Scaling
from edgebit.checkpoint.checkpoint import RESPONSE_SCHEMA, Format, ModelConfig, Projection
from edgebit.checkpoint.hugging_face.config import read_config
from edgebit.checkpoint.hugging_face.families import FAMILIES, Family
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.matching import match_family
from edgebit.checkpoint.hugging_face.projections import ProjectionReader
from edgebit.checkpoint.hugging_face.tensor_check import TensorCheck
from edgebit.checkpoint.hugging_face.tensor_folder import TensorFolder
from edgebit.checkpoint.hugging_face.tensor_source import TensorSource, describe_place, float_chunks, float_vector
from edgebit.checkpoint.positioned_reads import open_to_read
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, has_tokenizer, read_tokenizer
from edgebit.errors import CheckpointError


def open_hugging_face(folder: Path, families: Sequence[Family] = FAMILIES) -> "HuggingFaceCheckpoint":
    """Open the checkpoint in `folder`, of one of the families; headers are checked, weights are not read yet.

    Raises CheckpointError naming the file, and the tensor where one is at fault.
    """
    if folder.is_file():
        open_to_read(folder).close()  # which says what is wrong with it, if it cannot be read
        known = "Known are a checkpoint's folder, a GGUF file, a model file and a bundle"
        advice = f"is one of a checkpoint's files. Give its folder: {folder.parent}"
        is_part = (folder.parent / "config.json").is_file()
        raise CheckpointError(f"{folder}: {advice if is_part else f'is no model. {known}'}")
    config = read_json(folder / "config.json")
    family = match_family(config, str(folder / "config.json"), families)
    model_config = read_config(folder, config, family)
    tensors = TensorFolder(folder)
    try:
        _check_promised_biases(config, family, tensors, folder / "config.json")
        model_config, notes = _tie_where_silent(config, model_config, family, tensors)
        return HuggingFaceCheckpoint(folder, model_config, family, tensors, notes)
    except BaseException:
        tensors.close()
        raise


def _tie_where_silent(
    config: Mapping[str, Any], model_config: ModelConfig, family: Family, tensors: TensorSource
) -> tuple[ModelConfig, list[str]]:
    """A model that has no head of its own takes the embedding, if its config.json does not say otherwise."""
    head = family.tensor_name(Role.HEAD)
    if "tie_word_embeddings" in config or head in tensors.names():
        return model_config, []
    note = f"config.json does not say whether the head is tied, and there is no {head}: the embedding is taken for it"
    return replace(model_config, conf=replace(model_config.conf, head_tied=True)), [note]


def _check_promised_biases(config: Mapping[str, Any], family: Family, tensors: TensorSource, where: Path) -> None:
    for key, role in (("attention_bias", Role.Q_PROJ), ("mlp_bias", Role.GATE_PROJ)):
        if config.get(key) and family.bias_name(role, 0) not in tensors.names():
            raise CheckpointError(f"{where}: {key} is set, but there is no tensor {family.bias_name(role, 0)}")


class HuggingFaceCheckpoint:
    """A checkpoint as Hugging Face keeps it: see Checkpoint."""

    format: Format

    def __init__(
        self, path: Path, config: ModelConfig, family: Family, tensors: TensorSource, notes: list[str]
    ) -> None:
        """Check the names, shapes and types of all tensors. Raises CheckpointError naming file and tensor."""
        self.path, self.config, self._family, self._tensors = path, config, family, tensors
        self.format, self.family = tensors.format, family.name
        self.notes = notes + TensorCheck(path, config.conf, family, tensors).run()
        self._projections = ProjectionReader(tensors, family.storage.scale)

    def close(self) -> None:
        self._tensors.close()

    def weight_files(self) -> list[Path]:
        """The files that the weights come from."""
        return self._tensors.files()

    def embedding_encoding(self) -> Encoding:
        return Encoding[self._tensors.info(self._family.tensor_name(Role.TOKEN_EMBEDDING)).dtype]

    def vector(self, role: Role, layer: int) -> NDArray[np.float32]:
        return float_vector(self._tensors, self._family.tensor_name(role, layer))

    def rows(self, role: Role) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """See Checkpoint.rows(). Raises CheckpointError where a tied head is stored as well, and differs."""
        tied_name = self._family.tensor_name(Role.HEAD)
        name = self._family.tensor_name(role)
        compare = None
        if role == Role.HEAD and self.config.conf.head_tied:
            compare = tied_name if tied_name in self._tensors.names() else None
            name = self._family.tensor_name(Role.TOKEN_EMBEDDING)
        for first, stored, values in float_chunks(self._tensors, name):
            if compare and not np.array_equal(stored, self._tensors.read(compare, first, len(stored))):
                place = describe_place(self._tensors, compare)
                raise CheckpointError(
                    f"{place} differs from {name}, though tie_word_embeddings is true: "
                    "set it to false if the head was trained on its own, or remove this tensor"
                )
            yield stored, values

    def scaling(self, role: Role, layer: int) -> Scaling:
        return self._projections.scaling(self._family.tensor_name(role, layer))

    def projection(self, role: Role, layer: int) -> Projection:
        return self._projections.read(self._family.tensor_name(role, layer))

    def tokenizer(self) -> CheckpointTokenizer | None:
        return read_tokenizer(self.path) if has_tokenizer(self.path) else None

    def response_schema(self) -> bytes | None:
        """The content of response_schema.json, a file of edgebit's own. Raises CheckpointError."""
        file = self.path / RESPONSE_SCHEMA
        try:
            return file.read_bytes() if file.is_file() else None
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
