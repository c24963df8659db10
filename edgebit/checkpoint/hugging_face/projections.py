"""Reads projections in each storage that families.py knows: packed codes, master weights, ternary floats."""

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import PER_ROW, PER_TENSOR, Granularity, Scaling
from edgebit.checkpoint.checkpoint import Projection
from edgebit.checkpoint.hugging_face.families import SCALE_SUFFIX, Scale
from edgebit.checkpoint.hugging_face.matching import WAYS_TO_TERNARY
from edgebit.checkpoint.hugging_face.safetensors_file import as_float32
from edgebit.checkpoint.hugging_face.tensor_source import (
    TensorSource,
    describe_place,
    float_chunks,
    float_rows,
    stored_chunks,
)
from edgebit.errors import CheckpointError
from edgebit.ternary.absmean import absmean_factor, ternary_codes
from edgebit.ternary.layouts import unpack_quarter_rows
from edgebit.ternary.ternary_floats import find_group, magnitude_bits, split_ternary

# Rows that show which weights share a scale: so many at so many places of a tensor.
_SAMPLE_ROWS, _SAMPLE_PLACES = 8, 8
_MASTERS_ADVICE = (
    f"edgebit converts ternary models only. {WAYS_TO_TERNARY}. If these are the master weights of a BitNet model (such "
    "as Falcon-E's revision prequantized), config.json must say so: "
    '"quantization_config": {"quant_method": "bitnet", '
    '"linear_class": "autobitlinear", "quantization_mode": "online"}'
)


class ProjectionReader:
    """The projections of one checkpoint, by tensor name. All faults are CheckpointErrors naming file and tensor."""

    def __init__(self, tensors: TensorSource, scale: Scale) -> None:
        self._tensors, self._scale = tensors, scale
        self._scalings: dict[str, Scaling] = {}

    def scaling(self, name: str) -> Scaling:
        """Which weights share a scale: of ternary floats, as all of them show it, which are read for it once."""
        if self._scale != Scale.STORED:
            return PER_TENSOR
        if name not in self._scalings:
            self._scalings[name] = self._found_scaling(name)
        return self._scalings[name]

    def read(self, name: str) -> Projection:
        match self._scale:
            case Scale.ABSMEAN:
                return self._quantise(name)
            case Scale.STORED:
                return self._split(name)
        return Projection(self._codes(name), np.array([self._stored_scale(name + SCALE_SUFFIX)]))

    def _quantise(self, name: str) -> Projection:
        factor = absmean_factor(values for _, _, values in float_chunks(self._tensors, name))
        weights = np.empty(self._tensors.info(name).shape, np.int8)
        for first, _, values in float_chunks(self._tensors, name):
            weights[first : first + len(values)] = ternary_codes(values, factor)
        return Projection(weights, np.array([np.float32(1) / factor]))

    def _codes(self, name: str) -> NDArray[np.int8]:
        info = self._tensors.info(name)
        if info.dtype == "U8":
            try:
                return unpack_quarter_rows(self._tensors.read(name))
            except CheckpointError as error:
                raise CheckpointError(f"{describe_place(self._tensors, name)} {error}") from error
        weights = np.empty(info.shape, np.int8)
        for first, _, values in float_chunks(self._tensors, name):
            codes = np.sign(values)
            if not np.array_equal(codes, values):
                row, column = (int(index[0]) for index in np.nonzero(codes != values))
                raise CheckpointError(
                    f"{describe_place(self._tensors, name)} holds {values[row, column]} at row {first + row}, column "
                    f"{column}: beside a stored scale, weights must be -1, 0 or 1"
                )
            weights[first : first + len(values)] = codes
        return weights

    def _stored_scale(self, name: str) -> np.float32:
        value = np.float32(as_float32(self._tensors.read(name), self._tensors.info(name).dtype).reshape(-1)[0])
        with np.errstate(divide="ignore", over="ignore"):  # what becomes infinite is refused below
            scale = value if self._scale == Scale.MULTIPLY else np.float32(1) / value
        if not np.isfinite(scale) or scale <= 0:
            place = describe_place(self._tensors, name)
            raise CheckpointError(f"{place} is {value}: a scale must be finite and above 0")
        return scale

    def _found_scaling(self, name: str) -> Scaling:
        """A few rows here and there refuse a float model; of a ternary one, any row may have the narrowest groups.

        Raises CheckpointError at the first row that is not ternary.
        """
        rows, columns = self._tensors.info(name).shape
        last = max(0, rows - _SAMPLE_ROWS)
        places = sorted({last * place // (_SAMPLE_PLACES - 1) for place in range(_SAMPLE_PLACES)})
        samples = [float_rows(self._tensors, name, first, _SAMPLE_ROWS)[1] for first in places]
        numbers = np.concatenate([np.arange(first, min(first + _SAMPLE_ROWS, rows)) for first in places])
        try:
            group = find_group(np.concatenate(samples), numbers)
            for first, stored in stored_chunks(self._tensors, name):
                group = find_group(magnitude_bits(stored), np.arange(first, first + len(stored)), group)
        except CheckpointError as error:
            raise CheckpointError(f"{describe_place(self._tensors, name)} {error}. {_MASTERS_ADVICE}") from error
        return PER_ROW if group == columns else Scaling(Granularity.GROUP, group)

    def _split(self, name: str) -> Projection:
        rows, columns = self._tensors.info(name).shape
        group = self.scaling(name).group or columns
        weights = np.empty((rows, columns), np.int8)
        scales = np.empty((columns // group, rows), np.float32)
        for first, _, values in float_chunks(self._tensors, name):
            part = slice(first, first + len(values))
            try:
                weights[part], magnitudes = split_ternary(values, group, first)
            except CheckpointError as error:
                raise CheckpointError(f"{describe_place(self._tensors, name)} {error}") from error
            scales[:, part] = magnitudes.T
        return Projection(weights, scales.reshape(-1))
