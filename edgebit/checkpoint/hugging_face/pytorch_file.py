"""A PyTorch file, as torch.save() has written them since version 1.6: an archive of a pickle and of plain storages.

The pickle is read by state_dict_pickle.py, which runs nothing of it; the storages are read where they lie.
"""

import math
import os
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from numpy.typing import NDArray

from edgebit.checkpoint.hugging_face.safetensors_file import DTYPE_BYTES, TensorInfo, read_rows
from edgebit.checkpoint.hugging_face.state_dict_pickle import MAX_BYTES, PickledTensor, read_state_dict
from edgebit.checkpoint.hugging_face.stored_zip import MAGIC, StoredEntry, read_entries
from edgebit.checkpoint.positioned_reads import CheckedFile
from edgebit.errors import CheckpointError

_LEGACY_MAGIC = (
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch.save() began files with before 1.6
)


class PytorchFile(CheckedFile):
    """An open PyTorch file of a state dict: every tensor is contiguous and inside its storage."""

    def _check(self) -> None:
        self.tensors = _read_tensors(self._file, self.path)

    def read(self, name: str, first_row: int = 0, n_rows: int | None = None) -> NDArray[Any]:
        """See SafetensorsFile.read()."""
        return read_rows(self._file, self.path, name, self.tensors[name], first_row, n_rows)


def _advice(path: Path) -> str:
    """The command that writes a file anew; weights_only keeps torch from running what the pickle says."""
    return (
        f'If you trust it, save it anew in {path.parent}, where torch is installed: python -c "import torch; '
        f"p = '{path.name}'; tensors = torch.load(p, weights_only=True, map_location='cpu'); "
        'torch.save({k: v.clone().contiguous() for k, v in tensors.items()}, p)"'
    )


def _read_tensors(file: BinaryIO, path: Path) -> dict[str, TensorInfo]:
    fd, where = file.fileno(), str(path)
    start = os.pread(fd, len(_LEGACY_MAGIC), 0)
    if start == _LEGACY_MAGIC:
        raise CheckpointError(f"{path}: was written in the form of before PyTorch 1.6. {_advice(path)}")
    if not start.startswith(MAGIC):
        raise CheckpointError(f"{path}: is no PyTorch file: it begins with {start[:8]!r}")
    entries = _without_folder(read_entries(fd, where), where)
    if "constants.pkl" in entries:
        raise CheckpointError(f"{path}: is a TorchScript program. Save the model's state dict instead.")
    byte_order = entries.get("byteorder")
    if byte_order is not None and os.pread(fd, min(byte_order.size, 8), byte_order.offset) != b"little":
        raise CheckpointError(f"{path}: its values are in big-endian order. {_advice(path)}")
    pickled = read_state_dict(_read_pickle(fd, entries, where), f"{path}: data.pkl", _advice(path))
    return {name: _tensor_info(tensor, entries, path, name) for name, tensor in pickled.items()}


def _without_folder(entries: dict[str, StoredEntry], where: str) -> dict[str, StoredEntry]:
    """The entries by their names inside the one folder that all of them are in."""
    folders = set()
    for name in entries:
        parts = PurePosixPath(name).parts
        if len(parts) < 2 or {"..", "/"} & set(parts):
            raise CheckpointError(f"{where}: entry {name!r} is outside the archive's folder")
        folders.add(parts[0])
    if len(folders) != 1:
        raise CheckpointError(f"{where}: the archive has {len(folders)} folders, of a PyTorch file it is one")
    return {name.partition("/")[2]: entry for name, entry in entries.items()}


def _read_pickle(fd: int, entries: dict[str, StoredEntry], where: str) -> bytes:
    entry = entries.get("data.pkl")
    if entry is None:
        raise CheckpointError(f"{where}: the archive has no data.pkl: it is no PyTorch file")
    if entry.size > MAX_BYTES:
        raise CheckpointError(f"{where}: data.pkl has {entry.size} bytes; {MAX_BYTES} are the limit")
    data = os.pread(fd, entry.size, entry.offset)
    if zlib.crc32(data) != entry.crc:
        raise CheckpointError(f"{where}: the sum of data.pkl is wrong: damaged. Copy it again.")
    return data


def _tensor_info(tensor: PickledTensor, entries: dict[str, StoredEntry], path: Path, name: str) -> TensorInfo:
    storage, where = tensor.storage, f"{path}: tensor {name}"
    entry, step = entries.get(f"data/{storage.key}"), DTYPE_BYTES[storage.dtype]
    if entry is None:
        raise CheckpointError(f"{where}: its storage, {f'data/{storage.key}'[:40]!r}, is missing")
    if entry.size != storage.count * step:
        raise CheckpointError(
            f"{where}: its storage has {entry.size} bytes; {storage.count} of type {storage.dtype} take "
            f"{storage.count * step}"
        )
    count = math.prod(tensor.shape)
    if tensor.offset + count > storage.count:
        raise CheckpointError(
            f"{where}: {list(tensor.shape)} from {tensor.offset} on ends at {tensor.offset + count}, its storage at "
            f"{storage.count}"
        )
    packed = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1 and stride != packed and count:
            raise CheckpointError(f"{where}: is a view with strides {list(tensor.strides)}. {_advice(path)}")
        packed *= size
    return TensorInfo(storage.dtype, tensor.shape, entry.offset + tensor.offset * step, count * step)
