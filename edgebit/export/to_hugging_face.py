"""Writes a folder that transformers loads: weights in safetensors, configuration, tokenizer, README."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgebit.bundle.part_file import faults_named
from edgebit.checkpoint.checkpoint import RESPONSE_SCHEMA
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.hugging_face.safetensors_file import write_safetensors
from edgebit.checkpoint.opening import model_files
from edgebit.errors import ExportError
from edgebit.export.hugging_face_config import choose_class, config_json, generation_config_json
from edgebit.export.hugging_face_form import choose_form
from edgebit.export.hugging_face_tensors import SafetensorsTensor, hugging_face_tensors
from edgebit.export.model_card import model_card
from edgebit.export.response_schema import response_schema_text
from edgebit.export.source import open_source
from edgebit.export.target import check_out_folder, replace_folder
from edgebit.export.tokenizer_files import write_json, write_text, write_tokenizer
from edgebit.progress import Progress, unwatched


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFaceReport:
    """What was written."""

    out: Path
    architecture: str
    linear_class: str | None  # None: weights are floats
    dtype: str
    size: int  # bytes of model.safetensors
    notes: tuple[str, ...]
    seconds: float


def export_hugging_face(
    path: Path,
    out: Path,
    *,
    head_from: Path | None = None,
    hints: Hints = NO_HINTS,
    force: bool = False,
    progress: Progress = unwatched,
) -> HuggingFaceReport:
    """Write the folder `out` of the model file, bundle or checkpoint at `path`.

    head_from: the checkpoint that a model file was converted from, for its exact head; hints: of a checkpoint.
    Raises ExportError where transformers has no form of the model, `out` is there already (without `force`) or
    cannot be written, and what opening and reading `path` raises. Nothing is left behind then.
    """
    started = time.monotonic()
    inputs = [*model_files(path, hints), *(model_files(head_from) if head_from is not None else [])]
    check_out_folder(out, force=force, inputs=inputs)
    with open_source(path, head_from, hints) as source:
        checkpoint, head = source.checkpoint, source.head
        kind = choose_class(checkpoint.config.conf)
        form = choose_form(checkpoint, kind, head)
        config = config_json(checkpoint.config, kind, linear_class=form.linear_class, dtype=form.dtype)
        with replace_folder(out, force=force) as folder:
            tensors = list(hugging_face_tensors(checkpoint, head, form))
            _write_weights(folder / "model.safetensors", tensors, progress)
            write_json(folder / "config.json", config)
            write_json(folder / "generation_config.json", generation_config_json(checkpoint.config))
            notes = write_tokenizer(folder, checkpoint)
            if (schema := response_schema_text(checkpoint)) is not None:
                write_text(folder / RESPONSE_SCHEMA, schema + "\n")
            write_text(folder / "README.md", model_card(checkpoint, "transformers"))
        return HuggingFaceReport(
            out=out,
            architecture=kind.architecture,
            linear_class=form.linear_class,
            dtype=form.dtype,
            size=(out / "model.safetensors").stat().st_size,
            notes=(*source.notes, *notes),
            seconds=time.monotonic() - started,
        )


def _write_weights(path: Path, tensors: list[SafetensorsTensor], progress: Progress) -> None:
    def chunks() -> Iterator[NDArray[Any]]:
        for done, tensor in enumerate(tensors):
            progress(tensor.name, done, len(tensors))
            yield from tensor.chunks()
        progress("flush", len(tensors), len(tensors))

    with faults_named(path, ExportError):
        described = {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}
        write_safetensors(path, described, chunks(), {"format": "pt"})
