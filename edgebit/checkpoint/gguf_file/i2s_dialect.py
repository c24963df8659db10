"""Which dialect of I2_S a file is in: told by what is known of the very file, by the checkpoint it was made from, or by
the user.

Nothing in a file marks it. Its codes cannot tell it either: all dialects have the same two-bit fields, in another
order.
"""

import hashlib
from pathlib import Path

from edgebit.checkpoint.gguf_file.split import GgufModel
from edgebit.checkpoint.hints import I2SDialect
from edgebit.errors import CheckpointError

# microsoft/bitnet-b1.58-2B-4T-gguf, ggml-model-i2_s.gguf, 1.10 GiB; the sum is public, the file was not seen here.
_KNOWN_FILES: dict[str, I2SDialect] = {"4221b252fdd5fd25e15847adfeb5ee88886506ba50b8a34548374492884c2162": "x86"}
_KNOWN_BYTES = (1_100_000_000, 1_300_000_000)  # so that other files are not read through for nothing
_READ_BYTES = 4 << 20


def known_dialect(model: GgufModel) -> I2SDialect | None:
    """The dialect of a file that is known byte for byte."""
    file = model.parts[0]
    if len(model.parts) > 1 or not _KNOWN_BYTES[0] <= file.size <= _KNOWN_BYTES[1]:
        return None
    return _KNOWN_FILES.get(_sha256(file.path))


def undecided(where: str) -> CheckpointError:
    """The refusal that says how to choose."""
    return CheckpointError(
        f"{where} is of type I2_S, which bitnet.cpp writes in three dialects, and nothing in the file says which. Name "
        "it with --i2s-dialect: x86 for a file quantised on an x86 machine by bitnet.cpp's own build, with a Python "
        "converter, or anywhere before January 2026; arm for one quantised on an ARM machine since then; rows4 for one "
        "by an x86 build without ACT_PARALLEL. Or give the Hugging Face checkpoint that it was made from: "
        "--i2s-reference FOLDER"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
