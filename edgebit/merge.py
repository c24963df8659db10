"""Service: a LoRA adapter is folded into a master checkpoint, and what rounding leaves of it is measured.

The new latent weights are W + scale B A, in float32, stored in the type that W had. What runs are their codes: an
adapter moves few weights across the thresholds of absmean, so a part of its effect, or all of it, is lost.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.archive import hash_file
from edgebit.bundle.part_file import faults_named
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hugging_face.families import FAMILIES, Family, Scale
from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.lora_config import CONFIG_NAME
from edgebit.checkpoint.hugging_face.matching import match_family
from edgebit.checkpoint.hugging_face.peft_folder import (
    LowRankPair,
    PeftAdapter,
    Place,
    module_name,
    read_peft_folder,
)
from edgebit.checkpoint.hugging_face.safetensors_file import as_float32, write_safetensors
from edgebit.checkpoint.hugging_face.tensor_folder import TensorFolder
from edgebit.checkpoint.opening import model_files, open_checkpoint
from edgebit.errors import CheckpointError, ExportError
from edgebit.export.float_types import FloatType, from_float_type, to_float_type
from edgebit.export.record import RECORD_NAME
from edgebit.export.target import check_out_folder, replace_folder
from edgebit.progress import Progress, unwatched
from edgebit.ternary.absmean import absmax_int8, absmean

_TYPES: dict[str, FloatType] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".index.json")
_MEASURED_ROWS = 64  # random inputs that a projection's effect is measured on


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedProjection:
    """What became of one projection. The effect is the change of its output on random inputs, rounded to int8."""

    name: str
    weights: int
    codes_changed: int
    scale_change: float  # relative
    kept: float  # of the side path's effect, the share that the merged weights have: 1 all, 0 none
    error: float  # the merged effect less the side path's, relative to that: 0 none, 1 as large as the effect itself


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport:
    """What a merge made, and what is left of the adapter in it."""

    out: Path
    rank: int
    projections: tuple[MergedProjection, ...]
    weights: int
    codes_changed: int
    kept: float  # over all projections, as in MergedProjection
    error: float
    seconds: float


@dataclass(slots=True)
class _Effects:
    """Sums over the outputs of projections, from which shares and errors follow."""

    side: float = 0.0  # of the side path's effect, squared
    both: float = 0.0  # of the merged effect times it
    missed: float = 0.0  # of their difference, squared

    def add(self, other: "_Effects") -> None:
        self.side, self.both, self.missed = self.side + other.side, self.both + other.both, self.missed + other.missed

    @property
    def kept(self) -> float:
        return self.both / self.side if self.side else 1.0

    @property
    def error(self) -> float:
        return float(np.sqrt(self.missed / self.side)) if self.side else 0.0


def merge(
    master: Path,
    adapter_folder: Path,
    out: Path,
    *,
    another_base: bool = False,
    force: bool = False,
    progress: Progress = unwatched,
) -> MergeReport:
    """Write the master checkpoint `out`: the one in `master` with the adapter in its weights.

    another_base: take an adapter that says it was trained on other files, such as the packed form of this master
    Raises CheckpointError where `master` is no master, or the adapter is damaged or of another base, and ExportError
    where `out` cannot be written. Nothing is left behind then.
    """
    started = time.monotonic()
    adapter, family = read_inputs(master, adapter_folder, out, another_base=another_base, force=force)
    with closing(TensorFolder(master)) as tensors, replace_folder(out, force=force) as folder:
        writer = _Writer(tensors, {family.tensor_name(role, layer): (layer, role) for layer, role in adapter.pairs})
        with faults_named(folder / "model.safetensors", ExportError):
            writer.write(folder / "model.safetensors", adapter.pairs, progress)
        _copy_rest(master, folder)
    done = tuple(writer.projections)
    return MergeReport(
        out=out,
        rank=adapter.config.rank,
        projections=done,
        weights=sum(each.weights for each in done),
        codes_changed=sum(each.codes_changed for each in done),
        kept=writer.effects.kept,
        error=writer.effects.error,
        seconds=time.monotonic() - started,
    )


def read_inputs(
    master: Path, adapter_folder: Path, out: Path, *, another_base: bool = False, force: bool = False
) -> tuple[PeftAdapter, Family]:
    """The adapter, and the family of the master: read, and found to fit each other and `out`. Raises as merge()."""
    adapter = read_peft_folder(adapter_folder)
    check_out_folder(out, force=force, inputs=[*model_files(master), adapter_folder / CONFIG_NAME])
    with closing(open_checkpoint(master)) as checkpoint:
        family = _master_family(checkpoint)
        adapter.check_base(checkpoint.config.conf, str(master))
        if not another_base:
            _check_sums(adapter, checkpoint, adapter_folder)
    return adapter, family


def _master_family(checkpoint: Checkpoint) -> Family:
    """The family of a checkpoint that has latent weights."""
    if checkpoint.format in ("safetensors", "pytorch"):
        where = checkpoint.path / "config.json"
        family = match_family(read_json(where), str(where), FAMILIES)
        if family.storage.scale == Scale.ABSMEAN:
            return family
    raise CheckpointError(
        f"{checkpoint.path}: the model has ternary weights alone ({checkpoint.family}), and no latent ones that an "
        "adapter could move. Give the master it was made from (bfloat16, quantization_mode online), or run the adapter "
        "beside the model: edgebit adapter convert"
    )


def _check_sums(adapter: PeftAdapter, checkpoint: Checkpoint, adapter_folder: Path) -> None:
    if not adapter.base_sha256:
        return
    found = {hash_file(path).sha256 for path in checkpoint.weight_files()}
    if found != set(adapter.base_sha256):
        raise CheckpointError(
            f"{adapter_folder} was trained on other weights than those of {checkpoint.path}. If these are of the same "
            "model in another form, give --another-base"
        )


@dataclass(slots=True)
class _Writer:
    """All tensors of the master, those of the adapter's projections with it inside."""

    tensors: TensorFolder
    places: Mapping[str, Place]  # by the names of tensors
    projections: list[MergedProjection] = field(default_factory=list)
    effects: _Effects = field(default_factory=_Effects)

    def write(self, path: Path, pairs: Mapping[Place, LowRankPair], progress: Progress) -> None:
        names = sorted(self.tensors.names())
        described = {name: (self.tensors.info(name).dtype, self.tensors.info(name).shape) for name in names}

        def chunks() -> Iterator[NDArray[Any]]:
            for done, name in enumerate(names):
                progress(name, done, len(names))
                stored = self.tensors.read(name)
                place = self.places.get(name)
                yield stored if place is None else self._merged(name, stored, place, pairs[place])

        write_safetensors(path, described, chunks(), {"format": "pt"})

    def _merged(self, name: str, stored: NDArray[Any], place: Place, pair: LowRankPair) -> NDArray[Any]:
        dtype = self.tensors.info(name).dtype
        before = as_float32(stored, dtype)
        after = to_float_type(before + pair.product(), _TYPES[dtype])
        values = from_float_type(after, _TYPES[dtype])
        if not np.isfinite(values).all():
            raise CheckpointError(f"{name}: the merged weights are not finite in {_TYPES[dtype]}: lower lora_alpha")
        merged, effects = measure(module_name(place), before, values, pair)
        self.projections.append(merged)
        self.effects.add(effects)
        return after


