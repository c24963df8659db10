"""A GGUF model in one file, or in the parts that llama.cpp's gguf-split writes: NAME-00001-of-00003.gguf."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebit.checkpoint.gguf_file.container import GgufFile, StoredTensor
from edgebit.checkpoint.gguf_file.metadata import Value
from edgebit.errors import CheckpointError

_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def first_parts(folder: Path) -> list[Path]:
    """The GGUF files of a folder; of one in parts the first alone."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf" and path.is_file())
    named = {path: _PART.fullmatch(path.name) for path in files}
    stems = {(found["name"], found["count"]) for found in named.values() if found}
    whole = [path for path, found in named.items() if not found]
    return whole + [folder / f"{name}-00001-of-{count}.gguf" for name, count in sorted(stems)]


class GgufModel:
    """All parts of a GGUF model, whose tables have been joined."""

    def __init__(self, path: Path) -> None:
        """Open the file, or all parts of which it is one. Raises CheckpointError naming the part at fault."""
        self.parts: list[GgufFile] = []
        self._part_of: dict[str, GgufFile] = {}
        self.tensors: dict[str, StoredTensor] = {}
        try:
            for part in part_paths(path):
                self._add(part)
            self._check_parts()
        except BaseException:
            self.close()
            raise
        self.fields: dict[str, Value] = self.parts[0].fields

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def file_of(self, name: str) -> Path:
        """The file that a tensor is in."""
        return self._part_of[name].path

    def alignment_of(self, name: str) -> int:
        """What the offsets of the tensors of that file are multiples of."""
        return self._part_of[name].alignment

    def read(self, tensor: StoredTensor, start: int, n_bytes: int) -> NDArray[np.uint8]:
        """See GgufFile.read()."""
        return self._part_of[tensor.name].read(tensor, start, n_bytes)

    def _add(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(f"{path}: this part is missing. Complete the download.")
        part = GgufFile(path)
        self.parts.append(part)
        for name, tensor in part.tensors.items():
            if name in self.tensors:
                raise CheckpointError(f"{path}: tensor {name} is in {self._part_of[name].path.name} as well")
            self.tensors[name], self._part_of[name] = tensor, part

    def _check_parts(self) -> None:
        if not self.tensors:
            raise CheckpointError(f"{self.parts[0].path}: has no tensors: a vocabulary alone is no model")
        for number, part in enumerate(self.parts):
            count = part.fields.get("split.count", 0)
            if not isinstance(count, int) or (count or 1) != len(self.parts):
                more = "" if _PART.fullmatch(part.path.name) else ", and its name is not NAME-00001-of-0000N.gguf"
                raise CheckpointError(
                    f"{part.path}: split.count is {count!r}, and {len(self.parts)} parts are there{more}"
                )
            place = part.fields.get("split.no")
            if len(self.parts) > 1 and (not isinstance(place, int) or place != number):
                raise CheckpointError(f"{part.path}: split.no is {place!r}, not {number}")
        wanted = self.parts[0].fields.get("split.tensors.count", len(self.tensors))
        if not isinstance(wanted, int) or wanted != len(self.tensors):
            raise CheckpointError(
                f"{self.parts[0].path}: split.tensors.count is {wanted!r}, the parts have {len(self.tensors)} tensors"
            )


def part_paths(path: Path) -> list[Path]:
    """All parts of the model of which `path` is one; of any other file, itself."""
    found = _PART.fullmatch(path.name)
    if not found:
        return [path]
    count = int(found["count"])
    if not 1 <= int(found["number"]) <= count <= 1000:
        raise CheckpointError(f"{path}: the name says part {int(found['number'])} of {count}")
    return [path.with_name(f"{found['name']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
