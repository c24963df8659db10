"""Opens what computes for the daemon: a session over the model, its golden probes, and what is said of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebit.bundle.archive import Member
from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.monitoring.health import Probes
from edgebit.daemon.serving.golden_probes import GoldenProbes
from edgebit.runtime.cores import default_threads
from edgebit.runtime.defaults import CTX_LEN
from edgebit.runtime.memory import total_memory_bytes
from edgebit.runtime.model import Model, ModelInfo
from edgebit.runtime.prefix_cache import PrefixCache
from edgebit.runtime.session import Session

SEQUENCES = 4  # answers at once, unless the configuration says otherwise or memory is short
KV_BYTES = {"f16": 2, "int8": 1, "f32": 4}  # of an element of the KV cache


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, and what shows that it computes right."""

    session: Session
    probes: Probes
    about: Mapping[str, Any]  # of the engine, in the info document beside what all say


def open_native(model: Model, place: Member, config: EngineConfig, state_dir: Path | None) -> Opened:
    """Over our own engine. `place` is the model's file; state_dir: where the prefix cache may keep files.

    Raises EngineError where memory is short.
    """
    session = Session(
        model,
        ctx_len=context_len(model.info, config),
        threads=config.threads or default_threads(),
        sequences=sequences(model.info, config, config.kv),
        kv=config.kv,
        speculate=config.speculate,
        prefix_cache=_prefix_cache(config, state_dir),
        batch_len=config.batch_len,
    )
    stats = session.engine.stats()
    about = {"name": "native", "arena_bytes": stats.arena_bytes}
    return Opened(session, GoldenProbes(model, place, stats.n_threads), about)


def context_len(info: ModelInfo, config: EngineConfig) -> int:
    """Tokens of prompt and answer together."""
    return min(config.ctx_len or CTX_LEN, info.context_max)


def sequences(info: ModelInfo, config: EngineConfig, kv: str) -> int:
    """As asked for, or as many answers at once as pay, with a quarter of the memory for KV caches.

    Source: decisions/continuous-batching.md.
    """
    if config.sequences:
        return config.sequences
    a_token = 2 * info.n_layers * info.n_kv_heads * info.head_dim * KV_BYTES[kv]
    memory = total_memory_bytes()
    if memory is None:
        return 1
    return max(1, min(SEQUENCES, memory // 4 // (a_token * context_len(info, config))))


def _prefix_cache(config: EngineConfig, state_dir: Path | None) -> PrefixCache | None:
    on_disk = state_dir is not None and config.prefix_disk_mib > 0
    if not on_disk and not config.prefix_memory_mib:
        return None
    return PrefixCache(
        memory_bytes=config.prefix_memory_mib << 20,
        folder=state_dir / "prefixes" if state_dir is not None and on_disk else None,
        disk_bytes=config.prefix_disk_mib << 20,
    )
