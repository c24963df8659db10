"""Which dialect of I2_S a file is in: told by what is known of the very file, by the checkpoint it was made from, or by
the user.

Nothing in a file marks it, but for a key of edgebit's own exports. Its codes cannot tell it either: all dialects have
the same two-bit fields, in another order.
"""

import hashlib
from pathlib import Path

import numpy as np

from edgebit.checkpoint.gguf_file.split import GgufModel
from edgebit.checkpoint.gguf_file.ternary_tensors import TernaryTensors
from edgebit.checkpoint.hints import I2S_DIALECTS
from edgebit.checkpoint.hugging_face.checkpoint import open_hugging_face
from edgebit.checkpoint.own_gguf_keys import I2S_DIALECT
from edgebit.errors import CheckpointError
from edgebit.ternary.ggml.i2_s import I2SDialect

# microsoft/bitnet-b1.58-2B-4T-gguf, ggml-model-i2_s.gguf, 1.10 GiB; the sum is public, the file was not seen here.
_KNOWN_FILES: dict[str, I2SDialect] = {"4221b252fdd5fd25e15847adfeb5ee88886506ba50b8a34548374492884c2162": "x86"}
_KNOWN_BYTES = (1_100_000_000, 1_300_000_000)  # so that other files are not read through for nothing
_READ_BYTES = 4 << 20
_SAME_CODES = 0.999  # of all codes of a projection


def known_dialect(model: GgufModel, where: str) -> I2SDialect | None:
    """The dialect that edgebit's own key states, or of a file that is known byte for byte.

    Raises CheckpointError at a value that the key never has.
    """
    stated = model.fields.get(I2S_DIALECT)
    for dialect in I2S_DIALECTS:
        if isinstance(stated, str) and stated == dialect:
            return dialect
    if stated is not None:
        raise CheckpointError(f"{where}: {I2S_DIALECT} is {stated!r}; known are {', '.join(I2S_DIALECTS)}")
    file = model.parts[0]
    if len(model.parts) > 1 or not _KNOWN_BYTES[0] <= file.size <= _KNOWN_BYTES[1]:
        return None
    return _KNOWN_FILES.get(_sha256(file.path))


def dialect_like(ternary: TernaryTensors, folder: Path, where: str) -> I2SDialect:
    """The dialect in which the first projection has the codes of the Hugging Face checkpoint in `folder`.

    Codes of master weights may differ in a few places, where a mean was summed in another order; those that a wrong
    dialect reads differ in most. Raises CheckpointError where the checkpoint is another model's.
    """
    role, layer = ternary.i2_s_projections()[0]
    reference = open_hugging_face(folder)
    try:
        conf = reference.config.conf
        wanted = reference.projection(role, layer).weights if layer < conf.n_layers else np.zeros((0, 0), np.int8)
    finally:
        reference.close()
    shares = {}
    for dialect in I2S_DIALECTS:
        try:
            ternary.use_dialect(dialect)
            found = ternary.projection(role, layer).weights
        except CheckpointError:
            continue  # a shape or a code that this dialect does not have
        shares[dialect] = float((found == wanted).mean()) if found.shape == wanted.shape else 0.0
    fitting = [dialect for dialect, share in shares.items() if share >= _SAME_CODES]
    if len(fitting) != 1:
        best = max(shares.values(), default=0.0)
        raise CheckpointError(
            f"{where}: in no dialect of I2_S its codes are those of {folder}: at best {best:.1%} are the same. "
            "The file was made from another checkpoint, or neither tells: choose with --i2s-dialect alone"
        )
    return fitting[0]


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
