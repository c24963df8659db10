"""The tensors of a Hugging Face folder: one file, or shards and their index, as safetensors or from PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.pytorch_file import PytorchFile
from edgebit.checkpoint.hugging_face.safetensors_file import SafetensorsFile, TensorInfo
from edgebit.errors import CheckpointError


class TensorFile(Protocol):
    """One open file of tensors, checked against its own size."""

    path: Path
    tensors: dict[str, TensorInfo]

    def read(self, name: str, first_row: int = 0, n_rows: int | None = None) -> NDArray[Any]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Form:
    format: Literal["safetensors", "pytorch"]
    single: str  # the file that holds all tensors
    open: Callable[[Path], TensorFile]

    @property
    def index(self) -> str:
        """The file that lists the shards, where there is no single file."""
        return f"{self.single}.index.json"


_FORMS = (
    _Form("safetensors", "model.safetensors", SafetensorsFile),
    _Form("pytorch", "pytorch_model.bin", PytorchFile),
)


class TensorFolder:
    """The tensors of model.safetensors, of the shards that model.safetensors.index.json lists, or else of PyTorch's."""

    format: Literal["safetensors", "pytorch"]

    def __init__(self, folder: Path) -> None:
        """Open all files. Raises CheckpointError where one is missing, damaged, or not as the index says."""
        self._files: list[TensorFile] = []
        self._by_name: dict[str, TensorFile] = {}
        names = [name for form in _FORMS for name in (form.single, form.index)]
        found = next((name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise CheckpointError(f"{folder}: there is neither {' nor '.join(names)}: no weights. {_advice(folder)}")
        self._form = _FORMS[names.index(found) // 2]
        self.format = self._form.format
        try:
            if found == self._form.single:
                self._add(folder / found)
            else:
                self._add_shards(folder / found)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self._files:
            file.close()

    def names(self) -> set[str]:
        return set(self._by_name)

    def files(self) -> list[Path]:
        return [file.path for file in self._files]

    def info(self, name: str) -> TensorInfo:
        return self._by_name[name].tensors[name]

    def file_of(self, name: str) -> Path:
        return self._by_name[name].path

    def read(self, name: str, first_row: int = 0, n_rows: int | None = None) -> NDArray[Any]:
        """See SafetensorsFile.read()."""
        return self._by_name[name].read(name, first_row, n_rows)

    def _add(self, path: Path) -> TensorFile:
        file = self._form.open(path)
        self._files.append(file)
        for name in file.tensors:
            if name in self._by_name:
                raise CheckpointError(f"{path}: tensor {name} is in {self._by_name[name].path.name} as well")
            self._by_name[name] = file
        return file

    def _add_shards(self, index: Path) -> None:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index}: there is no weight_map")
        if not all(isinstance(shard, str) for shard in weight_map.values()):
            raise CheckpointError(f"{index}: weight_map does not map tensors to files")
        for shard in sorted(set(weight_map.values())):
            if PurePath(shard).name != shard or not shard.isprintable():
                raise CheckpointError(f"{index}: {shard!r} is no file name beside it")
            if not (index.parent / shard).is_file():
                raise CheckpointError(f"{index.parent / shard}: this shard is missing. Complete the download.")
            held = set(self._add(index.parent / shard).tensors)
            listed = {name for name, file in weight_map.items() if file == shard}
            for name in sorted(held ^ listed):
                fault = "is there, but not listed" if name in held else "is listed, but not there"
                raise CheckpointError(
                    f"{index.parent / shard}: tensor {name} {fault} in {index.name}: files of two checkpoints?"
                )


def _advice(folder: Path) -> str:
    other = next((path.name for kind in ("*.gguf", "*.pth", "*.bin") for path in sorted(folder.glob(kind))), None)
    return f"There is {other}, under none of these names." if other else "Complete the download."
