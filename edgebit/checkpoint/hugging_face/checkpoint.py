"""Checkpoints as Hugging Face keeps them: config.json, weights in safetensors or from PyTorch, tokenizer.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import PER_TENSOR, Encoding, Role, Scaling
from edgebit.checkpoint.checkpoint import CHUNK_BYTES, ModelConfig, Projection
from edgebit.checkpoint.hugging_face.config import read_config
from edgebit.checkpoint.hugging_face.families import Family, Scale, match_family
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.safetensors_file import TensorInfo, as_float32
from edgebit.checkpoint.hugging_face.tensor_folder import TensorFolder
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, read_tokenizer
from edgebit.errors import CheckpointError
from edgebit.ternary.absmean import absmean_factor, ternary_codes
from edgebit.ternary.layouts import unpack_quarter_rows

FLOAT_DTYPES = ("F32", "BF16", "F16")


class TensorSource(Protocol):
    """Tensors by name, from however many files."""

    format: Literal["safetensors", "pytorch"]

    def info(self, name: str) -> TensorInfo: ...
    def file_of(self, name: str) -> Path: ...
    def read(self, name: str, first_row: int = 0, n_rows: int | None = None) -> NDArray[Any]: ...
    def names(self) -> set[str]: ...
    def files(self) -> list[Path]: ...
    def close(self) -> None: ...


def open_hugging_face(folder: Path) -> "HuggingFaceCheckpoint":
    """Open the checkpoint in `folder`; headers are checked, weights are not read yet.

    Raises CheckpointError naming the file, and the tensor where one is at fault.
    """
    config = read_json(folder / "config.json")
    family = match_family(config, str(folder / "config.json"))
    model_config = read_config(folder, config, family)
    tensors = TensorFolder(folder)
    try:
        return HuggingFaceCheckpoint(folder, model_config, family, tensors)
    except BaseException:
        tensors.close()
        raise


class HuggingFaceCheckpoint:
    """A checkpoint as Hugging Face keeps it: see Checkpoint."""

    format: Literal["safetensors", "gguf", "pytorch", "edgebit"]

    def __init__(self, path: Path, config: ModelConfig, family: Family, tensors: TensorSource) -> None:
        """Check the names, shapes and types of all tensors. Raises CheckpointError naming file and tensor."""
        self.path, self.config, self._family, self._tensors = path, config, family, tensors
        self.format, self.family = tensors.format, family.name
        self.notes: list[str] = []
        self._check_tensors()

    def close(self) -> None:
        self._tensors.close()

    def weight_files(self) -> list[Path]:
        """The files that the weights come from."""
        return self._tensors.files()

    def embedding_encoding(self) -> Encoding:
        dtype = self._tensors.info(self._family.tensor_name(Role.TOKEN_EMBEDDING)).dtype
        return Encoding.BF16 if dtype == "BF16" else Encoding.F32

    def vector(self, role: Role, layer: int) -> NDArray[np.float32]:
        name = self._family.tensor_name(role, layer)
        values = as_float32(self._tensors.read(name), self._tensors.info(name).dtype)
        if not np.isfinite(values).all():
            at = int(np.nonzero(~np.isfinite(values))[0][0])
            raise CheckpointError(f"{self._where(name)} holds {values[at]} at {at}")
        return values

    def rows(self, role: Role) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """See Checkpoint.rows(). Raises CheckpointError where a tied head is stored as well, and differs."""
        is_exact = self.embedding_encoding() != Encoding.F32
        tied_name = self._family.tensor_name(Role.HEAD)
        name = self._family.tensor_name(role)
        compare = None
        if role == Role.HEAD and self.config.conf.head_tied:
            compare = tied_name if tied_name in self._tensors.names() else None
            name = self._family.tensor_name(Role.TOKEN_EMBEDDING)
        for first, stored, values in self._float_chunks(name):
            if compare and not np.array_equal(stored, self._tensors.read(compare, first, len(stored))):
                raise CheckpointError(
                    f"{self._where(compare)} differs from {name}, though tie_word_embeddings is true: "
                    "set it to false if the head was trained on its own, or remove this tensor"
                )
            yield stored if is_exact else values, values

    def scaling(self, role: Role, layer: int) -> Scaling:
        return PER_TENSOR

    def projection(self, role: Role, layer: int) -> Projection:
        name = self._family.tensor_name(role, layer)
        if self._family.scale == Scale.ABSMEAN:
            return self._quantise(name)
        scale = self._stored_scale(name + self._family.scale_suffix)
        stored = self._tensors.read(name)
        try:
            return Projection(unpack_quarter_rows(stored), np.array([scale]))
        except CheckpointError as error:
            raise CheckpointError(f"{self._where(name)} {error}") from error

    def tokenizer(self) -> CheckpointTokenizer | None:
        return read_tokenizer(self.path) if (self.path / "tokenizer.json").is_file() else None

    def _quantise(self, name: str) -> Projection:
        factor = absmean_factor(values for _, _, values in self._float_chunks(name))
        weights = np.empty(self._tensors.info(name).shape, np.int8)
        for first, _, values in self._float_chunks(name):
            weights[first : first + len(values)] = ternary_codes(values, factor)
        return Projection(weights, np.array([np.float32(1) / factor]))

    def _stored_scale(self, name: str) -> np.float32:
        value = np.float32(as_float32(self._tensors.read(name), self._tensors.info(name).dtype).reshape(-1)[0])
        with np.errstate(divide="ignore", over="ignore"):  # what becomes infinite is refused below
            scale = value if self._family.scale == Scale.MULTIPLY else np.float32(1) / value
        if not np.isfinite(scale) or scale <= 0:
            raise CheckpointError(f"{self._where(name)} is {value}: a scale must be finite and above 0")
        return scale

    def _float_chunks(self, name: str) -> Iterator[tuple[int, NDArray[Any], NDArray[np.float32]]]:
        info = self._tensors.info(name)
        rows = info.shape[0]
        step = max(1, CHUNK_BYTES * rows // max(info.size, 1))
        for first in range(0, rows, step):
            stored = self._tensors.read(name, first, step)
            values = as_float32(stored, info.dtype)
            if not np.isfinite(values).all():
                row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(values)))
                value = values[row, column]
                raise CheckpointError(f"{self._where(name)} holds {value} at row {first + row}, column {column}")
            yield first, stored, values

    def _where(self, name: str) -> str:
        return f"{self._tensors.file_of(name)}: tensor {name}"

    def _check_tensors(self) -> None:
        conf, names = self.config.conf, self._tensors.names()
        expected: set[str] = set()
        packed = self._family.scale != Scale.ABSMEAN
        for role, layer in conf.roles():
            if role == Role.ROPE_INV_FREQ:
                continue
            name = self._family.tensor_name(role, layer)
            expected.add(name)
            if role == Role.HEAD and conf.head_tied and name not in names:
                continue
            rows, columns = conf.shape_of(role)
            if role.is_projection and packed:
                if rows % 4:
                    raise CheckpointError(f"{self.path}: tensor {name}: {rows} output rows are no multiple of 4")
                self._check_tensor(name, (rows // 4, columns), ("U8",))
                expected.add(name + self._family.scale_suffix)
                self._check_tensor(name + self._family.scale_suffix, (1,), FLOAT_DTYPES)
            else:
                is_vector = rows == 1 and role not in (Role.TOKEN_EMBEDDING, Role.HEAD) and not role.is_projection
                self._check_tensor(name, (columns,) if is_vector else (rows, columns), FLOAT_DTYPES)
        unknown = sorted(name for name in names - expected if not name.endswith(self._family.ignored_suffix))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise CheckpointError(
                f"{self._where(unknown[0])}{more}: {self._family.form} has no such tensor, "
                "so the model would compute something else"
            )

    def _check_tensor(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        if name not in self._tensors.names():
            raise CheckpointError(f"{self.path}: tensor {name} is missing, which {self._family.form} has")
        info = self._tensors.info(name)
        if info.dtype not in dtypes:
            known = " or ".join(dtypes)
            raise CheckpointError(f"{self._where(name)} is of type {info.dtype}; {self._family.form} has {known} there")
        if info.shape != shape:
            found, wanted = list(info.shape), list(shape)
            raise CheckpointError(f"{self._where(name)} has shape {found}; config.json asks for {wanted}")
