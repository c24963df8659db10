"""Writes a folder that ONNX Runtime runs: the decoder as a graph, weights beside it, tokenizer, library, README."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgebit.bundle.model_format import Conf, Role
from edgebit.bundle.part_file import faults_named
from edgebit.checkpoint.checkpoint import RESPONSE_SCHEMA, Checkpoint
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.opening import model_files
from edgebit.errors import ExportError
from edgebit.export.model_card import model_card
from edgebit.export.onnx_model.contrib import CONTRIB, groups_queries
from edgebit.export.onnx_model.decoder import Choices, Decoder
from edgebit.export.onnx_model.external_data import ExternalData
from edgebit.export.onnx_model.fallback import FALLBACK_OPSETS, Fallback, add_fallback
from edgebit.export.onnx_model.genai_files import write_genai_files
from edgebit.export.onnx_model.graph import Graph, load_onnx
from edgebit.export.onnx_model.how_to_run import how_to_run
from edgebit.export.onnx_model.int8_rows import has_int8_rows
from edgebit.export.onnx_model.interface import declare_interface
from edgebit.export.onnx_model.metadata import file_sums, metadata
from edgebit.export.onnx_model.operators import rope_tables
from edgebit.export.onnx_model.packing import LAYOUT
from edgebit.export.onnx_model.projections import OwnProducts, Products
from edgebit.export.onnx_model.standard import STANDARD
from edgebit.export.onnx_model.stock import STOCK_LAYOUT, STOCK_OPSETS, StockProducts
from edgebit.export.onnx_model.text_files import FILES, TextFiles, text_files
from edgebit.export.response_schema import response_schema_text
from edgebit.export.source import open_source
from edgebit.export.target import check_out_folder, replace_folder
from edgebit.export.tokenizer_files import write_text, write_tokenizer
from edgebit.onnx_engine.folder import DOMAIN, DOMAIN_VERSION, LIBRARY_NAME, MODEL_NAME
from edgebit.progress import Progress, unwatched

DATA_NAME = f"{MODEL_NAME}.data"
_LOSSY_EMBEDDING = "the embedding is rounded to int8 rows, which is lossy: answers may differ from the model's"
FLAVOURS = {flavour.name: flavour for flavour in (CONTRIB, STANDARD)}


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxReport:
    """What was written."""

    out: Path
    ops: str
    fallback: Fallback | None  # None: of --stock, which has nothing that one would stand in for
    size: int  # bytes of the whole folder
    library: str | None  # the file that the folder's is a copy of; None: it has none
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxForm:
    """How the graph is written."""

    ops: Literal["contrib", "standard"] = "contrib"
    fallback: Fallback = "compact"
    logits: Literal["last", "all"] = "last"
    stock: bool = False  # none of our operators: MatMulNBits, and no fallback
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
    Raises OnnxError without the package onnx, ExportError where the graph cannot be said in the form, the context is
    longer than the model's, `out` is there already (without `force`) or cannot be written, and what opening and reading
    `path` raises. Nothing is left behind then.
    """
    started = time.monotonic()
    load_onnx()
    if form.stock:
        form, library = replace(form, fallback="none"), None
    inputs = [*model_files(path, hints), *([library] if library is not None else [])]
    check_out_folder(out, force=force, inputs=inputs)
    with open_source(path, None, hints) as source:
        text = text_files(source.checkpoint)
        conf = replace(text.conf, context_max=_context(form.context, text.conf.context_max, path))
        with replace_folder(out, force=force) as folder:
            lossy = _losses(source.checkpoint, form)
            notes = [*lossy, *_write_beside(folder, source.checkpoint, replace(text, conf=conf), form, library)]
            _write_model(folder, source.checkpoint, conf, form, progress)
            files = {each.name for each in folder.iterdir()}
            usage = how_to_run(form.ops, form.fallback, stock=form.stock, files=files)
            write_text(folder / "README.md", model_card(source.checkpoint, "onnx", usage, lossy=lossy))
    return OnnxReport(
        out=out,
        ops=form.ops,
        fallback=None if form.stock else form.fallback,
        size=sum(each.stat().st_size for each in out.iterdir()),
        library=None if library is None else str(library),
        notes=(*source.notes, *notes),
        seconds=time.monotonic() - started,
    )


