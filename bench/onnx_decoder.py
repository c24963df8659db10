"""A whole decoder in ONNX Runtime, with its ternary projections in every way that they can be computed there.

    python bench/onnx_decoder.py [--layers 8] [--ways kernel,compact,nbits2-128,...] [--threads 1,2] [--rounds 3]

Random weights in the shape of BitNet b1.58 2B-4T, of which so many layers are kept: weights as float32 take 278 MB a
layer. The graphs are those of `edgebit export onnx`, but for the projections (bench/onnx_projections.py) and, where
they are none of ours, the head, which MatMulNBits then computes in 8 bits. Our own engine, with all logits as theirs,
is measured in the same rounds, as `edgebit bench --engine onnx FOLDER --beside MODEL` does it. Needs edgebit[onnx], a
built library, and disk for the graphs (--folder).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx_projections import WAYS, Way, finish, products_of

from edgebit.bench.measure import BenchOptions, measure
from edgebit.bench.onnx_peer import OnnxPeer
from edgebit.bench.report import Report, make_report
from edgebit.bench.shapes import shape_model
from edgebit.bundle.archive import locate_model
from edgebit.checkpoint.model_file_checkpoint import open_model_file
from edgebit.export.onnx_model.contrib import CONTRIB
from edgebit.export.onnx_model.decoder import Choices, Decoder
from edgebit.export.onnx_model.external_data import ExternalData
from edgebit.export.onnx_model.graph import Graph
from edgebit.export.onnx_model.interface import declare_interface
from edgebit.export.onnx_model.metadata import metadata
from edgebit.export.onnx_model.operators import rope_tables
from edgebit.onnx_engine.binding import NO_LIBRARY
from edgebit.resources import ort_library
from edgebit.synthesize import SHAPES

SHAPE = "2b4t"
DEFAULT_WAYS = "kernel,compact,exact,nbits2-128,nbits4-32,nbits4-128,nbits8-128,dynamic,float32"
_MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=8, help="of the shape's 30")
    parser.add_argument("--ways", default=DEFAULT_WAYS, help=f"of {', '.join(way.key for way in WAYS)}")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--prefill", type=int, default=128)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the graphs go, for a while.  [default: a temporary one]")
    parser.add_argument("--json", action="store_true", help="the report of edgebit bench (docs/schemas/bench.json)")
    options = parser.parse_args()
    ways = [way for way in WAYS if way.key in options.ways.split(",")]
    model = model_of(SHAPE, options.layers)
    with tempfile.TemporaryDirectory(prefix="onnx-decoder-", dir=options.folder) as name:
        peers = []
        for way in ways:
            tell(f"write {way.key}")
            write_folder(way, model, Path(name) / way.key)
            library = str(ort_library()) if way.body == "kernel" else NO_LIBRARY
            peers.append(OnnxPeer(Path(name) / way.key, library, name=way.key))
        measured = measure(
            BenchOptions(
                model=locate_model(model),
                context_max=SHAPES[SHAPE].context_max,
                threads=tuple(map(int, options.threads.split(","))),
                rounds=options.rounds,
                prefill=(options.prefill,),
                decode_tokens=options.decode,
                contexts=(0,),
                kv="f32",
                peers=tuple(peers),
            ),
            lambda what, done, total: tell(f"{what} ({done} of {total})"),
        )
    report = make_report(measured, model_name=f"{SHAPE}, {options.layers} layers", command=sys.argv)
    print(json.dumps(report, indent=1) if options.json else table(report, ways))
    if report["failures"]:
        raise SystemExit("\n".join(f"{one['name']}: {one['reason']}" for one in report["failures"]))


def tell(what: str) -> None:
    """On standard error: a run takes minutes."""
    print(what, file=sys.stderr, flush=True)


def model_of(shape: str, layers: int) -> Path:
    """The model file with so many layers of a shape, kept in the user's cache."""
    if layers == SHAPES[shape].n_layers:
        return shape_model(shape)
    name = f"{shape}-{layers}-layers"
    SHAPES[name] = replace(SHAPES[shape], n_layers=layers)
    return shape_model(name)


def write_folder(way: Way, model: Path, folder: Path) -> None:
    """What `edgebit export onnx` writes of a model file, as far as ONNX Runtime needs it, with projections that way."""
    folder.mkdir()
    checkpoint = open_model_file(model)
    conf = checkpoint.config.conf
    with ExternalData(folder / "model.onnx.data") as data:
        graph = Graph(data)
        declare_interface(graph, conf, last_logits=True)
        operators = CONTRIB.start(graph, conf, rope_tables(conf, checkpoint.config.rope_inv_freq))
        choices = Choices(int8_embedding=False, last_logits=True)
        Decoder(graph, checkpoint, operators, products_of(way, graph, conf), choices).write(lambda *step: None)
    chosen = {"ops": CONTRIB.name, "fallback": "exact" if way.body == "exact" else "compact", "logits": "last"}
    properties = metadata(checkpoint, conf, files={}, chosen=chosen)
    opsets = finish(way, graph, CONTRIB.opsets)
    graph.save(folder / "model.onnx", opsets=opsets, ir_version=CONTRIB.ir_version, metadata=properties)
    checkpoint.close()


def table(report: Report, ways: Sequence[Way]) -> str:
    """Markdown: our own engine, then a row a way, thread counts beside each other; memory and start of the first."""
    machine, settings = report["machine"], report["settings"]
    said = next((engine["said"] for engine in report["engines"] if engine["said"]), {})
    loads = ", ".join(str(load["load_1_min"]) for load in machine["load"])
    tests = [*(f"prefill {size}" for size in settings["prefill"]), "decode"]
    heads = ["tok/s", *(f"{test}, {count} thr" for test in tests for count in settings["threads"]),
             "peak RSS, MiB", "start to first token, s"]  # fmt: skip
    lines = [
        f"{report['model']['name']}; {machine['cpu']}, {machine['usable_cores']} cores, {said.get('runtime', '')}, "
        f"load average {loads}",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    own = [engine for engine in report["engines"] if not engine["peer"]]
    for name, kind in (("edgebit's own engine, all logits", "all_logits"), ("the same, greedy", "decode")):
        lines.append(f"| {' | '.join(cells(name, own, kind))} |")
    for way in ways:
        found = [engine for engine in report["engines"] if engine["name"] == way.key]
        lines.append(f"| {' | '.join(cells(way.name, found, 'decode')) if found else f'{way.name} | failed'} |")
    return "\n".join(lines)


def cells(name: str, engines: Sequence[dict[str, Any]], decode: str) -> list[str]:
    """Of one engine with each number of threads."""
    first = engines[0]
    return [
        name,
        *(spread(engine["prefill"][size]) for size in first["prefill"] for engine in engines),
        *(spread(engine[decode]["0"]) for engine in engines),
        f"{first['peak_rss_bytes']['prefill'] / _MIB:,.0f}",
        f"{first['start']['first_token_s']['median']:.2f}",
    ]


def spread(figure: dict[str, Any]) -> str:
    return f"{figure['median']:.1f} ({figure['min']:.1f} to {figure['max']:.1f})"


if __name__ == "__main__":
    main()
