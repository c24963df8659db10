"""Writes a GGUF that llama.cpp and its kin read."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Granularity, Role
from edgebit.bundle.part_file import check_place
from edgebit.checkpoint.gguf_file.tensor_names import TENSOR_NAMES
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.opening import model_files
from edgebit.checkpoint.own_gguf_keys import RESPONSE_SCHEMA
from edgebit.errors import ExportError
from edgebit.export.gguf_architecture import (
    Architecture,
    architecture_metadata,
    choose_architecture,
    i2_s_metadata,
)
from edgebit.export.gguf_file import GgufTensor, GgufWriter, text
from edgebit.export.gguf_tensors import (
    FLOAT_TYPES,
    GgmlType,
    ScaleLoss,
    choose_type,
    interleave_halves,
    packed_chunks,
    tensor_size,
)
from edgebit.export.gguf_tokenizer import token_id_metadata, tokenizer_metadata
from edgebit.export.response_schema import response_schema_text
from edgebit.export.source import Source, open_source
from edgebit.progress import Progress, unwatched

GgufType = Literal["tq2_0", "tq1_0", "i2_s"]
_FILE_TYPES = {GgmlType.TQ1_0: 36, GgmlType.TQ2_0: 37, GgmlType.I2_S: 40}  # general.file_type


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufReport:
    """What was written."""

    out: Path
    architecture: str
    size: int  # bytes
    types: dict[str, int]  # tensors of each type
    scales_exact: int
    scales_rounded: int
    scale_error: float  # the largest relative one
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Item:
    """A tensor of the file and where its bytes come from."""

    tensor: GgufTensor
    chunks: Callable[[], Iterator[NDArray[Any]]]


def export_gguf(
    path: Path,
    out: Path,
    *,
    kind: GgufType = "tq2_0",
    architecture: str | None = None,
    exact_scales: bool = False,
    head_from: Path | None = None,
    hints: Hints = NO_HINTS,
    force: bool = False,
    progress: Progress = unwatched,
) -> GgufReport:
    """Write the GGUF `out` of the model file, bundle or checkpoint at `path`.

    kind: of projections; architecture: None takes the one that fits; exact_scales: scales in tensors of their own, f32;
    head_from: the checkpoint that a model file was converted from, for its exact head; hints: of a checkpoint.
    Raises ExportError where GGUF cannot hold the model, `out` is there already (without `force`), is read or cannot be
    written, and what opening and reading `path` raises. Nothing is left behind then.
    """
    started = time.monotonic()
    inputs = [*model_files(path, hints), *(model_files(head_from) if head_from is not None else [])]
    check_place(out, ExportError, force=force, example="NAME.gguf", inputs=inputs)
    with open_source(path, head_from, hints) as source:
        export = _Export(source, GgmlType[kind.upper()], architecture, exact_scales)
        items = export.items()
        with GgufWriter(out, export.metadata, [item.tensor for item in items]) as writer:
            for done, item in enumerate(items):
                progress(item.tensor.name, done, len(items))
                writer.write_tensor(item.chunks())
            progress("flush", len(items), len(items))
            writer.commit()
        return GgufReport(
            out=out,
            architecture=export.architecture.name,
            size=out.stat().st_size,
            types=dict(Counter(GgmlType(item.tensor.type_id).name.lower() for item in items)),
            scales_exact=export.loss.exact,
            scales_rounded=export.loss.rounded,
            scale_error=export.loss.largest,
            notes=export.all_notes(),
            seconds=time.monotonic() - started,
        )


@dataclass(slots=True)
class _Export:
    """The parts of one export: what the file says, and where each tensor comes from."""

    source: Source
    kind: GgmlType
    wanted: str | None
    exact_scales: bool
    architecture: Architecture = field(init=False)
    metadata: dict[str, bytes] = field(init=False)
    loss: ScaleLoss = field(default_factory=ScaleLoss)
    _scales: dict[tuple[Role, int], NDArray[np.float32]] = field(default_factory=dict)
    _notes: list[str] = field(default_factory=list)
    _divisors: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        config = self.source.checkpoint.config
        self.architecture, notes = choose_architecture(config.conf, self.wanted)
        self.metadata, rope = architecture_metadata(config, self.architecture, file_type=_FILE_TYPES[self.kind])
        if self.kind == GgmlType.I2_S:
            self.metadata |= i2_s_metadata()
        self._divisors = rope.divisors
        tokenizer = self.source.checkpoint.tokenizer()
        of_text, more = (
            token_id_metadata(config.conf)
            if tokenizer is None
            else tokenizer_metadata(tokenizer, config.conf.vocab_size)
        )
        self.metadata |= of_text
        if (schema := response_schema_text(self.source.checkpoint)) is not None:
            self.metadata[RESPONSE_SCHEMA] = text(schema)
        self._notes += [*self.source.notes, *notes, *more]

    def items(self) -> list[_Item]:
        """Every tensor, in the order of the file."""
        conf = self.source.checkpoint.config.conf
        items = [] if self._divisors is None else [self._float_item("rope_freqs.weight", [self._divisors])]
        others: dict[str, list[str]] = {}
        for role, layer in conf.roles():
            if role == Role.ROPE_INV_FREQ or (role == Role.HEAD and conf.head_tied):
                continue
            name = TENSOR_NAMES[role].format(layer)
            if role.is_projection:
                items += self._projection_items(role, layer, name, others)
            elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
                items.append(self._rows_item(role, name))
            else:
                items.append(self._vector_item(role, layer, name))
        for kind, names in others.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self._notes.append(
                f"{names[0]}{more}: rows do not fill {self.kind.name.lower()}'s blocks of one scale; kept as {kind}, "
                "which holds the same codes and scales in more bytes"
            )
        return items

    def all_notes(self) -> tuple[str, ...]:
        """Every note, once all tensors are written."""
        notes = list(self._notes)
        if self.loss.rounded:
            total = self.loss.rounded + self.loss.exact
            notes.append(
                f"{self.loss.rounded} of {total} scales are no f16 numbers and were rounded, by "
                f"{self.loss.largest:.1e} of themselves at most ({self.loss.worst}); --exact-scales keeps them"
            )
        return tuple(notes)

    def _float_item(self, name: str, chunks: list[NDArray[np.float32]]) -> _Item:
        size = sum(chunk.nbytes for chunk in chunks)
        return _Item(GgufTensor(name, (size // 4,), GgmlType.F32, size), lambda: iter(chunks))

    def _vector_item(self, role: Role, layer: int, name: str) -> _Item:
        columns = self.source.checkpoint.config.conf.shape_of(role)[1]
        tensor = GgufTensor(f"{name}.weight", (columns,), GgmlType.F32, 4 * columns)
        return _Item(tensor, lambda: iter([self.source.checkpoint.vector(role, layer).astype("<f4")]))

    def _rows_item(self, role: Role, name: str) -> _Item:
        source = self.source.head if role == Role.HEAD else self.source.checkpoint
        shape = self.source.checkpoint.config.conf.shape_of(role)
        first, _ = next(iter(source.rows(role)))
        kind = FLOAT_TYPES[first.dtype]
        tensor = GgufTensor(f"{name}.weight", shape, kind, tensor_size(kind, *shape))
        return _Item(tensor, lambda: (stored for stored, _ in source.rows(role)))

    def _projection_items(self, role: Role, layer: int, name: str, others: dict[str, list[str]]) -> list[_Item]:
        checkpoint = self.source.checkpoint
        rows, columns = checkpoint.config.conf.shape_of(role)
        scaling = checkpoint.scaling(role, layer)
        kind = choose_type(self.kind, name, columns, scaling)
        if kind != self.kind:
            others.setdefault(kind.name.lower(), []).append(name)
        apart = self.exact_scales and scaling.granularity == Granularity.TENSOR and kind != GgmlType.I2_S

        def weights() -> Iterator[NDArray[Any]]:
            projection = checkpoint.projection(role, layer)
            self._scales[role, layer] = projection.scales
            if self.architecture.has_interleaved_rope and role in (Role.Q_PROJ, Role.K_PROJ):
                projection = interleave_halves(projection, checkpoint.config.conf, role, scaling)
            return packed_chunks(name, kind, projection, scaling, None if apart else self.loss)

        items = [_Item(GgufTensor(f"{name}.weight", (rows, columns), kind, tensor_size(kind, rows, columns)), weights)]
        if apart:
            scale = GgufTensor(f"{name}.scale", (1,), GgmlType.F32, 4)
            items.append(_Item(scale, lambda: iter([self._scales[role, layer].astype("<f4")])))
        return items
