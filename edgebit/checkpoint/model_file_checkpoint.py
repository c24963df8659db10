"""A model file, alone or in a bundle, as a checkpoint: what was converted can be exported, compared, converted anew."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.archive import Member, locate_model, looks_like_bundle
from edgebit.bundle.model_format import MAGIC, NO_LAYER, Encoding, Role, Scaling, Tensor, head_parts, values_size
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.source_sums import source_sums
from edgebit.checkpoint.checkpoint import CHUNK_BYTES, Format, ModelConfig, Projection
from edgebit.checkpoint.positioned_reads import open_to_read, read_at
from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.checkpoint.tokenizer.section_reader import read_tokenizer_section
from edgebit.checkpoint.untrained import UNTRAINED, UNTRAINED_NOTE
from edgebit.errors import CheckpointError, TokenizerError
from edgebit.ternary.bfloat16 import bfloat16_values
from edgebit.ternary.layouts import TILE_ROWS, HeadPlanes, unpack_h8, unpack_t1, unpack_t2

_FLOATS: dict[Encoding, np.dtype[Any]] = {
    Encoding.F32: np.dtype("<f4"),
    Encoding.F16: np.dtype("<f2"),
    Encoding.BF16: np.dtype("<u2"),
}
_UNPACK: dict[Encoding, Callable[[NDArray[np.uint8], int, int], NDArray[np.int8]]] = {
    Encoding.T2: unpack_t2,
    Encoding.T1: unpack_t1,
}


def is_model_file(path: Path) -> bool:
    """Whether `path` is a model file or a bundle."""
    if looks_like_bundle(path):
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_model_file(path: Path, *, verify: bool = False) -> "ModelFileCheckpoint":
    """Open the model file at `path`, or in the bundle at `path`. Raises BundleError and CheckpointError.

    verify: whether all weights are read, and their sum checked.
    """
    place = locate_model(path)
    with ExitStack() as opened:
        file = opened.enter_context(ModelFile(place.path, place.offset, place.size))
        if verify:
            file.verify()
        weights = opened.enter_context(open_to_read(place.path))
        checkpoint = ModelFileCheckpoint(path, place, file, weights)
        opened.pop_all()
    return checkpoint


class ModelFileCheckpoint:
    """A model file read as a checkpoint: see Checkpoint. Codes, scales, norms and an exact embedding are as they were.

    A head of its own is there as int8 rows alone, and so may be the embedding: `notes` says so.
    """

    format: Format = "edgebit"

    def __init__(self, path: Path, place: Member, file: ModelFile, weights: BinaryIO) -> None:
        """Raises CheckpointError where META or a vector holds what cannot be."""
        self.path, self._place, self._file, self._weights = path, place, file, weights
        self._tensors = {(tensor.role, tensor.layer): tensor for tensor in file.tensors}
        meta = file.meta
        self.family = str(meta.get("family", "unknown"))
        generation = meta.get("generation")
        self.config = ModelConfig(
            name=str(meta.get("name") or path.stem),
            conf=file.conf,
            rope_inv_freq=self.vector(Role.ROPE_INV_FREQ, NO_LAYER),
            generation=dict(generation) if isinstance(generation, dict) else {},
            licence=None if meta.get("licence") is None else str(meta["licence"]),
        )
        quantisation = meta.get("quantisation")
        untrained = isinstance(quantisation, dict) and quantisation.get("projections") == UNTRAINED
        self.notes: list[str] = [UNTRAINED_NOTE] if untrained else []
        if not file.conf.head_tied:
            self.notes.append(
                "a model file keeps its head as int8 rows: it is not the one that was trained, but within half a step "
                "of each row's scale. The checkpoint that it was converted from has the exact one"
            )
        if self._tensor(Role.TOKEN_EMBEDDING).encoding == Encoding.I8:
            self.notes.append(
                "this model file was converted with --embedding int8: its embedding, and a head tied to it, are within "
                "half a step of each row's scale of what was trained"
            )

    def close(self) -> None:
        self._weights.close()
        self._file.close()

    def weight_files(self) -> list[Path]:
        """The file that holds the weights: a model file, or a bundle."""
        return [self._place.path]

    def embedding_encoding(self) -> Encoding:
        """As it is stored; F32 where that is int8 rows."""
        encoding = self._tensor(Role.TOKEN_EMBEDDING).encoding
        return Encoding.F32 if encoding == Encoding.I8 else encoding

    def vector(self, role: Role, layer: int) -> NDArray[np.float32]:
        tensor = self._tensor(role, layer)
        values = self._bytes(tensor).view("<f4")
        self._check_finite(tensor, values)
        return values

    def rows(self, role: Role) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """See Checkpoint.rows(). Rows of int8 come as code x scale, float32."""
        tied = role == Role.HEAD and self.config.conf.head_tied
        tensor = self._tensor(Role.TOKEN_EMBEDDING if tied else role)
        if tensor.encoding in _FLOATS:
            yield from self._float_rows(tensor)
            return
        scales = self._scales(tensor)
        for first, codes in self._head_codes(tensor) if tensor.encoding == Encoding.H8 else self._int8_codes(tensor):
            with np.errstate(over="ignore"):
                values = codes.astype(np.float32) * scales[first : first + len(codes), None]
            self._check_finite(tensor, values, f"row {first} or after: ")
            yield values, values

    def stored_int8_rows(self, role: Role) -> Iterator[tuple[NDArray[np.int8], NDArray[np.float32]]] | None:
        """The embedding or the head in chunks of rows: codes and scales as they are stored; None: it is no int8 rows.

        A tied head is the int8 rows that the engine computes with.
        """
        tensor = self._tensor(role)
        if tensor.encoding not in (Encoding.H8, Encoding.I8):
            return None
        scales = self._scales(tensor)
        chunks = self._head_codes(tensor) if tensor.encoding == Encoding.H8 else self._int8_codes(tensor)
        return ((codes, scales[first : first + len(codes)]) for first, codes in chunks)

    def scaling(self, role: Role, layer: int) -> Scaling:
        tensor = self._tensor(role, layer)
        return Scaling(tensor.granularity, tensor.group)

    def projection(self, role: Role, layer: int) -> Projection:
        tensor = self._tensor(role, layer)
        step = tensor.group or tensor.columns
        weights = np.empty((tensor.rows, tensor.columns), np.int8)
        size = values_size(tensor.encoding, tensor.rows, step)
        for i, first in enumerate(range(0, tensor.columns, step)):
            self._unpack(tensor, i * size, weights[:, first : first + step])
        return Projection(weights, self._scales(tensor))

    def tokenizer(self) -> CheckpointTokenizer | None:
        """The tokenizer of section TOKN; its chat template is the text that META keeps."""
        content = self._file.content("TOKN")
        if content is None:
            return None
        meta, conf = self._file.meta, self.config.conf
        template, named = meta.get("chat_template"), meta.get("named_tokens")
        try:
            return read_tokenizer_section(
                content,
                bos_token=conf.bos_token if conf.bos_token >= 0 else None,
                stop_tokens=conf.stop_tokens,
                named_tokens={str(k): str(v) for k, v in named.items()} if isinstance(named, dict) else None,
                chat_template=template if isinstance(template, str) else None,
            )
        except TokenizerError as error:
            raise TokenizerError(f"{self.path}: section TOKN: {error}") from None

    def response_schema(self) -> bytes | None:
        """Section SCHM."""
        return self._file.content("SCHM")

    def source_sums(self) -> dict[str, str]:
        """SHA-256 of the files that the model file was made from, by name, as far as META says."""
        return source_sums(self._file.meta)

    def section(self, tag: str) -> bytes | None:
        """The bytes of a section; None: the file has none of that tag."""
        return self._file.content(tag)

    def _tensor(self, role: Role, layer: int = NO_LAYER) -> Tensor:
        return self._tensors[role, layer]

    def _bytes(self, tensor: Tensor, first: int = 0, size: int | None = None) -> NDArray[np.uint8]:
        """Some of a tensor's values, read beside the mapping: pages of that would count as memory while it lasts."""
        n_bytes = tensor.size - first if size is None else size
        offset = self._place.offset + tensor.offset + first
        return read_at(self._weights, self._place.path, offset, n_bytes, f"tensor {tensor.name}")

    def _scales(self, tensor: Tensor) -> NDArray[np.float32]:
        scales = np.array(self._file.scales(tensor), np.float32)
        self._check_finite(tensor, scales, "a scale of ")
        return scales

    def _unpack(self, tensor: Tensor, start: int, weights: NDArray[np.int8]) -> None:
        """Fill `weights` from the ternary bytes that begin at byte `start` of the tensor's values."""
        rows, columns = weights.shape
        tile_size = values_size(tensor.encoding, TILE_ROWS, columns)
        step = max(1, CHUNK_BYTES // tile_size) * TILE_ROWS
        for first in range(0, rows, step):
            n = min(step, rows - first)
            size = values_size(tensor.encoding, n, columns)
            packed = self._bytes(tensor, start + first // TILE_ROWS * tile_size, size)
            try:
                weights[first : first + n] = _UNPACK[tensor.encoding](packed, n, columns)
            except ValueError as error:
                raise CheckpointError(f"{self._where(tensor)}: rows {first} to {first + n - 1}: {error}") from error

    def _float_rows(self, tensor: Tensor) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        dtype = _FLOATS[tensor.encoding]
        for first, n in self._row_chunks(tensor, tensor.columns * dtype.itemsize):
            size = tensor.columns * dtype.itemsize
            stored = self._bytes(tensor, first * size, n * size).view(dtype).reshape(n, tensor.columns)
            values = bfloat16_values(stored) if tensor.encoding == Encoding.BF16 else stored.astype(np.float32)
            self._check_finite(tensor, values, f"row {first} or after: ")
            yield stored, values

    def _int8_codes(self, tensor: Tensor) -> Iterator[tuple[int, NDArray[np.int8]]]:
        """(first row, codes) of encoding I8."""
        size = values_size(Encoding.I8, 1, tensor.columns)
        for first, n in self._row_chunks(tensor, size):
            stored = self._bytes(tensor, first * size, n * size).view(np.int8).reshape(n, size)
            yield first, stored[:, : tensor.columns]

    def _head_codes(self, tensor: Tensor) -> Iterator[tuple[int, NDArray[np.int8]]]:
        """(first row, codes) of encoding H8, from its three planes."""
        high, middle, _, _, _ = head_parts(tensor.rows, tensor.columns)
        row = middle // tensor.rows  # bytes of a row in each low plane; twice as many in the high one
        for first, n in self._row_chunks(tensor, 4 * row):
            tiles = -(-n // TILE_ROWS) * TILE_ROWS
            parts = [
                self._bytes(tensor, start, size)
                for start, size in (
                    (first * 2 * row, tiles * 2 * row),
                    (high + first * row, n * row),
                    (high + middle + first * row, n * row),
                )
            ]
            no_bounds = np.empty(0, np.float32)
            planes = HeadPlanes(parts[0], parts[1].reshape(n, row), parts[2].reshape(n, row), no_bounds, no_bounds)
            yield first, unpack_h8(planes, tensor.columns)

    def _row_chunks(self, tensor: Tensor, row_size: int) -> Iterator[tuple[int, int]]:
        """(first row, rows) of each chunk, whole tiles but for the last."""
        step = max(1, CHUNK_BYTES // (row_size * TILE_ROWS)) * TILE_ROWS
        for first in range(0, tensor.rows, step):
            yield first, min(step, tensor.rows - first)

    def _check_finite(self, tensor: Tensor, values: NDArray[np.float32], what: str = "") -> None:
        wrong = values[~np.isfinite(values)]
        if wrong.size:
            raise CheckpointError(f"{self._where(tensor)}: {what}holds {wrong[0]}. Convert the model again")

    def _where(self, tensor: Tensor) -> str:
        return f"{self.path}: tensor {tensor.name}"
