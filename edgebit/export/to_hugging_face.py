"""Writes a folder that transformers loads: packed weights in safetensors, configuration, tokenizer, README."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Role, Scales
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.tokenizer import CheckpointTokenizer
from edgebit.errors import ExportError
from edgebit.export.hugging_face_config import (
    TENSOR_NAMES,
    HuggingFaceClass,
    choose_class,
    config_json,
    generation_config_json,
)
from edgebit.export.model_card import model_card
from edgebit.export.safetensors_file import SafetensorsTensor, write_safetensors
from edgebit.export.source import open_source
from edgebit.export.target import check_out_folder, replace_folder
from edgebit.export.tokenizer_json import tokenizer_config_json, tokenizer_json
from edgebit.ternary.layouts import pack_quarter_rows

Progress = Callable[[str, int, int], None]  # what is being done, tensors done, tensors in all


@dataclass(frozen=True, slots=True)
class _Form:
    """How scales and floats are kept, so that nothing is lost."""

    linear_class: Literal["autobitlinear", "bitlinear"]  # output times the stored scale, or divided by it
    dtype: Literal["bfloat16", "float32"]

    def stored(self, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        """What weight_scale has to be for `scales`, float32 values of `dtype`."""
        values = scales if self.linear_class == "autobitlinear" else np.float32(1) / scales
        return values if self.dtype == "float32" else _bf16_values(_bf16_bits(values))

    def holds(self, scales: NDArray[np.float32]) -> bool:
        """Whether the scales come back to the bit."""
        stored = self.stored(scales)
        back = stored if self.linear_class == "autobitlinear" else np.float32(1) / stored
        return bool(np.array_equal(back, scales))


_FORMS = (  # the first that holds all of a model is taken; the last holds any
    _Form("bitlinear", "bfloat16"),
    _Form("autobitlinear", "bfloat16"),
    _Form("bitlinear", "float32"),
    _Form("autobitlinear", "float32"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFaceReport:
    """What was written."""

    out: Path
    architecture: str
    linear_class: str
    dtype: str
    size: int  # bytes of model.safetensors
    notes: tuple[str, ...]
    seconds: float


def export_hugging_face(
    path: Path,
    out: Path,
    *,
    head_from: Path | None = None,
    force: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> HuggingFaceReport:
    """Write the folder `out` of the model file, bundle or checkpoint at `path`.

    head_from: the checkpoint that a model file was converted from, for its exact head.
    Raises ExportError where transformers has no packed form of the model, `out` is there already (without `force`) or
    cannot be written, and what opening and reading `path` raises. Nothing is left behind then.
    """
    started = time.monotonic()
    check_out_folder(out, force=force)
    with open_source(path, head_from) as source:
        checkpoint, head = source.checkpoint, source.head
        kind = choose_class(checkpoint.config.conf)
        _check_scaling(checkpoint)
        form = _choose_form(checkpoint, kind, head)
        config = config_json(checkpoint.config, kind, linear_class=form.linear_class, dtype=form.dtype)
        with replace_folder(out) as folder:
            tensors = list(_tensors(checkpoint, head, form))
            write_safetensors(folder / "model.safetensors", tensors, progress)
            _write_json(folder / "config.json", config)
            _write_json(folder / "generation_config.json", generation_config_json(checkpoint.config))
            notes = _write_tokenizer(folder, checkpoint)
            _write_text(folder / "README.md", model_card(checkpoint))
        return HuggingFaceReport(
            out=out,
            architecture=kind.architecture,
            linear_class=form.linear_class,
            dtype=form.dtype,
            size=(out / "model.safetensors").stat().st_size,
            notes=(*source.notes, *notes),
            seconds=time.monotonic() - started,
        )


def _check_scaling(checkpoint: Checkpoint) -> None:
    conf = checkpoint.config.conf
    for role, layer in conf.roles():
        if role.is_projection:
            granularity, rows = checkpoint.scaling(role, layer).granularity, conf.shape_of(role)[0]
            if granularity != Scales.TENSOR or rows % 4:
                raise ExportError(
                    f"{TENSOR_NAMES[role].format(layer)} has {rows} rows and one scale a {granularity.name.lower()}; "
                    "transformers' packed form has a multiple of 4 and one scale a tensor"
                )


def _choose_form(checkpoint: Checkpoint, kind: HuggingFaceClass, head: Checkpoint) -> _Form:
    """The first form that holds every scale, norm and row to the bit."""
    conf = checkpoint.config.conf
    possible = [form for form in _FORMS if form.linear_class == "autobitlinear" or kind.model_type != "bitnet"]
    if not _fits_bf16(checkpoint, head):
        possible = [form for form in possible if form.dtype == "float32"]
    for role, layer in conf.roles():
        if role.is_projection and len(possible) > 1:
            scales = checkpoint.projection(role, layer).scales
            possible = [form for form in possible if form.holds(scales)]
    return possible[0]


def _fits_bf16(checkpoint: Checkpoint, head: Checkpoint) -> bool:
    """Whether rows and norms are bfloat16."""
    for role, layer in checkpoint.config.conf.roles():
        if role in (Role.TOKEN_EMBEDDING, Role.HEAD):
            stored, _ = next(iter((head if role == Role.HEAD else checkpoint).rows(role)))
            if stored.dtype != np.uint16:
                return False
        elif not role.is_projection and role != Role.ROPE_INV_FREQ:
            values = checkpoint.vector(role, layer)
            if not np.array_equal(_bf16_values(_bf16_bits(values)), values):
                return False
    return True


def _tensors(checkpoint: Checkpoint, head: Checkpoint, form: _Form) -> Iterator[SafetensorsTensor]:
    conf = checkpoint.config.conf
    dtype: Literal["BF16", "F32"] = "BF16" if form.dtype == "bfloat16" else "F32"
    for role, layer in conf.roles():
        if role == Role.ROPE_INV_FREQ or (role == Role.HEAD and conf.head_tied):
            continue
        name, (rows, columns) = TENSOR_NAMES[role].format(layer), conf.shape_of(role)
        if role.is_projection:
            yield from _projection(checkpoint, role, layer, form, dtype)
        elif role in (Role.TOKEN_EMBEDDING, Role.HEAD):
            source = head if role == Role.HEAD else checkpoint
            yield SafetensorsTensor(f"{name}.weight", dtype, (rows, columns), _rows(source, role, dtype))
        else:
            yield SafetensorsTensor(f"{name}.weight", dtype, (columns,), _vector(checkpoint, role, layer, dtype))


def _projection(
    checkpoint: Checkpoint, role: Role, layer: int, form: _Form, dtype: Literal["BF16", "F32"]
) -> Iterator[SafetensorsTensor]:
    """The packed weights and, behind them, the scale, which is known once those are read."""
    rows, columns = checkpoint.config.conf.shape_of(role)
    name, kept = TENSOR_NAMES[role].format(layer), {}

    def weights() -> Iterator[NDArray[Any]]:
        projection = checkpoint.projection(role, layer)
        kept["scale"] = form.stored(projection.scales)
        yield pack_quarter_rows(projection.weights)

    yield SafetensorsTensor(f"{name}.weight", "U8", (rows // 4, columns), weights)
    yield SafetensorsTensor(f"{name}.weight_scale", dtype, (1,), lambda: iter([_as(kept["scale"], dtype)]))


def _rows(source: Checkpoint, role: Role, dtype: Literal["BF16", "F32"]) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: (stored if dtype == "BF16" else values for stored, values in source.rows(role))


def _vector(
    checkpoint: Checkpoint, role: Role, layer: int, dtype: Literal["BF16", "F32"]
) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: iter([_as(checkpoint.vector(role, layer), dtype)])


def _as(values: NDArray[np.float32], dtype: Literal["BF16", "F32"]) -> NDArray[Any]:
    return values.astype("<f4") if dtype == "F32" else _bf16_bits(values)


def _bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded half to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype("<u2")


def _bf16_values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _write_tokenizer(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """tokenizer.json and tokenizer_config.json; of a Hugging Face folder, its own files. Notes for the user."""
    own = [name for name in _TOKENIZER_FILES if (checkpoint.path / name).is_file()]
    if checkpoint.path.is_dir() and "tokenizer.json" in own:
        for name in own:
            with _faults_named(folder / name):
                shutil.copyfile(checkpoint.path / name, folder / name)
        return []
    tokenizer = checkpoint.tokenizer()
    if tokenizer is None:
        return ["there is no tokenizer: the model takes token ids only"]
    write_tokenizer_files(folder, tokenizer, checkpoint.config.conf.context_max)
    return []


def write_tokenizer_files(folder: Path, tokenizer: CheckpointTokenizer, context_max: int) -> None:
    """tokenizer.json and tokenizer_config.json, from what a model file or GGUF kept."""
    _write_json(folder / "tokenizer.json", tokenizer_json(tokenizer), indent=None)
    _write_json(folder / "tokenizer_config.json", tokenizer_config_json(tokenizer, context_max))


_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
)


def _write_json(path: Path, value: dict[str, Any], indent: int | None = 2) -> None:
    _write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    with _faults_named(path):
        path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror}") from error
