"""Service: low-rank matrices as adapter files hold them (docs/adapter-format.md), and adapters of peft converted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.adapter_format import LANES, MAX_RANK, AdapterFile, StoredPair, check_name
from edgebit.bundle.conf_section import read_conf
from edgebit.bundle.model_format import Encoding
from edgebit.bundle.part_file import PartFile
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.hugging_face.peft_folder import (
    LowRankPair,
    PeftAdapter,
    Place,
    module_name,
    read_peft_folder,
)
from edgebit.errors import CheckpointError, OutputError
from edgebit.native_model import native_model
from edgebit.progress import Progress, unwatched
from edgebit.runtime.adapter import Adapter

_HALF_MOST = 65504  # the largest finite float16


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """What convert_adapter() has written."""

    out: Path
    adapter: AdapterFile
    size: int  # bytes
    rounded: float  # of the matrices that the pairs add, the largest relative error (Frobenius) that rounding makes


def convert_adapter(
    folder: Path,
    base: Path,
    out: Path,
    *,
    encoding: Encoding = Encoding.F16,
    name: str | None = None,
    hints: Hints = NO_HINTS,
    progress: Progress = unwatched,
) -> AdapterReport:
    """Write peft's adapter in `folder` for the model `base`: a model file, a bundle or a checkpoint.

    name: what it is called, by default as `out` is without its suffix
    Raises CheckpointError where it does not fit the model or the format, BundleError for a name that cannot be.
    """
    name = name or out.stem
    check_name(name)
    peft = read_peft_folder(folder)
    with native_model(base, template="none", hints=hints, progress=progress) as model:
        conf = read_conf(model.section("CONF") or b"")
        peft.check_base(conf, str(base))
        adapter = adapter_of(peft, name=name, base=model.weights_fingerprint(), encoding=encoding)
        content = adapter.pack()
        Adapter.open(model.library, model, content).close()
    with PartFile(out, OutputError) as part:
        part.write(content)
        part.commit()
    rounded = max(_relative_error(peft.pairs[pair.layer, pair.role], low_rank_pair(pair)) for pair in adapter.pairs)
    return AdapterReport(out, adapter, len(content), rounded)


def _relative_error(pair: LowRankPair, held: LowRankPair) -> float:
    """|BA - what is held of it| / |BA|; of a pair that adds nothing, 0."""
    product = pair.product()
    size = float(np.linalg.norm(product))
    return float(np.linalg.norm(product - held.product())) / size if size else 0.0


def adapter_of(adapter: PeftAdapter, *, name: str, base: int, encoding: Encoding) -> AdapterFile:
    """An adapter of peft as a file for the model whose weights' fingerprint is `base`; encoding: F16 or I8.

    Raises CheckpointError for a rank or a value that the format has no place for.
    """
    pairs = (stored_pair(place, pair, encoding) for place, pair in sorted(adapter.pairs.items()))
    return AdapterFile(name, base, tuple(pairs))


def stored_pair(place: Place, pair: LowRankPair, encoding: Encoding) -> StoredPair:
    """One pair, its matrices rounded to `encoding`."""
    if pair.rank > MAX_RANK:
        raise CheckpointError(f"{module_name(place)}: rank {pair.rank}; an adapter file holds up to {MAX_RANK}")
    layer, role = place
    a, a_scales = _rounded(pair.a, encoding, place)
    b, b_scales = _rounded(pair.b, encoding, place)
    rank, columns, rows = pair.rank, pair.a.shape[1], len(pair.b)
    filled_a = np.zeros((rank, -(-columns // LANES) * LANES), a.dtype)
    filled_a[:, :columns] = a
    filled_b = np.zeros((-(-rows // LANES) * LANES, rank), b.dtype)
    filled_b[:rows] = b
    groups = filled_b.reshape(-1, LANES, rank).transpose(0, 2, 1)
    return StoredPair(
        layer=layer, role=role, encoding=encoding, rank=rank, columns=columns, rows=rows, scale=pair.scale,
        a=filled_a.tobytes(), b=groups.tobytes(), a_scales=a_scales, b_scales=b_scales,
    )  # fmt: skip


def low_rank_pair(stored: StoredPair) -> LowRankPair:
    """What a pair of a file stands for."""
    dtype = np.int8 if stored.encoding == Encoding.I8 else np.dtype("<f2")
    a = np.frombuffer(stored.a, dtype).reshape(stored.rank, -1)[:, : stored.columns].astype(np.float32)
    groups = np.frombuffer(stored.b, dtype).reshape(-1, stored.rank, LANES)
    b = groups.transpose(0, 2, 1).reshape(-1, stored.rank)[: stored.rows].astype(np.float32)
    if stored.encoding == Encoding.I8:
        a *= np.frombuffer(stored.a_scales, "<f4")[:, None]
        b *= np.frombuffer(stored.b_scales, "<f4")[:, None]
    return LowRankPair(a, b, stored.scale)


def _rounded(values: NDArray[np.float32], encoding: Encoding, place: Place) -> tuple[NDArray[np.generic], bytes]:
    """Values as the file has them, and the bytes of the scales of their rows."""
    if encoding == Encoding.I8:
        scales = np.abs(values).max(axis=1) / np.float32(127)
        codes = np.rint(values / np.where(scales > 0, scales, 1)[:, None]).clip(-127, 127)
        return codes.astype(np.int8), scales.astype("<f4").tobytes()
    most = float(np.abs(values).max())
    if most > _HALF_MOST:
        raise CheckpointError(f"{module_name(place)}: {most} is beyond float16: use --type int8")
    return values.astype("<f2"), b""