def measure(
    name: str, before: NDArray[np.float32], after: NDArray[np.float32], pair: LowRankPair
) -> tuple[MergedProjection, _Effects]:
    """Compare the output of the merged weights, [out, in], with that of the side path, on random inputs."""
    old_codes, old_scale = absmean(before)
    codes, scale = absmean(after)
    x = np.random.default_rng(1).standard_normal((_MEASURED_ROWS, before.shape[1]), np.float32)
    rounded, factor = absmax_int8(x)
    side = np.float32(pair.scale) * ((x @ pair.a.T) @ pair.b.T)
    merged = (rounded / factor) @ (codes * scale - old_codes * old_scale).T
    effects = _Effects(_dot(side, side), _dot(merged, side), _dot(merged - side, merged - side))
    return MergedProjection(
        name=name,
        weights=codes.size,
        codes_changed=int((codes != old_codes).sum()),
        scale_change=float(scale / old_scale - 1),
        kept=effects.kept,
        error=effects.error,
    ), effects


def _dot(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.sum(a * b, dtype=np.float64))


def verdict(report: MergeReport) -> Literal["arrives", "in part", "lost"]:
    """How much of the adapter is in the merged model."""
    if report.error < 0.3:
        return "arrives"
    return "in part" if report.error < 0.9 and report.kept > 0.3 else "lost"


def _copy_rest(master: Path, folder: Path) -> None:
    """All other files go along as they are: configuration, tokenizer, licence, model card."""
    for path in sorted(master.iterdir()):
        if path.is_file() and path.name != RECORD_NAME and not path.name.endswith(_WEIGHT_SUFFIXES):
            with faults_named(folder / path.name, ExportError):
                shutil.copyfile(path, folder / path.name)
