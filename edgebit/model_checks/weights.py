"""A model file's bytes and tensors, beside the checkpoint's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Encoding, Role, Tensor, head_parts
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.checkpoint import CHUNK_BYTES, Checkpoint
from edgebit.checks import Check
from edgebit.model_diff.tensors import (
    SAME_SCALE,
    Chunk,
    paired,
    rows_as_int8,
    tensor_difference,
    tensor_name,
)
from edgebit.progress import Progress
from edgebit.ternary.layouts import TILE_ROWS, HeadPlanes, unpack_h8


def check_bytes(path: Path, progress: Progress) -> Check:
    """The sums of every section. Raises BundleError for what is wrong."""
    with ModelFile(path) as file:
        file.verify(lambda done, total: progress("sums", done, total))
        text = (
            f"{file.size:,} bytes: header, {len(file.sections)} sections, {len(file.tensors)} tensors, all sums right"
        )
    return Check("every byte", "passed", text)


def check_tensors(path: Path, source: Checkpoint, model: Checkpoint, progress: Progress) -> Check:
    """Codes and scales, norms, frequencies and embedding, read back: as the checkpoint has them. Not the head."""
    tensors = [each for each in source.config.conf.roles() if each[0] != Role.HEAD]
    int8_embedding = _has_int8_embedding(path)
    n_codes = 0
    for done, (role, layer) in enumerate(tensors):
        name = tensor_name(role, layer)
        progress(name, done, len(tensors))
        as_int8 = role == Role.TOKEN_EMBEDDING and int8_embedding
        difference = tensor_difference(source, model, role, layer, as_int8=as_int8)
        if difference is not None:
            return Check("tensors", "failed", f"{name}, of checkpoint and model file: {difference}")
        rows, columns = source.config.conf.shape_of(role)
        n_codes += rows * columns if role.is_projection else 0
    kept = "embedding as int8 rows" if int8_embedding else "embedding bit for bit"
    text = f"{len(tensors)} read back as the checkpoint has them: {n_codes:,} codes, every scale and norm, {kept}"
    return Check("tensors", "passed", text)


def check_head(path: Path, source: Checkpoint) -> Check:
    """The head's three planes put together again, beside the checkpoint's head as int8 rows."""
    rows = 0
    with ModelFile(path) as file:
        for first, (codes, scales), (wanted, wanted_scales) in paired(
            _stored_head(file), rows_as_int8(source, Role.HEAD)
        ):
            apart = np.abs(scales - wanted_scales) > SAME_SCALE * wanted_scales
            wrong = (codes != wanted).any(axis=1) | apart
            if wrong.any():
                row = first + int(np.argmax(wrong))
                return Check(
                    "head as stored", "failed", f"row {row} has other codes or another scale than the checkpoint"
                )
            rows = first + len(codes)
    return Check(
        "head as stored", "passed", f"{rows:,} rows put together from their planes: codes and scales are right"
    )


def _has_int8_embedding(path: Path) -> bool:
    with ModelFile(path) as file:
        return any(tensor.role == Role.TOKEN_EMBEDDING and tensor.encoding == Encoding.I8 for tensor in file.tensors)


def _stored_head(file: ModelFile) -> Iterator[Chunk]:
    """(codes, scales) of the head, in chunks of whole tiles."""
    head = next(tensor for tensor in file.tensors if tensor.role == Role.HEAD)
    scales = np.array(file.scales(head), np.float32)
    step = max(1, CHUNK_BYTES // (head.columns * TILE_ROWS)) * TILE_ROWS
    for first in range(0, head.rows, step):
        n = min(step, head.rows - first)
        yield _head_codes(file, head, first, n), scales[first : first + n]


def _head_codes(file: ModelFile, head: Tensor, first: int, n: int) -> NDArray[np.int8]:
    """int8 codes of `n` rows from row `first`, a whole tile's, on."""
    high, middle, _, _, _ = head_parts(head.rows, head.columns)
    row = middle // head.rows  # bytes of a row in each of the low planes; the high one has twice as many
    tiles = -(-n // TILE_ROWS) * TILE_ROWS
    ranges = (
        (first * 2 * row, tiles * 2 * row),
        (high + first * row, n * row),
        (high + middle + first * row, n * row),
    )
    with file.values(head) as values:
        planes = [np.frombuffer(bytes(values[begin : begin + size]), np.uint8) for begin, size in ranges]
    no_bounds = np.empty(0, np.float32)
    parts = HeadPlanes(planes[0], planes[1].reshape(n, row), planes[2].reshape(n, row), no_bounds, no_bounds)
    return unpack_h8(parts, head.columns)
