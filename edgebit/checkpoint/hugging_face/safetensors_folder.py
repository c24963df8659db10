"""The tensors of a Hugging Face folder: model.safetensors, or its shards and their index."""

from pathlib import Path, PurePath
from typing import Any

from numpy.typing import NDArray

from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.safetensors_file import SafetensorsFile, TensorInfo
from edgebit.errors import CheckpointError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class SafetensorsFolder:
    """The tensors of model.safetensors, or of the shards that model.safetensors.index.json lists."""

    def __init__(self, folder: Path) -> None:
        """Open all files. Raises CheckpointError where one is missing, damaged, or not as the index says."""
        self._files: list[SafetensorsFile] = []
        self._by_name: dict[str, SafetensorsFile] = {}
        try:
            if (folder / _SINGLE).is_file():
                self._add(folder / _SINGLE)
            elif (folder / _INDEX).is_file():
                self._add_shards(folder / _INDEX)
            else:
                raise CheckpointError(
                    f"{folder}: there is neither {_SINGLE} nor {_INDEX}: no weights. {_advice(folder)}"
                )
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

    def _add(self, path: Path) -> SafetensorsFile:
        file = SafetensorsFile(path)
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
            if PurePath(shard).name != shard:
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
    other = next((path.name for kind in ("*.bin", "*.gguf", "*.pth") for path in sorted(folder.glob(kind))), None)
    return f"{other} is not read: save it as safetensors first." if other else "Complete the download."
