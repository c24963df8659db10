"""The tensors of a GGUF model by name, each with its type, and the float ones as numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Encoding
from edgebit.checkpoint.checkpoint import CHUNK_BYTES
from edgebit.checkpoint.gguf_file.dequantise import dequantise
from edgebit.checkpoint.gguf_file.scale_groups import check_scales
from edgebit.checkpoint.gguf_file.split import GgufModel
from edgebit.checkpoint.gguf_file.tensor_types import START_AGAIN, TensorType, type_of
from edgebit.errors import CheckpointError
from edgebit.ternary.ggml import floats
from edgebit.ternary.ggml.blocks import NO_CODE, BlockLayout

_FLOAT_ENCODINGS = {floats.F32: Encoding.F32, floats.F16: Encoding.F16, floats.BF16: Encoding.BF16}


class GgufTensors:
    """All tensors; every error names file and tensor."""

    def __init__(self, model: GgufModel) -> None:
        """Settle what type each tensor is of. Raises CheckpointError where one is nothing that edgebit reads."""
        self._model = model
        self._types = {
            name: type_of(tensor, model.alignment_of(name), self.where(name)) for name, tensor in model.tensors.items()
        }

    def names(self) -> list[str]:
        """In the order of the file."""
        return list(self._types)

    def where(self, name: str) -> str:
        """File and tensor, as a refusal begins."""
        return f"{self._model.file_of(name)}: tensor {name}"

    def type(self, name: str) -> TensorType:
        """What a tensor is."""
        return self._types[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Rows first. Raises CheckpointError where there is no such tensor."""
        if name not in self._types:
            raise CheckpointError(f"{self._model.parts[0].path}: tensor {name} is missing")
        return self._model.tensors[name].shape

    def read(self, name: str, start: int, n_bytes: int) -> NDArray[np.uint8]:
        """Bytes of a tensor."""
        return self._model.read(self._model.tensors[name], start, n_bytes)

    def raw_rows(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(first row, [rows, row bytes]) of a matrix whose rows lie one after the other."""
        rows, columns = self.shape(name)
        kind = self._types[name]
        row_bytes = kind.row_bytes + columns // kind.block * kind.block_bytes
        step = max(1, chunk_bytes // row_bytes)
        for first in range(0, rows, step):
            n_rows = min(step, rows - first)
            yield first, self.read(name, first * row_bytes, n_rows * row_bytes).reshape(n_rows, row_bytes)

    def vector(self, name: str) -> NDArray[np.float32]:
        """The values of a float tensor of one dimension. Raises CheckpointError on NaN and infinity."""
        layout = self._types[name].layout
        if not isinstance(layout, floats.FloatLayout):
            raise CheckpointError(f"{self.where(name)} is of type {self._types[name].name}; F32, F16 or BF16 are known")
        if len(self.shape(name)) != 1:
            raise CheckpointError(f"{self.where(name)} has shape {list(self.shape(name))}; one dimension is known")
        (size,) = self.shape(name)
        values: NDArray[np.float32] = layout.values(self.read(name, 0, layout.row_bytes(size)).reshape(1, -1))[0]
        if not np.isfinite(values).all():
            at = int(np.nonzero(~np.isfinite(values))[0][0])
            raise CheckpointError(f"{self.where(name)} holds {values[at]} at {at}")
        return values

    def encoding(self, name: str) -> Encoding:
        """What a matrix is kept in exactly."""
        layout = self._types[name].layout
        if isinstance(layout, floats.FloatLayout):
            return _FLOAT_ENCODINGS[layout]
        kind = self._types[name]
        has_f16_scales = isinstance(layout, BlockLayout) and layout.row_scale != "<f4" and not kind.has_groups
        return Encoding.F16 if has_f16_scales else Encoding.F32

    def float_rows(self, name: str) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """A matrix in chunks of rows: in its encoding() (bf16 as its bits), and as float32.

        Raises CheckpointError on NaN and infinity.
        """
        layout = self._types[name].layout
        encoding = self.encoding(name)
        for first, raw in self.raw_rows(name):
            values = self._values(name, first, raw)
            if not np.isfinite(values).all():
                row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(values)))
                value = values[row, column]
                raise CheckpointError(f"{self.where(name)} holds {value} at row {first + row}, column {column}")
            if isinstance(layout, floats.FloatLayout):
                yield raw.view(layout.dtype), values
            else:
                yield values.astype(np.float16) if encoding == Encoding.F16 else values, values

    def check_codes(self, name: str, codes: NDArray[np.uint8], first_row: int) -> None:
        """Raise CheckpointError where a code is no ternary weight's, naming the first place."""
        if codes.max() < NO_CODE:
            return
        row, column = (int(index[0]) for index in np.nonzero(codes == NO_CODE))
        place = f"at row {first_row + row}, column {column}"
        if self._types[name].has_groups or self._types[name].is_float:
            raise self.not_ternary(name, place)
        raise CheckpointError(f"{self.where(name)} holds code {NO_CODE}, which is no ternary weight, {place}")

    def not_ternary(self, name: str, place: str) -> CheckpointError:
        """The refusal of weights that could be ternary, and are not at `place`."""
        kind = self._types[name]
        largest = "the row's largest" if kind.is_float else "its block's scale"
        return CheckpointError(
            f"{self.where(name)} is of type {kind.name} and not ternary: {place} is a weight that is neither 0 nor "
            f"plus or minus {largest}. edgebit takes models that were trained to ternary weights. If this is one of "
            f"them: {START_AGAIN[0].lower()}{START_AGAIN[1:]}"
        )

    def are_equal(self, name: str, other: str) -> bool:
        """Whether two tensors have the same type, shape and bytes."""
        if self._types[name] != self._types[other] or self.shape(name) != self.shape(other):
            return False
        size = self._types[name].size(self.shape(name)) or 0
        return all(
            np.array_equal(self.read(name, start, n), self.read(other, start, n))
            for start in range(0, size, CHUNK_BYTES)
            for n in [min(CHUNK_BYTES, size - start)]
        )

    def _values(self, name: str, first_row: int, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        kind = self._types[name]
        if isinstance(kind.layout, floats.FloatLayout):
            return kind.layout.values(raw)
        if kind.has_groups or kind.layout is None:
            return dequantise(raw, kind.name, self.where(name))
        codes, scales = kind.layout.codes(raw), kind.layout.scales(raw)
        self.check_codes(name, codes, first_row)
        check_scales(scales, first_row, self.where(name))
        weights = codes.view(np.int8).astype(np.float32) - 1
        by_scale = weights.reshape(*scales.shape, -1) * scales[..., None]
        values: NDArray[np.float32] = by_scale.reshape(weights.shape)
        return values
