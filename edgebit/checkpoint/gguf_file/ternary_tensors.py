"""The ternary projections of a GGUF model: codes and scales, rows in the order that edgebit has them in."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Conf, Role, Scaling
from edgebit.checkpoint.checkpoint import CHUNK_BYTES, Projection
from edgebit.checkpoint.gguf_file.architectures import Architecture
from edgebit.checkpoint.gguf_file.scale_groups import check_scales, coarsest
from edgebit.checkpoint.gguf_file.tensor_names import scale_name, tensor_name
from edgebit.checkpoint.gguf_file.tensors import GgufTensors
from edgebit.errors import CheckpointError
from edgebit.ternary.ggml.i2_s import I2SDialect, i2_s_codes, why_not

_RAW_CHUNK_BYTES = CHUNK_BYTES // 8  # of packed weights: unpacked they take up to five times as much, several times


class TernaryTensors:
    """Projections by role and layer."""

    def __init__(self, tensors: GgufTensors, architecture: Architecture, conf: Conf) -> None:
        self._tensors, self._architecture, self._conf = tensors, architecture, conf
        self._scalings: dict[tuple[Role, int], Scaling] = {}
        self._dialect: I2SDialect | None = None

    def i2_s_projections(self) -> list[tuple[Role, int]]:
        """Those in I2_S, in the order of the layers."""
        return [
            (role, layer)
            for role, layer in self._conf.roles()
            if role.is_projection and self._tensors.type(tensor_name(role, layer)).name == "I2_S"
        ]

    def use_dialect(self, dialect: I2SDialect) -> None:
        """Read I2_S in this dialect. Raises CheckpointError where a tensor's shape is none of it."""
        for role, layer in self.i2_s_projections():
            name = tensor_name(role, layer)
            fault = why_not(dialect, *self._tensors.shape(name))
            if fault:
                raise CheckpointError(f"{self._tensors.where(name)}: {fault}, so I2_S dialect {dialect} is wrong")
        self._dialect = dialect

    def scaling(self, role: Role, layer: int) -> Scaling:
        """Which weights share a scale; the scales are read for it once."""
        if (role, layer) not in self._scalings:
            self._scalings[role, layer] = self._coarsest(role, layer, self._scales(role, layer))[0]
        return self._scalings[role, layer]

    def projection(self, role: Role, layer: int) -> Projection:
        """Weights and scales. Raises CheckpointError where a code or a scale cannot be, naming the place."""
        name = tensor_name(role, layer)
        scales = self._scales(role, layer)
        weights = np.empty(self._tensors.shape(name), np.int8)
        places = self._places(role)
        for first, codes in self._codes(name):
            self._tensors.check_codes(name, codes, first)
            rows = slice(first, first + len(codes))
            if len(scales) > 1 and (scales[rows] == 0).any():
                width = codes.shape[1] // scales.shape[1]
                codes[np.repeat(scales[rows] == 0, width, axis=1)] = 1
            elif len(scales) == 1 and scales[0, 0] == 0:
                codes[:] = 1
            weights[rows if places is None else places[rows]] = codes.view(np.int8) - np.int8(1)
        return Projection(weights, self._coarsest(role, layer, scales)[1])

    def _codes(self, name: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(first row, codes of some rows), weight + 1."""
        kind = self._tensors.type(name)
        if kind.layout is not None:
            for first, raw in self._tensors.raw_rows(name, _RAW_CHUNK_BYTES):
                yield first, kind.layout.codes(raw)
            return
        rows, columns = self._tensors.shape(name)
        if self._dialect is None:
            raise AssertionError("the dialect of I2_S is settled when the file is opened")
        step = max(4, _RAW_CHUNK_BYTES * 4 // columns // 4 * 4)
        for first in range(0, rows, step):
            n_bytes = min(step, rows - first) * columns // 4
            yield first, i2_s_codes(self._tensors.read(name, first * columns // 4, n_bytes), columns, self._dialect)

    def _scales(self, role: Role, layer: int) -> NDArray[np.float32]:
        """As the file has them, [rows or 1, groups], times the tensor that multiplies the projection's output."""
        name = tensor_name(role, layer)
        kind = self._tensors.type(name)
        if kind.layout is None:
            rows, columns = self._tensors.shape(name)
            scales = self._tensors.read(name, rows * columns // 4, 4).view("<f4").reshape(1, 1)
            check_scales(scales, 0, self._tensors.where(name))
        else:
            parts = []
            for first, raw in self._tensors.raw_rows(name):
                parts.append(kind.layout.scales(raw))
                if kind.has_groups and (parts[-1] < 0).any():  # as of floats that were rounded to four bits
                    row, block = (int(index[0]) for index in np.nonzero(parts[-1] < 0))
                    raise self._tensors.not_ternary(name, f"in row {first + row}, block {block}")
                check_scales(parts[-1], first, self._tensors.where(name))
            scales = np.concatenate(parts)
        factor_name = scale_name(role, layer)
        if factor_name in self._tensors.names():
            factor = self._tensors.vector(factor_name).reshape(1, 1)
            check_scales(factor, 0, self._tensors.where(factor_name))
            scales = scales * factor
        return scales

    def _coarsest(self, role: Role, layer: int, scales: NDArray[np.float32]) -> tuple[Scaling, NDArray[np.float32]]:
        places = self._places(role)
        if places is not None and len(scales) > 1:
            moved = np.empty_like(scales)
            moved[places] = scales
            scales = moved
        name = tensor_name(role, layer)
        return coarsest(scales, self._conf.shape_of(role)[1], self._tensors.where(name))

    def _places(self, role: Role) -> NDArray[np.intp] | None:
        """Where each row of a projection of the file goes; None: where it is.

        Architectures of llama.cpp whose RoPE turns neighbours have the two halves of each head's rows interleaved.
        """
        if not self._architecture.permuted or role not in (Role.Q_PROJ, Role.K_PROJ):
            return None
        rows, _ = self._conf.shape_of(role)
        order = np.arange(rows).reshape(-1, 2, self._conf.head_dim // 2)
        return np.ascontiguousarray(order.swapaxes(1, 2)).reshape(-1)
