"""What is often named in the place of a bundle or model file, and what becomes one of it. Standard library only."""

from pathlib import Path

from edgebit.bundle.lfs_pointer import LFS_POINTER, is_lfs_pointer
from edgebit.bundle.manifest import MANIFEST_NAME
from edgebit.errors import BundleError, CheckpointError

GRAPH_NAME = "model.onnx"  # of an exported folder, whose weights are in a file of that name and .data
_GGUF_MAGIC = b"GGUF"


def looks_like_exported(path: Path) -> bool:
    """Whether `path` is a folder with a model.onnx or the weights of one, or an ONNX file itself."""
    if not path.is_dir():
        return path.suffix == ".onnx"
    return any((path / name).exists() for name in (GRAPH_NAME, f"{GRAPH_NAME}.data"))


def looks_like_gguf(path: Path) -> bool:
    """Whether `path` is a GGUF file, or a folder with one."""
    if path.is_dir():
        return any(path.glob("*.gguf"))
    try:
        with path.open("rb") as file:
            return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError:
        return False


def refuse_exported(path: Path, error: type[BundleError] | type[CheckpointError]) -> None:
    """Raise `error` where `path` is made for ONNX Runtime; a checkpoint may have such a file beside its own."""
    if looks_like_exported(path) and not (path / "config.json").is_file():
        raise error(
            f"{path} is exported for ONNX Runtime: `edgebit run`, `edgebit compare`, `edgebit bench --engine onnx` "
            "and `edgebit doctor --onnx` take it. Give the model that it was made from here"
        )


def refuse_other_kinds(path: Path) -> None:
    """Raise BundleError where `path` is a folder without a manifest, an exported one or its graph, a GGUF file or a
    Git LFS pointer, or cannot be read; nothing is said of other files.
    """
    if path.is_dir():
        manifest = path / MANIFEST_NAME
        if manifest.exists() or manifest.is_symlink():
            return
        refuse_exported(path, BundleError)
        what = "a checkpoint" if (path / "config.json").is_file() else f"a folder without {MANIFEST_NAME}"
        raise BundleError(f"{path} is {what}. {_advice(path)}")
    try:
        with path.open("rb") as file:
            is_pointer, is_gguf = is_lfs_pointer(file), file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    if is_pointer:
        raise BundleError(f"{path} {LFS_POINTER}")
    if is_gguf:
        raise BundleError(f"{path} is a GGUF file, a checkpoint. {_advice(path)}")
    refuse_exported(path, BundleError)


def _advice(path: Path) -> str:
    return f"A checkpoint becomes a model file with: edgebit convert {path}, and a bundle with: edgebit build {path}"
