"""Reads a model file, alone or inside a bundle, and checks all of it before use. Standard library only.

The engine has its own reader in C for running a model; this one shows what a file holds, and both are held to the same
hostile files by the tests.
"""

import json
import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from edgebit.bundle.conf_section import read_conf
from edgebit.bundle.model_format import (
    ALIGNMENT,
    GROUP_STEP,
    HEADER,
    KNOWN_TAGS,
    MAGIC,
    MAX_META_BYTES,
    MAX_PROBE_TOKENS,
    MAX_SECTIONS,
    NO_LAYER,
    REQUIRED_TAGS,
    SECTION,
    TENSOR,
    VERSION,
    Conf,
    Encoding,
    Granularity,
    Probe,
    Role,
    Scaling,
    Tensor,
    aligned,
    values_size,
)
from edgebit.errors import BundleError

_ENCODINGS = {
    Role.TOKEN_EMBEDDING: (Encoding.F32, Encoding.BF16, Encoding.F16, Encoding.I8),
    Role.HEAD: (Encoding.H8,),
}


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section's content lies, in bytes from the start of the model file, and its sum."""

    tag: str
    crc: int
    offset: int
    size: int


class ModelFile:
    """An open model file: header, sections and tensor table checked; of the weights, only where they lie.

    Use it in a with block: the file stays mapped until then.
    """

    sections: dict[str, Section]
    conf: Conf
    tensors: list[Tensor]
    meta: dict[str, Any]
    probes: tuple[Probe, ...]

    def __init__(self, path: Path, offset: int = 0, size: int = 0) -> None:
        """Map `size` bytes at `offset` of the file at `path` (0: to its end), and check them.

        Raises BundleError saying what is wrong where.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise BundleError(f"{path}: is empty, and no model file or bundle. Copy it again") from error
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error}") from error
        end = offset + size if size else len(self._map)
        self._view = memoryview(b"")
        try:
            if offset < 0 or end > len(self._map):
                self._refuse(f"a model of {size} bytes at byte {offset} ends behind the file of {len(self._map)}")
            self._view = memoryview(self._map)[offset:end]
            self.size = len(self._view)
            self.sections = self._read_sections()
            self.conf = self._read_conf()
            self._check_token_count()
            self.tensors = self._read_tensors()
            self.meta = self._read_meta()
            self.probes = self._read_probes()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._view.release()
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def probe_context(self) -> int:
        """Tokens that the longest golden probe takes of a context; 1 where there is none."""
        return max((len(probe.prompt) + len(probe.greedy) for probe in self.probes), default=1)

    def content(self, tag: str) -> bytes | None:
        """A copy of a section's bytes; None where the file has no such section."""
        section = self.sections.get(tag)
        return bytes(self._view[section.offset : section.offset + section.size]) if section else None

    def values(self, tensor: Tensor) -> memoryview:
        """The stored bytes of a tensor's values; release it before the file is closed."""
        return self._view[tensor.offset : tensor.offset + tensor.size]

    def scales(self, tensor: Tensor) -> tuple[float, ...]:
        """The scales of a tensor."""
        return struct.unpack_from(f"<{tensor.n_scales}f", self._view, tensor.scales_offset)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read all weights and check the sum of section DATA. Raises BundleError."""
        section = self.sections["DATA"]
        crc, position, end = 0, section.offset, section.offset + section.size
        while position < end:
            step = min(16 << 20, end - position)
            with self._view[position : position + step] as chunk:
                crc = zlib.crc32(chunk, crc)
            if hasattr(mmap, "MADV_DONTNEED"):  # else all pages of the file would count as this process's memory
                self._map.madvise(mmap.MADV_DONTNEED)
            position += step
            progress(position - section.offset, section.size)
        if crc != section.crc:
            self._refuse("the sum of section DATA is wrong: a weight is damaged. Copy or build it again.")

    def _refuse(self, what: str) -> NoReturn:
        raise BundleError(f"{self.path}: {what}")

    def _read_header(self) -> int:
        """The number of sections."""
        view, size = self._view, self.size
        if size < HEADER.size:
            self._refuse(f"{size} bytes are no model file: another one, or a copy cut short. Copy it again.")
        magic, version, n_sections, file_size, table_crc, header_crc, reserved = HEADER.unpack_from(view)
        if magic != MAGIC:
            self._refuse("is no model file: the first eight bytes are others")
        if zlib.crc32(view[:28]) != header_crc:
            self._refuse("the sum of the header is wrong: damaged. Copy it again.")
        if version != VERSION:
            self._refuse(f"is of version {version} of the model file; known is {VERSION}. Build it again.")
        if file_size != size:
            self._refuse(f"the header promises {file_size} bytes, there are {size}: a copy cut short. Copy it again.")
        if not 1 <= n_sections <= MAX_SECTIONS:
            self._refuse(f"{n_sections} sections: 1 to {MAX_SECTIONS} are possible")
        table_end = HEADER.size + n_sections * SECTION.size
        if table_end > size:
            self._refuse(f"the section table ends at byte {table_end}, the file has {size}")
        if zlib.crc32(view[HEADER.size : table_end]) != table_crc:
            self._refuse("the sum of the section table is wrong: damaged. Copy it again.")
        self._check_zero(reserved, "the header's reserved bytes")
        return int(n_sections)

    def _read_sections(self) -> dict[str, Section]:
        n_sections = self._read_header()
        sections: dict[str, Section] = {}
        position = HEADER.size + n_sections * SECTION.size
        for i in range(n_sections):
            section = self._read_section(i, position)
            if section.tag in sections:
                self._refuse(f"section {section.tag} stands twice")
            sections[section.tag] = section
            position = section.offset + section.size
        if self.size != aligned(position):
            self._refuse(f"the sections end at byte {position}, the file has {self.size}")
        self._check_zero(bytes(self._view[position : self.size]), "the padding at the end")
        for tag in REQUIRED_TAGS:
            if tag not in sections:
                self._refuse(f"section {tag} is missing")
        return sections

    def _read_section(self, number: int, position: int) -> Section:
        """The row of the table with that number, from 0; the section before it ends at byte `position`."""
        view, size = self._view, self.size
        raw_tag, crc, offset, length, reserved = SECTION.unpack_from(view, HEADER.size + number * SECTION.size)
        if not raw_tag.isalnum():
            self._refuse(f"section {number} has a tag that is no four letters: {raw_tag!r}")
        tag = raw_tag.decode("ascii")
        self._check_zero(reserved, f"the reserved bytes of section {tag}")
        if tag not in KNOWN_TAGS and not tag[0].islower():
            self._refuse(f"section {tag} is not known, and must be. Use a newer edgebit.")
        if offset % ALIGNMENT:
            self._refuse(f"section {tag} at byte {offset} is not aligned to {ALIGNMENT}")
        if offset != aligned(position):
            self._refuse(f"section {tag} at byte {offset}: it must follow the one before, at {aligned(position)}")
        if offset > size or length > size - offset:
            self._refuse(f"section {tag} ends at byte {offset + length}, the file has {size}")
        self._check_zero(bytes(view[position:offset]), f"the padding before section {tag}")
        if tag != "DATA" and zlib.crc32(view[offset : offset + length]) != crc:
            self._refuse(f"the sum of section {tag} is wrong: damaged. Copy it again.")
        return Section(tag, crc, offset, length)

    def _check_zero(self, data: bytes, what: str) -> None:
        if any(data):
            self._refuse(f"{what} must be zero")

    def _read_conf(self) -> Conf:
        try:
            return read_conf(self.content("CONF") or b"")
        except BundleError as error:
            self._refuse(str(error))

    def _check_token_count(self) -> None:
        """Of section TOKN: every id that the model gives has a place in it."""
        content = self.content("TOKN")
        if content is None:
            return
        n_tokens = int.from_bytes(content[4:8], "little")
        if n_tokens < self.conf.vocab_size:
            self._refuse(
                f"section TOKN has {n_tokens} tokens, CONF a vocabulary of {self.conf.vocab_size}: the tokenizer is "
                "another model's. Convert the checkpoint again."
            )

    def _read_tensors(self) -> list[Tensor]:
        section, data = self.sections["TENS"], self.sections["DATA"]
        wanted = set(self.conf.roles())
        needed = len(wanted) * TENSOR.size
        if section.size != needed:
            self._refuse(f"section TENS has {section.size} bytes; {len(wanted)} tensors take {needed}")
        tensors, taken = [], []
        for start in range(section.offset, section.offset + section.size, TENSOR.size):
            tensor = self._read_tensor(start)
            if (tensor.role, tensor.layer) not in wanted:
                self._refuse(f"tensor {tensor.name}: stands twice, or the model has no such tensor")
            wanted.remove((tensor.role, tensor.layer))
            tensors.append(tensor)
            taken.append((tensor.offset, tensor.size, tensor.name))
            if tensor.n_scales:
                taken.append((tensor.scales_offset, 4 * tensor.n_scales, f"{tensor.name}'s scales"))
        position = data.offset
        for offset, size, name in sorted(taken):
            if offset % ALIGNMENT:
                self._refuse(f"tensor {name} at byte {offset} is not aligned to {ALIGNMENT}")
            if offset < position:
                self._refuse(f"tensor {name} at byte {offset} overlaps another, or lies before section DATA")
            position = offset + size
            if position > data.offset + data.size:
                self._refuse(f"tensor {name} ends at byte {position}, section DATA at {data.offset + data.size}")
        return tensors

    def _read_tensor(self, start: int) -> Tensor:
        raw = TENSOR.unpack_from(self._view, start)
        role, layer, encoding, granularity, rows, columns, offset, size, scales_offset, n_scales, group, reserved = raw
        if role not in set(Role) or encoding not in set(Encoding) or granularity not in set(Granularity):
            self._refuse(
                f"a tensor has role {role}, encoding {encoding}, scale granularity {granularity}: not all known. "
                "Use a newer edgebit."
            )
        tensor = Tensor(
            role=Role(role), layer=layer, encoding=Encoding(encoding), granularity=Granularity(granularity), rows=rows,
            columns=columns, offset=offset, size=size, scales_offset=scales_offset, n_scales=n_scales, group=group,
        )  # fmt: skip
        self._check_zero(reserved, f"tensor {tensor.name}: the reserved bytes")
        if not tensor.role.per_layer and layer != NO_LAYER:
            self._refuse(f"tensor {tensor.name}: has layer {layer}, and none is possible")
        shape = self.conf.shape_of(tensor.role)
        if (rows, columns) != shape:
            self._refuse(f"tensor {tensor.name}: is {rows} x {columns}; CONF asks for {shape[0]} x {shape[1]}")
        allowed = _ENCODINGS.get(
            tensor.role, (Encoding.T2, Encoding.T1) if tensor.role.is_projection else (Encoding.F32,)
        )
        if tensor.encoding not in allowed:
            self._refuse(f"tensor {tensor.name}: encoding {tensor.encoding.name} is not possible there")
        self._check_scaling(tensor)
        needed = values_size(tensor.encoding, rows, columns, group)
        if size != needed:
            self._refuse(f"tensor {tensor.name}: has {size} bytes; {needed} are needed")
        if n_scales != Scaling(tensor.granularity, group).count(rows, columns):
            self._refuse(f"tensor {tensor.name}: has {n_scales} scales")
        if tensor.granularity == Granularity.NONE and scales_offset:
            self._refuse(f"tensor {tensor.name}: has no scales, but an offset of them")
        return tensor

    def _check_scaling(self, tensor: Tensor) -> None:
        match tensor.encoding:
            case Encoding.T2:
                possible: tuple[Granularity, ...] = (Granularity.TENSOR, Granularity.ROW, Granularity.GROUP)
            case Encoding.T1:
                possible = (Granularity.TENSOR, Granularity.ROW)
            case Encoding.I8 | Encoding.H8:
                possible = (Granularity.ROW,)
            case _:
                possible = (Granularity.NONE,)
        if tensor.granularity not in possible:
            self._refuse(f"tensor {tensor.name}: scale granularity {tensor.granularity.name} is not possible there")
        if tensor.granularity != Granularity.GROUP:
            if tensor.group:
                self._refuse(f"tensor {tensor.name}: has groups of {tensor.group} columns, but no scale for each")
        elif not tensor.group or tensor.group % GROUP_STEP or tensor.columns % tensor.group:
            self._refuse(f"tensor {tensor.name}: groups of {tensor.group} columns are not possible in {tensor.columns}")

    def _read_meta(self) -> dict[str, Any]:
        if self.sections["META"].size > MAX_META_BYTES:
            self._refuse(f"section META has {self.sections['META'].size} bytes; {MAX_META_BYTES} are the limit")
        try:
            meta = json.loads((self.content("META") or b"").decode("utf-8"))
        except (ValueError, RecursionError) as error:
            self._refuse(f"section META is no JSON: {error}")
        if not isinstance(meta, dict):
            self._refuse("section META is no JSON object")
        return meta

    def _read_probes(self) -> tuple[Probe, ...]:
        content = self.content("PROB")
        if content is None:
            return ()
        position = 0

        def take(count: int, kind: str) -> tuple[int, ...]:
            nonlocal position
            if count * 4 > len(content) - position:
                self._refuse(f"section PROB ends inside a probe, at byte {position} of {len(content)}")
            position += count * 4
            return struct.unpack_from(f"<{count}{kind}", content, position - count * 4)

        version, n_probes = take(2, "I")
        if version != 1:
            self._refuse(f"section PROB is of version {version}; known is 1")
        probes = []
        for i in range(n_probes):
            n_prompt, n_greedy, n_crcs, logits_crc = take(4, "I")
            if not 1 <= n_prompt <= MAX_PROBE_TOKENS or n_greedy > MAX_PROBE_TOKENS or n_crcs != self.conf.n_layers + 1:
                self._refuse(f"golden probe {i} cannot have {n_prompt} prompt tokens, {n_greedy} greedy, {n_crcs} sums")
            prompt, greedy = take(n_prompt, "i"), take(n_greedy, "i")
            if any(not 0 <= token < self.conf.vocab_size for token in prompt + greedy):
                self._refuse(f"golden probe {i}: holds a token outside the vocabulary")
            probes.append(Probe(prompt=prompt, layer_crc=take(n_crcs, "I"), logits_crc=logits_crc, greedy=greedy))
        if position != len(content):
            self._refuse(f"section PROB has {len(content)} bytes, the probes end at {position}")
        return tuple(probes)
