"""What adapters beside a model take: their files, kept in memory, and the engine's buffers for their side paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebit.bundle.adapter_format import AdapterFile, read_adapter_file
from edgebit.bundle.model_format import PROJECTIONS, Conf, Role, aligned
from edgebit.errors import BundleError
from edgebit.runtime.defaults import BATCH_LEN

_MAX_READERS = 3  # EB_MAX_READERS in kernels/src/engine.h: projections that read the same vector
_PAIR_BYTES = 56  # of an eb_low_rank in kernels/src/adapter.h


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterFacts:
    """What a plan needs to know of an adapter."""

    n_bytes: int  # of its file, which is kept in memory whole
    widest_rank: int
    has_gate: bool  # a pair for gate_proj or up_proj: the two are then computed to floats before their activation


def adapter_facts_of(path: Path, conf: Conf) -> AdapterFacts:
    """The facts of an adapter file.

    Raises BundleError where it is damaged, or has projections that a model of `conf` does not.
    """
    file = read_adapter_file(path)
    _check_shapes(path, file, conf)
    return AdapterFacts(
        n_bytes=path.stat().st_size,
        widest_rank=max(pair.rank for pair in file.pairs),
        has_gate=any(pair.role in (Role.GATE_PROJ, Role.UP_PROJ) for pair in file.pairs),
    )


def adapter_memory(adapters: Sequence[AdapterFacts], conf: Conf) -> dict[str, int]:
    """Bytes of memory by what they are for, with all of them loaded; nothing where there is none."""
    if not adapters:
        return {}
    pairs = _PAIR_BYTES * conf.n_layers * len(PROJECTIONS)
    files = sum(adapter.n_bytes + pairs for adapter in adapters)
    return {"adapters": files, "side paths": side_path_bytes(adapters, conf)}


def side_path_bytes(adapters: Sequence[AdapterFacts], conf: Conf, batch_len: int = BATCH_LEN) -> int:
    """The engine's buffers once each has been used: of the widest rank (take_buffers in kernels/src/low_rank.c)."""
    inner = 4 * batch_len * _MAX_READERS * max(adapter.widest_rank for adapter in adapters)
    gates = 4 * batch_len * conf.ffn_size if any(adapter.has_gate for adapter in adapters) else 0
    return aligned(inner) + 2 * aligned(gates)


def _check_shapes(path: Path, file: AdapterFile, conf: Conf) -> None:
    for pair in file.pairs:
        if pair.layer >= conf.n_layers or (pair.rows, pair.columns) != conf.shape_of(pair.role):
            raise BundleError(
                f"{path}: it has layer {pair.layer}, role {pair.role.name}, {pair.rows} x {pair.columns}, and the model"
                " has not: it was made for another. Convert it for this model (edgebit adapter convert --for)"
            )
