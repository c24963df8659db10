"""Writes a model file as a stream: one chunk of one tensor in memory at a time, nothing half-made left behind."""

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.conf_section import read_conf
from edgebit.bundle.model_format import (
    ALIGNMENT,
    HEADER,
    MAGIC,
    MAX_META_BYTES,
    PER_TENSOR,
    SECTION,
    VERSION,
    Conf,
    Encoding,
    Probe,
    ScalingOf,
    aligned,
    pack_probes,
)
from edgebit.bundle.part_file import PartFile
from edgebit.bundle.tensor_plan import plan_tensors
from edgebit.errors import BundleError, OutputError

_Bytes = bytes | memoryview | NDArray[Any]


class ModelWriter:
    """A model file in the making: a PartFile.

    In this order: write_tensor() for every one of `tensors`, finish(), then commit(); between the last two the file
    at `part` is whole, but for its golden probes, and can be opened by an engine that computes them for set_probes().
    """

    def __init__(
        self,
        out: Path,
        conf: Conf,
        front: Mapping[str, bytes],
        *,
        embedding: Encoding,
        layout: Encoding,
        scaling: ScalingOf = lambda role, layer: PER_TENSOR,
    ) -> None:
        """`front`: sections that are known beforehand (TOKN, PRMT); the rest as plan_tensors() has it.

        Raises BundleError where OUT cannot be written, and where no reader would take `conf`.
        """
        try:
            read_conf(conf.pack())
        except BundleError as error:
            raise BundleError(f"{out}: no reader would take this model: {error}") from None
        self.out = out
        self._sections: list[tuple[str, int, int, int]] = []  # tag, crc, offset, size
        self._position = data_start = aligned(HEADER.size + (5 + len(front)) * SECTION.size)
        for size in (128, 64 * len(conf.roles()), *(len(content) for content in front.values())):
            data_start += aligned(size)
        self.tensors = plan_tensors(conf, data_start, embedding=embedding, layout=layout, scaling=scaling)
        self._crc = self._next = 0
        self._file = PartFile(out, OutputError)
        try:
            with self._file.faults():
                self._file.file.seek(self._position)
            self._section("CONF", conf.pack())
            self._section("TENS", b"".join(tensor.pack() for tensor in self.tensors))
            for tag, content in front.items():
                self._section(tag, content)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._data_start = self._position

    @property
    def part(self) -> Path:
        """Where the file is until commit()."""
        return self._file.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def write_tensor(self, values: Iterable[NDArray[Any]], scales: NDArray[np.float32] | Sequence[float] = ()) -> None:
        """The next of `tensors`: its values in chunks of whole rows, then its scales.

        `scales` may be filled while `values` is read. Raises ValueError where the sizes are not those planned.
        """
        tensor = self.tensors[self._next]
        self._next += 1
        size = sum(self._write(chunk) for chunk in values)
        if size != tensor.size:
            raise ValueError(f"{tensor.name} takes {tensor.size} bytes, {size} were given")
        self._pad()
        stored = np.asarray(scales, dtype="<f4")
        if stored.size != tensor.n_scales:
            raise ValueError(f"{tensor.name} has {tensor.n_scales} scales, {stored.size} were given")
        self._write(stored)
        self._pad()

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Close section DATA, and write META, an empty PROB, the section table and the header."""
        if self._next != len(self.tensors):
            raise ValueError(f"{self.tensors[self._next].name} was not written")
        self._sections.append(("DATA", self._crc, self._data_start, self._position - self._data_start))
        text = json.dumps(meta, ensure_ascii=False, sort_keys=True, indent=1)
        content = text.encode(errors="backslashreplace")  # half a surrogate pair, as JSON escapes it
        if len(content) > MAX_META_BYTES:
            raise BundleError(f"{self.out}: META would have {len(content)} bytes; {MAX_META_BYTES} are the limit")
        self._section("META", content)
        self.set_probes(())

    def set_probes(self, probes: tuple[Probe, ...]) -> None:
        """Write section PROB, the last of the file, anew; then the section table and the header."""
        if self._sections[-1][0] == "PROB":
            self._position = self._sections.pop()[2]
        file = self._file.file
        with self._file.faults():
            file.seek(self._position)
            self._section("PROB", pack_probes(probes))
            file.truncate(self._position)
            table = b"".join(SECTION.pack(tag.encode(), *numbers, b"") for tag, *numbers in self._sections)
            start = HEADER.pack(MAGIC, VERSION, len(self._sections), self._position, zlib.crc32(table), 0, b"")
            file.seek(0)
            file.write(start[:28] + struct.pack("<I", zlib.crc32(start[:28])) + start[32:] + table)
            file.seek(self._position)
            file.flush()

    def commit(self) -> None:
        """Bring the file to the disk and give it its name."""
        self._file.commit()

    def _section(self, tag: str, content: bytes) -> None:
        offset = self._position
        self._write(content)
        self._pad()
        self._sections.append((tag, zlib.crc32(content), offset, len(content)))
        self._crc = 0

    def _write(self, chunk: _Bytes) -> int:
        view = np.ascontiguousarray(chunk).data if isinstance(chunk, np.ndarray) else memoryview(chunk)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        self._file.write(view)
        self._crc = zlib.crc32(view, self._crc)
        self._position += view.nbytes
        return view.nbytes

    def _pad(self) -> None:
        self._write(bytes(-self._position % ALIGNMENT))
