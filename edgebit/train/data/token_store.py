"""Rendered documents in a file without a name: read again at any place, gone with the process, however it ends."""

import os
import tempfile
from array import array
from pathlib import Path

from edgebit.train.rows import IGNORED, Document

_LEARNT = 1 << 31  # set in the word of a token that bears loss


class TokenStore:
    """Four bytes a token on disk, twelve a document in memory. Documents are known by the order they came in."""

    def __init__(self, folder: Path | None) -> None:
        """folder: on whose disk; None: the system's for temporary files."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (as long as the store)
        self._begins = array("Q")
        self._sizes = array("I")
        self._n_words = 0
        self._unwritten = False

    def __len__(self) -> int:
        return len(self._begins)

    def append(self, document: Document) -> None:
        """Put one more at the end. Raises OSError where the disk is full."""
        words = array(
            "I",
            [
                token if label == IGNORED else token | _LEARNT
                for token, label in zip(document.ids, document.labels, strict=True)
            ],
        )
        self._begins.append(self._n_words)
        self._sizes.append(len(words))
        self._n_words += len(words)
        self._file.write(words.tobytes())
        self._unwritten = True

    def __getitem__(self, number: int) -> Document:
        if self._unwritten:
            self._file.flush()
            self._unwritten = False
        words = array("I")
        size = self._sizes[number] * words.itemsize
        words.frombytes(os.pread(self._file.fileno(), size, self._begins[number] * words.itemsize))
        ids = [word & ~_LEARNT for word in words]
        return Document(ids, [token if word & _LEARNT else IGNORED for token, word in zip(ids, words, strict=True)])