def _losses(checkpoint: Checkpoint, form: OnnxForm) -> list[str]:
    """What the form takes away of the model."""
    is_rounded = form.int8_embedding and not has_int8_rows(checkpoint, Role.TOKEN_EMBEDDING)
    return [_LOSSY_EMBEDDING] if is_rounded else []


def _context(asked: int | None, most: int, path: Path) -> int:
    """Tokens of the longest sequence. Raises ExportError where more are asked for than the model was made for."""
    if asked is not None and asked > most:
        raise ExportError(f"{path}: a context of {asked} tokens was asked for, the model's is {most}. Give it no more")
    return most if asked is None else asked


def _write_beside(
    folder: Path, checkpoint: Checkpoint, text: TextFiles, form: OnnxForm, library: Path | None
) -> list[str]:
    """All files but the model's and README.md; notes for the user."""
    if library is not None:
        with faults_named(folder / LIBRARY_NAME, ExportError):
            shutil.copyfile(library, folder / LIBRARY_NAME)
    notes = write_tokenizer(folder, checkpoint)
    if (schema := response_schema_text(checkpoint)) is not None:
        write_text(folder / RESPONSE_SCHEMA, schema + "\n")
    for name, content in text.contents.items():
        with faults_named(folder / name, ExportError):
            (folder / name).write_bytes(content)
    genai_notes = write_genai_files(
        folder,
        checkpoint,
        text.conf,
        text.contents.get(FILES["PRMT"]),
        model=MODEL_NAME,
        library=None if library is None else LIBRARY_NAME,
        shares_cache=form.ops == "contrib" and groups_queries(text.conf),
    )
    return [*(text.notes or notes), *genai_notes]


def _write_model(folder: Path, checkpoint: Checkpoint, conf: Conf, form: OnnxForm, progress: Progress) -> None:
    """model.onnx.data and model.onnx, which has the sums of all other files of the folder."""
    flavour, last = FLAVOURS[form.ops], form.logits == "last"
    with ExternalData(folder / DATA_NAME) as data:
        graph = Graph(data)
        declare_interface(graph, conf, last_logits=last)
        operators = flavour.start(graph, conf, rope_tables(conf, checkpoint.config.rope_inv_freq))
        own = OwnProducts(graph, conf, with_block_scales=form.fallback == "compact")
        products: Products = StockProducts(graph) if form.stock else own
        int8_embedding = form.int8_embedding or has_int8_rows(checkpoint, Role.TOKEN_EMBEDDING)
        choices = Choices(int8_embedding=int8_embedding, last_logits=last)
        Decoder(graph, checkpoint, operators, products, choices).write(progress)
    if form.stock:
        opsets = {**flavour.opsets, **STOCK_OPSETS}
    else:
        opsets = {**flavour.opsets, DOMAIN: DOMAIN_VERSION, **FALLBACK_OPSETS[form.fallback]}
        add_fallback(graph, form.fallback, bits=own.bits, grouped=own.grouped, opsets=opsets)
    progress("sums", 0, 0)
    sums = file_sums(folder, {DATA_NAME: data.sha256})
    layout = STOCK_LAYOUT if form.stock else LAYOUT
    chosen = {"ops": form.ops, "fallback": form.fallback, "logits": form.logits, "layout": layout}
    if LIBRARY_NAME in sums:
        chosen["library_sha256"] = sums[LIBRARY_NAME]
    properties = metadata(checkpoint, conf, files=sums, chosen=chosen)
    with faults_named(folder / MODEL_NAME, ExportError):
        graph.save(folder / MODEL_NAME, opsets=opsets, ir_version=flavour.ir_version, metadata=properties)
