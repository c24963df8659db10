"""Service: a checkpoint becomes a model file, streamed tensor by tensor in bounded memory."""

import contextlib
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit import __version__
from edgebit.bundle.archive import hash_file
from edgebit.bundle.manifest import FileEntry
from edgebit.bundle.model_format import Encoding, Probe, Role, Tensor
from edgebit.bundle.model_writer import ModelWriter
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.hints import NO_HINTS, Hints
from edgebit.checkpoint.opening import open_checkpoint, open_float_model
from edgebit.checkpoint.text_sections import TextSections, read_text_sections
from edgebit.checkpoint.untrained import UNTRAINED
from edgebit.errors import EngineError, OutputError, SchemaError
from edgebit.progress import Progress, unwatched
from edgebit.runtime.cores import default_threads
from edgebit.runtime.engine import Engine
from edgebit.runtime.json_schema import schema_section
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.token_ids import spread_ids
from edgebit.ternary.absmean import row_int8
from edgebit.ternary.layouts import TILE_ROWS, pack_h8, pack_t1, pack_t2

PROBE_GREEDY = 4  # greedy tokens after each golden probe's prompt
_PROBE_LENGTHS = (1, 8, 72)  # prompt tokens: a decode step, and products of a few and of many tokens at once
_CHECKED_WEIGHT_BYTES = 15 << 30  # what the check of the probes at the lowest ISA level may compute with: it is slow


@dataclass(frozen=True, slots=True)
class _Layout:
    encoding: Encoding
    pack: Callable[[NDArray[np.int8]], NDArray[np.uint8]]


_LAYOUTS = {"t2": _Layout(Encoding.T2, pack_t2), "t1": _Layout(Encoding.T1, pack_t1)}


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertReport:
    """What a conversion made."""

    out: Path
    name: str
    family: str
    parameters: int
    size: int  # bytes of the model file
    has_tokenizer: bool
    has_chat_template: bool
    n_probes: int
    licence: str | None
    seconds: float
    notes: tuple[str, ...] = ()  # what could not be carried over, and what that means


def convert(
    path: Path,
    out: Path,
    *,
    layout: Literal["t2", "t1"] = "t2",
    embedding: Literal["exact", "int8"] = "exact",
    template: str | None = None,
    probes: bool = True,
    from_float: bool = False,
    hints: Hints = NO_HINTS,
    progress: Progress = unwatched,
) -> ConvertReport:
    """Write the model file `out` from the checkpoint at `path`.

    layout: of ternary weights: "t2" takes the fewest instructions, "t1" the fewest bytes (docs/decisions/layouts.md)
    embedding: "exact" keeps the values as they are; "int8" is smaller and lossy (docs/decisions/embedding.md)
    template: a chat template of edgebit's own by its name, a file with Jinja, or "none"; None: the checkpoint's own
    probes: whether golden probes are computed, which needs the native library; without them no device can prove itself
    from_float: whether the checkpoint is an ordinary one, whose projections are rounded, which loses quality
    hints: what the user says of the checkpoint where its files do not
    Raises CheckpointError naming file and tensor, TokenizerError, EngineError where the engine is missing or wrong, and
    OutputError where `out` cannot be written. Nothing is left behind then.
    """
    started = time.monotonic()
    checkpoint = open_float_model(path, hints) if from_float else open_checkpoint(path, hints)
    with contextlib.closing(checkpoint), _hashing(checkpoint.weight_files()) as sources:
        text = read_text_sections(checkpoint, template)
        sections = {**text.sections, **_schema_section(checkpoint)}
        stored = Encoding.I8 if embedding == "int8" else checkpoint.embedding_encoding()
        with ModelWriter(
            out,
            text.conf,
            sections,
            embedding=stored,
            layout=_LAYOUTS[layout].encoding,
            scaling=checkpoint.scaling,
        ) as writer:
            _write_tensors(checkpoint, writer, progress)
            total = len(writer.tensors)
            progress("source hashes", total, total)
            files = [
                {"name": path.name, **asdict(source.result())}
                for path, source in zip(checkpoint.weight_files(), sources, strict=True)
            ]
            quantisation = _quantisation(stored, layout, from_float=from_float)
            writer.finish(_meta(checkpoint, files, text, quantisation))
            golden: tuple[Probe, ...] = ()
            if probes:
                progress("golden probes", total, total)
                golden = compute_probes(writer.part)
                writer.set_probes(golden)
            writer.commit()
    return _report(checkpoint, text, out, n_probes=len(golden), seconds=time.monotonic() - started)


