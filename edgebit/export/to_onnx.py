"""Writes a folder that ONNX Runtime runs: the decoder as a graph, weights beside it, tokenizer, library, README."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgebit.bundle.model_format import Conf, Role
from edgebit.bundle.part_file import faults_named
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.errors import ExportError
from edgebit.export.model_card import model_card
from edgebit.export.onnx_model.contrib import CONTRIB
from edgebit.export.onnx_model.decoder import Choices, Decoder
from edgebit.export.onnx_model.external_data import ExternalData
from edgebit.export.onnx_model.fallback import FALLBACK_OPSETS, Fallback, add_fallback
from edgebit.export.onnx_model.graph import Graph, load_onnx
from edgebit.export.onnx_model.int8_rows import has_int8_rows
from edgebit.export.onnx_model.interface import declare_interface
from edgebit.export.onnx_model.metadata import file_sums, metadata
from edgebit.export.onnx_model.operators import rope_tables
from edgebit.export.onnx_model.packing import LAYOUT
from edgebit.export.onnx_model.projections import DOMAIN, DOMAIN_VERSION, OwnProducts
from edgebit.export.onnx_model.text_files import text_files
from edgebit.export.source import open_source
from edgebit.export.target import check_out_folder, replace_folder
from edgebit.export.tokenizer_files import write_text, write_tokenizer
from edgebit.progress import Progress, unwatched

MODEL_NAME, DATA_NAME, LIBRARY_NAME = "model.onnx", "model.onnx.data", "libedgebit_ort.so"
FLAVOURS = {flavour.name: flavour for flavour in (CONTRIB,)}
_USAGE = f"""
`edgebit run FOLDER "..."` answers with it, and so does any program on ONNX Runtime: give a session {LIBRARY_NAME} as
its library of custom operators (where there is one here, for the right machine), and {MODEL_NAME} by its path.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxReport:
    """What was written."""

    out: Path
    ops: str
    fallback: Fallback
    size: int  # bytes of model.onnx and its data
    library: str | None  # of which machine
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxForm:
    """How the graph is written."""

    ops: Literal["contrib", "standard"] = "contrib"
    fallback: Fallback = "compact"
    logits: Literal["last", "all"] = "last"
    int8_embedding: bool = False
    context: int | None = None  # positions of RoPE's tables; None: as many as the model was made for


def export_onnx(
    path: Path,
    out: Path,
    *,
    form: OnnxForm = OnnxForm(),
    library: Path | None = None,
    hints: Hints = NO_HINTS,
    force: bool = False,
    progress: Progress = unwatched,
) -> OnnxReport:
    """Write the folder `out` of the model file, bundle or checkpoint at `path`.

    library: libedgebit_ort.so of the machine that will run it; None: the folder has none; hints: of a checkpoint
    Raises OnnxError without the package onnx, ExportError where the graph cannot be said in the form, `out` is there
    already (without `force`) or cannot be written, and what opening and reading `path` raises. Nothing is left behind
    then.
    """
    started = time.monotonic()
    load_onnx()
    inputs = [each for each in (path, hints.i2s_reference, library) if each is not None]
    check_out_folder(out, force=force, inputs=inputs)
    with open_source(path, None, hints) as source:
        text = text_files(source.checkpoint)
        with replace_folder(out) as folder:
            if library is not None:
                with faults_named(folder / LIBRARY_NAME, ExportError):
                    shutil.copyfile(library, folder / LIBRARY_NAME)
            notes = write_tokenizer(folder, source.checkpoint)
            for name, content in text.contents.items():
                with faults_named(folder / name, ExportError):
                    (folder / name).write_bytes(content)
            conf = replace(text.conf, context_max=min(form.context or text.conf.context_max, text.conf.context_max))
            _write_model(folder, source.checkpoint, conf, form, progress)
            write_text(folder / "README.md", model_card(source.checkpoint, "onnx", _USAGE))
    return OnnxReport(
        out=out,
        ops=form.ops,
        fallback=form.fallback,
        size=sum((out / name).stat().st_size for name in (MODEL_NAME, DATA_NAME)),
        library=None if library is None else str(library),
        notes=(*source.notes, *(text.notes or notes)),
        seconds=time.monotonic() - started,
    )


def _write_model(folder: Path, checkpoint: Checkpoint, conf: Conf, form: OnnxForm, progress: Progress) -> None:
    """model.onnx.data and model.onnx, which has the sums of all other files of the folder."""
    flavour, last = FLAVOURS[form.ops], form.logits == "last"
    with ExternalData(folder / DATA_NAME) as data:
        graph = Graph(data)
        declare_interface(graph, conf, last_logits=last)
        operators = flavour.start(graph, conf, rope_tables(conf, checkpoint.config.rope_inv_freq))
        products = OwnProducts(graph, conf, with_block_scales=form.fallback == "compact")
        int8_embedding = form.int8_embedding or has_int8_rows(checkpoint, Role.TOKEN_EMBEDDING)
        choices = Choices(int8_embedding=int8_embedding, last_logits=last)
        Decoder(graph, checkpoint, operators, products, choices).write(progress)
    opsets = {**flavour.opsets, DOMAIN: DOMAIN_VERSION, **FALLBACK_OPSETS[form.fallback]}
    add_fallback(graph, form.fallback, bits=products.bits, grouped=products.grouped, opsets=opsets)
    progress("sums", 0, 0)
    sums = file_sums(folder, {DATA_NAME: data.sha256})
    chosen = {"ops": form.ops, "fallback": form.fallback, "logits": form.logits, "layout": LAYOUT}
    if LIBRARY_NAME in sums:
        chosen["library_sha256"] = sums[LIBRARY_NAME]
    properties = metadata(checkpoint, conf, files=sums, chosen=chosen)
    with faults_named(folder / MODEL_NAME, ExportError):
        graph.save(folder / MODEL_NAME, opsets=opsets, ir_version=flavour.ir_version, metadata=properties)
