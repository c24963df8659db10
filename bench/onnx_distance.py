"""How far exported graphs are from the native engine: logits, int8 steps, greedy tokens; a row a model and form.

    python bench/onnx_distance.py [MODEL ...] [--ops contrib,standard] [--ways kernel,exact,compact,stock]
        [--sequences 12] [--tokens 40] [--pieces 0,17,1] [--greedy 64] [--off 1e-4,0.01] [--accuracy 4] [--json]

MODEL is a model file, a bundle or a checkpoint; without one, all of tests/reference. Each is exported to a temporary
folder in each form. Both get the same sequences of random tokens, the engine with a KV cache in float32; then tokens
that follow, the engine's best each time. Needs edgebit[onnx] and built libraries. It runs in the onnxruntime that
Python finds first, so PYTHONPATH can name a folder with another release (pip install --target).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.archive import locate_model
from edgebit.checkpoint.model_file_checkpoint import is_model_file
from edgebit.convert import convert
from edgebit.errors import EngineError
from edgebit.export.onnx_model.fallback import ACCURACY
from edgebit.export.onnx_model.graph import load_onnx
from edgebit.export.to_onnx import MODEL_NAME, OnnxForm, export_onnx
from edgebit.onnx_engine.binding import NO_LIBRARY
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.session import OnnxSession, import_onnxruntime
from edgebit.resources import ort_library
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "reference"
INT8_STEP = 3e-3  # a sequence with a greater difference has an int8 code that fell the other way
_LISTED = 5  # margins
Ops = Literal["contrib", "standard"]
WAYS = ("kernel", "exact", "compact", "stock")  # what computes the products: the library, a body without it, --stock


@dataclass(frozen=True, slots=True)
class Plan:
    """What both are given."""

    sequences: int
    tokens: tuple[int, int]  # of a sequence: least and most
    pieces: tuple[int, ...]  # tokens of a run, taken in turn by the sequences; 0: all of them
    greedy: int  # tokens that follow a sequence


@dataclass(slots=True)
class Distance:
    """Of one model in one form, or of several models."""

    model: str
    ops: str
    way: str
    differences: list[list[float]] = field(default_factory=list)  # of each sequence: each token's greatest of a logit
    means: list[float] = field(default_factory=list)  # each sequence's mean difference, in parts of the deviation
    deviations: list[float] = field(default_factory=list)  # of each sequence's logits in the engine
    same_best: int = 0  # tokens after which both have the same best one
    greedy: int = 0
    margins: list[float] = field(default_factory=list)  # of greedy tokens that differ: to the engine's best logit

    def off(self, limit: float) -> tuple[int, int]:
        """How many tokens have a logit that is off by more, and how many sequences have such a token."""
        found = [sum(each > limit for each in sequence) for sequence in self.differences]
        return sum(found), sum(map(bool, found))

    def add(self, other: "Distance") -> None:
        """Count in another model's."""
        self.differences += other.differences
        self.means += other.means
        self.deviations += other.deviations
        self.same_best += other.same_best
        self.greedy += other.greedy
        self.margins += other.margins


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--ops", default="contrib", help="of contrib, standard.  [default: contrib]")
    parser.add_argument("--ways", default="kernel", help=f"of {', '.join(WAYS)}.  [default: kernel]")
    parser.add_argument("--sequences", type=int, default=12)
    parser.add_argument("--tokens", default="40", help="of a sequence, or LEAST-MOST.  [default: 40]")
    parser.add_argument("--pieces", default="0,17,1", help="tokens of a run, in turn; 0: all.  [default: 0,17,1]")
    parser.add_argument("--greedy", type=int, default=64, help="tokens that follow each sequence.  [default: 64]")
    parser.add_argument("--off", default="1e-4,0.01", help="differences to count tokens by.  [default: 1e-4,0.01]")
    parser.add_argument("--accuracy", type=int, default=ACCURACY, help="accuracy_level of MatMulNBits.  [default: 4]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    least, _, most = options.tokens.partition("-")
    pieces = tuple(map(int, options.pieces.split(",")))
    plan = Plan(options.sequences, (int(least), int(most or least)), pieces, options.greedy)
    models = options.models or sorted(path for path in REFERENCE.iterdir() if path.is_dir())
    found: list[Distance] = []
    for path in models:
        print(path.name, file=sys.stderr, flush=True)
        found += distances(path, options.ops.split(","), options.ways.split(","), plan, options.accuracy)
    rows = [*found, *totals(found)] if len(models) > 1 else found
    limits = [float(word) for word in options.off.split(",")]
    release: str = import_onnxruntime().__version__
    if options.json:
        said = [{**asdict(row), "off": {limit: row.off(limit) for limit in limits}} for row in rows]
        print(json.dumps({"onnxruntime": release, "rows": said}, indent=1))
    else:
        print(f"ONNX Runtime {release}", "", table(rows, limits), sep="\n")


def distances(
    path: Path, ops: Sequence[Ops], ways: Sequence[str], plan: Plan, accuracy: int = ACCURACY
) -> Iterator[Distance]:
    """Of the model at `path`, in each form."""
    with tempfile.TemporaryDirectory(prefix="onnx-distance-") as name, native_model(path, Path(name)) as model:
        most = plan.tokens[1]
        with Engine(model, ctx_len=most + plan.greedy, logits_rows=most, threads=1, kv="f32") as engine:
            for kind in ops:
                for way in ways:
                    folder = export(path, Path(name) / f"{kind}-{way}", kind, way, accuracy)
                    session = OnnxSession.open(OnnxFolder.open(folder), threads=1, library=library_of(way))
                    if (session.binding.state == "bound") != (way == "kernel"):
                        raise EngineError(f"{way}: the products are not computed that way")
                    distance = Distance(path.name, kind, way)
                    measure(distance, session, engine, model.info.vocab_size, plan)
                    yield distance


@contextmanager
def native_model(path: Path, folder: Path) -> Iterator[Model]:
    """A checkpoint as a model file in `folder`, without golden probes; a model file or bundle as it is."""
    if not is_model_file(path):
        convert(path, folder / "model.ebm", probes=False)
        path = folder / "model.ebm"
    place = locate_model(path)
    with Model.open(Library.load(), place.path, offset=place.offset, size=place.size) as model:
        yield model


def export(path: Path, folder: Path, ops: Ops, way: str, accuracy: int) -> Path:
    """The folder, with all logits."""
    fallbacks: dict[str, Literal["exact", "compact"]] = {"exact": "exact", "compact": "compact"}
    form = OnnxForm(ops=ops, fallback=fallbacks.get(way, "none"), logits="all", stock=way == "stock")
    export_onnx(path, folder, form=form)
    if accuracy != ACCURACY:
        model = load_onnx().load(folder / MODEL_NAME, load_external_data=False)
        for nodes in (model.graph.node, *(function.node for function in model.functions)):
            for node in nodes:
                for attribute in node.attribute:
                    if attribute.name == "accuracy_level":
                        attribute.i = accuracy
        (folder / MODEL_NAME).write_bytes(model.SerializeToString())
    return folder


def library_of(way: str) -> str:
    """What a session is given."""
    return str(ort_library()) if way == "kernel" else NO_LIBRARY


def measure(distance: Distance, session: OnnxSession, engine: Engine, vocab_size: int, plan: Plan) -> None:
    """Run both over all sequences."""
    context = plan.tokens[1] + plan.greedy
    for number in range(plan.sequences):
        random = np.random.default_rng(number)
        count = int(random.integers(plan.tokens[0], plan.tokens[1] + 1))
        ids: list[int] = random.integers(0, vocab_size, count).tolist()
        decoder = Decoder(session, ctx_len=context, batch_len=plan.pieces[number % len(plan.pieces)] or count)
        engine.truncate()
        engine.eval_batch(ids, [0] * count, [True] * count)
        wanted = np.stack([np.array(engine.logits(row)) for row in range(count)])
        found = decoder.append_all(ids)
        errors, deviation = np.abs(found - wanted), float(wanted.std())
        distance.differences.append(errors.max(axis=1).tolist())
        distance.means.append(float(errors.mean()) / deviation)
        distance.deviations.append(deviation)
        distance.same_best += int((found.argmax(axis=1) == wanted.argmax(axis=1)).sum())
        follow(distance, decoder, engine, found[-1], wanted[-1], plan.greedy)


def follow(
    distance: Distance, decoder: Decoder, engine: Engine, found: NDArray[Any], wanted: NDArray[Any], count: int
) -> None:
    """Greedy tokens, the engine's for both; found, wanted: the logits [vocabulary] that give the first of them."""
    distance.greedy += count
    for place in range(count):
        token, theirs = int(wanted.argmax()), int(found.argmax())
        if theirs != token:
            distance.margins.append(float(wanted[token] - wanted[theirs]))
        if place + 1 < count:
            engine.eval([token])
            wanted, found = np.array(engine.logits()), decoder.append([token])[0]


def totals(rows: Sequence[Distance]) -> list[Distance]:
    """Of all models together, a row a form."""
    found: dict[tuple[str, str], Distance] = {}
    for row in rows:
        found.setdefault((row.ops, row.way), Distance("all", row.ops, row.way)).add(row)
    return list(found.values())


def table(rows: Sequence[Distance], limits: Sequence[float]) -> str:
    """Markdown."""
    heads = [
        "model", "ops", "products", *(f"tokens off by > {limit:g} (sequences)" for limit in limits),
        "sequences with an int8 step", "greatest difference in the others", "of all", "mean / deviation", "deviation",
        "same best token", "greedy tokens that differ (to the engine's best)",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells(row, limits))} |" for row in rows)])


def cells(row: Distance, limits: Sequence[float]) -> list[str]:
    """Of one row."""
    greatest = [max(sequence) for sequence in row.differences]
    others = [each for each in greatest if each <= INT8_STEP]
    margins = [f"{margin:.3f}" for margin in sorted(row.margins)]
    by = f"at most {margins[-1]}" if len(margins) > _LISTED else ", ".join(margins)
    deviations = {f"{each:.1f}" for each in (min(row.deviations), max(row.deviations))}
    return [
        row.model,
        row.ops,
        row.way,
        *("{} ({})".format(*row.off(limit)) for limit in limits),
        f"{len(greatest) - len(others)} of {len(greatest)}",
        f"{max(others):.1e}" if others else "",
        f"{max(greatest):.2g}",
        f"{float(np.mean(row.means)):.2g}",
        " to ".join(sorted(deviations, key=float)),
        f"{row.same_best} of {sum(map(len, row.differences))}",
        f"{len(row.margins)} of {row.greedy}" + (f" ({by})" if margins else ""),
    ]


if __name__ == "__main__":
    main()
