"""Service: a checkpoint becomes a model file, streamed tensor by tensor in bounded memory."""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit import __version__
from edgebit.bundle.model_format import Encoding, Role
from edgebit.bundle.model_writer import ModelWriter
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hf import open_hf_checkpoint
from edgebit.ternary.absmean import row_int8

_HASH_BYTES = 4 << 20
Progress = Callable[[str, int, int], None]  # what is being done, tensors done, tensors in all


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertReport:
    """What a conversion made."""

    out: Path
    name: str
    family: str
    parameters: int
    size: int  # bytes of the model file
    n_probes: int
    licence: str | None
    seconds: float


def convert(
    checkpoint_dir: Path,
    out: Path,
    *,
    embedding: Literal["exact", "int8"] = "exact",
    progress: Progress = lambda what, done, total: None,
) -> ConvertReport:
    """Write the model file `out` from the checkpoint in `checkpoint_dir`.

    embedding: "exact" keeps the values as they are; "int8" is smaller and lossy (docs/decisions/embedding.md).
    Raises CheckpointError naming file and tensor, BundleError where `out` cannot be written; nothing is left then.
    """
    started = time.monotonic()
    checkpoint = open_hf_checkpoint(checkpoint_dir)
    try:
        with ThreadPoolExecutor(max_workers=1) as hasher:
            sources = hasher.submit(hash_files, checkpoint.weight_files())
            conf = checkpoint.config.conf
            front: dict[str, bytes] = {}
            with ModelWriter(out, conf, _embedding_encoding(checkpoint, embedding), front) as writer:
                total = len(writer.layout)
                for done, tensor in enumerate(writer.layout):
                    progress(tensor.name, done, total)
                    _write_tensor(checkpoint, writer, tensor.role, tensor.layer, embedding)
                progress("golden probes", total, total)
                writer.finish(_meta(checkpoint, embedding, sources))
                writer.commit()
    finally:
        checkpoint.close()
    return ConvertReport(
        out=out,
        name=checkpoint.config.name,
        family=checkpoint.family.name,
        parameters=conf.parameters,
        size=out.stat().st_size,
        n_probes=0,
        licence=checkpoint.config.licence,
        seconds=time.monotonic() - started,
    )


def hash_files(paths: list[Path]) -> list[dict[str, Any]]:
    """Name, size in bytes and SHA-256 of each file."""
    files = []
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_HASH_BYTES):
                digest.update(block)
        files.append({"name": path.name, "size": path.stat().st_size, "sha256": digest.hexdigest()})
    return files


def rope_inv_freq(theta: float, head_dim: int) -> NDArray[np.float32]:
    """What a position is multiplied by to get the angle of each pair, [head_dim / 2]."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    return (1.0 / np.float64(theta) ** exponents).astype(np.float32)


def _embedding_encoding(checkpoint: Checkpoint, embedding: str) -> Encoding:
    if embedding == "int8":
        return Encoding.I8
    return Encoding.BF16 if checkpoint.embedding_dtype() == "BF16" else Encoding.F32


def _write_tensor(checkpoint: Checkpoint, writer: ModelWriter, role: Role, layer: int, embedding: str) -> None:
    conf = checkpoint.config.conf
    if role == Role.ROPE_INV_FREQ:
        writer.write_tensor([rope_inv_freq(checkpoint.config.rope_theta, conf.head_dim)])
    elif role == Role.HEAD or (role == Role.TOKEN_EMBEDDING and embedding == "int8"):
        scales = np.empty(conf.vocab_size, np.float32)
        writer.write_tensor(_int8_rows(checkpoint, role, scales), scales)
    elif role == Role.TOKEN_EMBEDDING:
        exact_bits = checkpoint.embedding_dtype() == "BF16"
        writer.write_tensor(stored if exact_bits else values for stored, values in checkpoint.rows(role))
    elif role.is_projection:
        codes, scale = checkpoint.projection(role, layer)
        writer.write_tensor([codes], np.array([scale]))
    else:
        writer.write_tensor([checkpoint.vector(role, layer)])


def _int8_rows(checkpoint: Checkpoint, role: Role, scales: NDArray[np.float32]) -> Iterator[NDArray[np.int8]]:
    """int8 codes of a matrix, rows filled up to a multiple of 64; `scales` is filled as the chunks are taken."""
    first = 0
    for _, values in checkpoint.rows(role):
        codes, scales[first : first + len(values)] = row_int8(values)
        first += len(values)
        missing = -codes.shape[1] % 64
        yield np.pad(codes, ((0, 0), (0, missing))) if missing else codes


def _meta(checkpoint: Checkpoint, embedding: str, sources: "Future[list[dict[str, Any]]]") -> dict[str, Any]:
    config = checkpoint.config
    return {
        "name": config.name,
        "family": checkpoint.family.name,
        "licence": config.licence,
        "source": {"format": "safetensors", "files": sources.result()},
        "edgebit": __version__,
        "generation": config.generation,
        "quantisation": {
            "embedding": "int8" if embedding == "int8" else checkpoint.embedding_dtype().lower(),
            "head": "int8",
            "layout": "t2",
        },
        "parameters": config.conf.parameters,
    }