def _schema_section(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Section SCHM of a checkpoint that has a response schema. Raises SchemaError, naming the file."""
    given = checkpoint.response_schema()
    if given is None:
        return {}
    try:
        return {"SCHM": schema_section(given)}
    except SchemaError as error:
        raise SchemaError(f"{checkpoint.path}: the response schema: {error}") from error


def _report(checkpoint: Checkpoint, text: TextSections, out: Path, *, n_probes: int, seconds: float) -> ConvertReport:
    return ConvertReport(
        out=out,
        name=checkpoint.config.name,
        family=checkpoint.family,
        parameters=text.conf.parameters,
        size=out.stat().st_size,
        has_tokenizer="TOKN" in text.sections,
        has_chat_template="PRMT" in text.sections,
        n_probes=n_probes,
        licence=checkpoint.config.licence,
        seconds=seconds,
        notes=(*checkpoint.notes, *text.notes),
    )


@contextlib.contextmanager
def _hashing(paths: list[Path]) -> Iterator[list[Future[FileEntry]]]:
    """Size and SHA-256 of each file, computed beside the conversion; given up when that ends early."""
    stopped = threading.Event()

    def check(n_bytes: int) -> None:
        if stopped.is_set():
            raise CancelledError

    with ThreadPoolExecutor(max_workers=1) as hasher:
        try:
            yield [hasher.submit(hash_file, path, check) for path in paths]
        finally:
            stopped.set()


def compute_probes(model_path: Path) -> tuple[Probe, ...]:
    """Golden probes of a model file: computed at this machine's best ISA level, and checked at the lowest.

    The check is slow and ends after the first few of a large model. Raises EngineError where the two levels differ in
    any bit, or there is no engine.
    """
    best = Library.load()
    lowest = Library.load(isa=best.isa_names[0])
    with Model.open(best, model_path) as model:
        weight_bytes = model.info.bytes_per_token
        prompts = _probe_prompts(model)
        probes = _run_probes(model, prompts, default_threads())
    affordable = itertools.takewhile(
        lambda work: work <= _CHECKED_WEIGHT_BYTES,
        itertools.accumulate(weight_bytes * (len(prompt) + PROBE_GREEDY) for prompt in prompts),
    )
    n_checked = max(1, len(list(affordable)))
    with Model.open(lowest, model_path) as model:  # only now: two mappings at once would count twice as memory
        if _run_probes(model, prompts[:n_checked], default_threads()) != probes[:n_checked]:
            raise EngineError(
                f"{best.path} computes other numbers at ISA level {best.isa} than at {lowest.isa}: "
                "a fault of the engine or of this CPU. Please report it."
            )
    return probes


def _run_probes(model: Model, prompts: list[list[int]], threads: int) -> tuple[Probe, ...]:
    probes = []
    with Engine(model, ctx_len=max(map(len, prompts)) + PROBE_GREEDY, threads=threads) as engine:
        for prompt in prompts:
            engine.truncate()
            probes.append(engine.run_probe(prompt, PROBE_GREEDY))
    return tuple(probes)


def _probe_prompts(model: Model) -> list[list[int]]:
    """One token, a few, and many; ids are spread over the vocabulary in a fixed way."""
    info = model.info
    start = [] if info.bos_token is None else [info.bos_token]
    spread = spread_ids(info.vocab_size, max(_PROBE_LENGTHS), first=1)
    lengths = [min(length, max(1, info.context_max - PROBE_GREEDY)) for length in _PROBE_LENGTHS]
    return [(start + spread)[:length] for length in dict.fromkeys(lengths)]


def _write_tensors(checkpoint: Checkpoint, writer: ModelWriter, progress: Progress) -> None:
    total = len(writer.tensors)
    for done, tensor in enumerate(writer.tensors):
        progress(tensor.name, done, total)
        _write_tensor(checkpoint, writer, tensor)


def _write_tensor(checkpoint: Checkpoint, writer: ModelWriter, tensor: Tensor) -> None:
    conf, role = checkpoint.config.conf, tensor.role
    if role == Role.ROPE_INV_FREQ:
        writer.write_tensor([checkpoint.config.rope_inv_freq])
    elif role == Role.HEAD:
        scales = np.empty(conf.vocab_size, np.float32)
        writer.write_tensor(_head_planes(checkpoint, writer.part.parent, scales), scales)
    elif tensor.encoding == Encoding.I8:
        scales = np.empty(conf.vocab_size, np.float32)
        writer.write_tensor((_filled_up(codes) for codes in _int8_rows(checkpoint, role, scales)), scales)
    elif role == Role.TOKEN_EMBEDDING:
        writer.write_tensor(stored for stored, _ in checkpoint.rows(role))
    elif role.is_projection:
        projection = checkpoint.projection(role, tensor.layer)
        pack = next(layout.pack for layout in _LAYOUTS.values() if layout.encoding == tensor.encoding)
        step = tensor.group or tensor.columns
        groups = (projection.weights[:, first : first + step] for first in range(0, tensor.columns, step))
        writer.write_tensor((pack(weights) for weights in groups), projection.scales)
    else:
        writer.write_tensor([checkpoint.vector(role, tensor.layer)])


def _int8_rows(checkpoint: Checkpoint, role: Role, scales: NDArray[np.float32]) -> Iterator[NDArray[np.int8]]:
    """int8 codes of a matrix in chunks of rows; `scales` is filled as the chunks are taken."""
    first = 0
    for _, values in checkpoint.rows(role):
        codes, scales[first : first + len(values)] = row_int8(values)
        first += len(values)
        yield codes


def _filled_up(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    missing = -codes.shape[1] % 64
    return np.pad(codes, ((0, 0), (0, missing))) if missing else codes


def _head_planes(
    checkpoint: Checkpoint, folder: Path, scales: NDArray[np.float32]
) -> Iterator[NDArray[np.uint8] | NDArray[np.float32]]:
    """The parts of layout h8, one after the other; the low planes wait in files of `folder` that have no name."""
    bounds: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    try:
        with tempfile.TemporaryFile(dir=folder) as middle, tempfile.TemporaryFile(dir=folder) as low:
            for codes in _whole_tiles(_int8_rows(checkpoint, Role.HEAD, scales)):
                planes = pack_h8(codes)
                middle.write(planes.middle.data)
                low.write(planes.low.data)
                bounds[0].append(planes.high_bounds)
                bounds[1].append(planes.middle_bounds)
                yield planes.high
            for waiting in (middle, low):
                waiting.seek(0)
                while chunk := waiting.read(16 << 20):
                    yield np.frombuffer(chunk, np.uint8)
    except OSError as error:
        raise OutputError(
            f"{folder}: the head's low planes cannot be kept there for a while: {error.strerror}"
        ) from error
    for parts in bounds:
        yield np.concatenate([*parts, np.zeros(-len(scales) % 16, np.float32)])


def _whole_tiles(chunks: Iterator[NDArray[np.int8]]) -> Iterator[NDArray[np.int8]]:
    """The same rows in chunks of a multiple of four, but for the last."""
    rest: NDArray[np.int8] | None = None
    for chunk in chunks:
        rows = chunk if rest is None else np.concatenate([rest, chunk])
        whole = len(rows) // TILE_ROWS * TILE_ROWS
        rest = rows[whole:]
        if whole:
            yield rows[:whole]
    if rest is not None and len(rest):
        yield rest


def _quantisation(embedding: Encoding, layout: str, *, from_float: bool) -> dict[str, str]:
    return {
        "embedding": "int8" if embedding == Encoding.I8 else embedding.name.lower(),
        "head": "int8",
        "layout": layout,
        **({"projections": UNTRAINED} if from_float else {}),
    }


def _meta(
    checkpoint: Checkpoint, sources: list[dict[str, Any]], text: TextSections, quantisation: dict[str, str]
) -> dict[str, Any]:
    config = checkpoint.config
    return {
        "name": config.name,
        "family": checkpoint.family,
        "licence": config.licence,
        "source": {"format": checkpoint.format, "files": sources},
        "edgebit": __version__,
        "chat_template": text.chat_template,
        "named_tokens": dict(text.named_tokens),
        "generation": config.generation,
        "quantisation": quantisation,
        "parameters": config.conf.parameters,
    }
