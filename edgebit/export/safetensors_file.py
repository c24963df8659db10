"""Writes a safetensors file as a stream: one chunk of one tensor in memory at a time.

Source: the format's description in the README of huggingface/safetensors.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.errors import ExportError
from edgebit.progress import Progress

_ITEM_SIZES = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """A tensor to be written."""

    name: str
    dtype: Literal["U8", "BF16", "F16", "F32"]  # BF16 as its bits, uint16
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[NDArray[Any]]]


def write_safetensors(path: Path, tensors: Sequence[SafetensorsTensor], progress: Progress) -> None:
    """Write `tensors`, one after the other, and bring the file to the disk.

    Raises ExportError where that cannot be, and ValueError where chunks are not as long as the shape says.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        end = position + math.prod(tensor.shape) * _ITEM_SIZES[tensor.dtype]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for done, tensor in enumerate(tensors):
                progress(tensor.name, done, len(tensors))
                start, end = header[tensor.name]["data_offsets"]
                for chunk in tensor.chunks():
                    file.write(np.ascontiguousarray(chunk).data.cast("B"))
                    start += chunk.nbytes
                if start != end:
                    raise ValueError(f"{tensor.name} ends at byte {start}; {end} was planned")
            progress("flush", len(tensors), len(tensors))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror}") from error
