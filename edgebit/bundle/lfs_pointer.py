"""What a clone has in the place of a large file where Git LFS did not fetch it.

Source: the Git LFS specification (docs/spec.md), "The Pointer".
"""

from typing import BinaryIO

_START = b"version https://git-lfs"
LFS_POINTER = "is a Git LFS pointer, not the file itself: run `git lfs pull` in the clone that it is from"


def is_lfs_pointer(file: BinaryIO) -> bool:
    """Whether the file that is open at its beginning is such a pointer; it stands there again after."""
    start = file.read(len(_START))
    file.seek(0)
    return start == _START
