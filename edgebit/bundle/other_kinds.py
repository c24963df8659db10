"""What is often named in the place of a bundle or model file, and what becomes one of it. Standard library only."""

from pathlib import Path

from edgebit.bundle.lfs_pointer import LFS_POINTER, is_lfs_pointer
from edgebit.bundle.manifest import MANIFEST_NAME
from edgebit.errors import BundleError

_GGUF_MAGIC = b"GGUF"


def refuse_other_kinds(path: Path) -> None:
    """Raise BundleError where `path` is a folder without a manifest, a GGUF file or a Git LFS pointer, or cannot be
    read; nothing is said of other files.
    """
    if path.is_dir():
        manifest = path / MANIFEST_NAME
        if manifest.exists() or manifest.is_symlink():
            return
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


def _advice(path: Path) -> str:
    return f"A checkpoint becomes a model file with: edgebit convert {path}, and a bundle with: edgebit build {path}"
