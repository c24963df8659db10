"""`edgebit export`: a model in another program's format."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource

from edgebit.checkpoint.hints import Hints
from edgebit.checkpoint.opening import model_files
from edgebit.cli.checkpoint_options import checkpoint_options
from edgebit.cli.ending_signals import signals_as_ctrl_c
from edgebit.cli.out_file import OUT_FILE, force_option
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.targets import complete_target
from edgebit.cli.terminal import printable, printable_json
from edgebit.compare.logit_distance import LogitDistance, measure_distance
from edgebit.cross.ort_library import build_ort_library
from edgebit.cross.toolchain import BUILDERS
from edgebit.errors import EdgebitError
from edgebit.export.gguf_architecture import ARCHITECTURES
from edgebit.export.onnx_model.fallback import WITHOUT_LIBRARY, Fallback
from edgebit.export.onnx_model.graph import load_onnx
from edgebit.export.target import check_out_folder
from edgebit.export.to_gguf import GgufType, export_gguf
from edgebit.export.to_hugging_face import export_hugging_face
from edgebit.export.to_onnx import FLAVOURS, OnnxForm, export_onnx
from edgebit.progress import Progress
from edgebit.resources import ort_library
from edgebit.targets import find_target

_head_from = click.option(
    "--head-from",
    type=click.Path(exists=True, path_type=Path),
    help="The checkpoint that MODEL was made from: for its exact head, of which a model file keeps int8 rows.",
)


@click.group()
def command() -> None:
    """Write a model in another program's format.

    MODEL is a model file, a bundle, or a checkpoint. Ternary codes are kept as they are, and so are scales where the
    format can hold them; what is lost is printed.

    \b
    edgebit export gguf chat.bundle --type tq2_0 --out chat.gguf
    edgebit export hf chat.bundle --out ./chat
    edgebit export onnx chat.bundle --out ./chat-onnx
    """
    signals_as_ctrl_c()


@command.command(short_help="A GGUF for llama.cpp, bitnet.cpp, ik_llama.cpp.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=OUT_FILE, help="The GGUF.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["tq2_0", "tq1_0", "i2_s"]),
    default="tq2_0",
    show_default=True,
    help="Of projections: tq2_0 and tq1_0 are llama.cpp's, i2_s is bitnet.cpp's.",
)
@click.option(
    "--arch",
    type=click.Choice(sorted(ARCHITECTURES)),
    help="general.architecture, where the model's own can be said in two ways.  [default: the one that fits]",
)
@click.option(
    "--exact-scales",
    is_flag=True,
    help="Keep scales that are no f16 numbers, in tensors of their own, which older programs may refuse.",
)
@_head_from
@checkpoint_options
@force_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def gguf(
    model: Path,
    out: Path,
    kind: GgufType,
    arch: str | None,
    exact_scales: bool,
    head_from: Path | None,
    hints: Hints,
    force: bool,
    as_json: bool,
) -> None:
    """Write MODEL as a GGUF for llama.cpp, bitnet.cpp, ik_llama.cpp.

    \b
    edgebit export gguf chat.bundle --type tq2_0 --out chat.gguf
    """
    with progress_bar() as progress:
        report = export_gguf(
            model,
            out,
            kind=kind,
            architecture=arch,
            exact_scales=exact_scales,
            head_from=head_from,
            hints=hints,
            force=force,
            progress=progress,
        )
    kinds = ", ".join(f"{count} {name}" for name, count in report.types.items())
    _print(report, as_json, f"{report.size / (1 << 20):.1f} MiB, arch {report.architecture}, tensors: {kinds}")


@command.command(short_help="A folder that transformers loads.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder.")
@_head_from
@checkpoint_options
@click.option("--force", is_flag=True, help="Replace a folder that an export wrote and nobody changed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def hf(model: Path, out: Path, head_from: Path | None, hints: Hints, force: bool, as_json: bool) -> None:
    """Write MODEL as a folder that transformers loads: safetensors, configuration, tokenizer, README.

    Weights are packed; of a model trained with float activations they are floats, which transformers computes as such.

    \b
    edgebit export hf chat.bundle --out ./chat
    """
    with progress_bar() as progress:
        report = export_hugging_face(model, out, head_from=head_from, hints=hints, force=force, progress=progress)
    form = f"{report.architecture}, {report.linear_class or 'weights as floats'}, {report.dtype}"
    _print(report, as_json, f"{report.size / (1 << 20):.1f} MiB of weights, {form}")


@command.command(short_help="A folder that ONNX Runtime runs.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder.")
@click.option(
    "--ops",
    type=click.Choice(sorted(FLAVOURS)),
    default="contrib",
    show_default=True,
    help="Attention and norms: contrib are ONNX Runtime's own (from 1.19 on), standard those of ONNX (opset 24; 1.24).",
)
@click.option(
    "--fallback",
    type=click.Choice(["compact", "exact", "none"]),
    default="compact",
    show_default=True,
    help="What computes the weights' products without our library: MatMulNBits, near; plain operators, exact; nothing.",
)
@click.option(
    "--stock",
    is_flag=True,
    help="No operator of ours, for runtimes that take no library: MatMulNBits, near (from ONNX Runtime 1.24 on).",
)
@click.option(
    "--text",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --stock: on whose first tokens its distance from the native engine is measured.  [default: one of ours]",
)
@click.option(
    "--logits",
    type=click.Choice(["last", "all"]),
    default="last",
    show_default=True,
    help="Those of each sequence's last token, or of all.",
)
@click.option(
    "--embedding",
    type=click.Choice(["exact", "int8"]),
    default="exact",
    show_default=True,
    help="As the model keeps it, or int8 rows; those of a tied head are shared.",
)
@click.option("--ctx", type=click.IntRange(min=1), help="The longest sequence, in tokens.  [default: the model's own]")
@click.option(
    "--target",
    "target_name",
    metavar="TARGET",
    shell_complete=complete_target,
    help="The device that runs it (`edgebit targets`): libedgebit_ort.so is built for it.  [default: this machine]",
)
@click.option(
    "--builder", type=click.Choice(BUILDERS), default="auto", show_default=True, help="Who compiles the library."
)
@click.option("--no-library", is_flag=True, help="Leave libedgebit_ort.so out: the fallback computes.")
@checkpoint_options
@click.option("--force", is_flag=True, help="Replace a folder that an export wrote and nobody changed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def onnx(
    model: Path,
    out: Path,
    ops: Literal["contrib", "standard"],
    fallback: Fallback,
    stock: bool,
    text: Path | None,
    logits: Literal["last", "all"],
    embedding: str,
    ctx: int | None,
    target_name: str | None,
    builder: str,
    no_library: bool,
    hints: Hints,
    force: bool,
    as_json: bool,
) -> None:
    """Write MODEL as a folder that ONNX Runtime runs: graph, weights, tokenizer, our library of operators, README.

    \b
    edgebit export onnx chat.bundle --out ./chat-onnx
    edgebit export onnx chat.bundle --target rpi --out ./chat-onnx-rpi
    edgebit export onnx chat.bundle --stock --out ./chat-stock
    """
    _refuse_contradictions(stock, text, target_name, builder, no_library)
    int8 = embedding == "int8"
    form = OnnxForm(ops=ops, fallback=fallback, stock=stock, logits=logits, int8_embedding=int8, context=ctx)
    load_onnx()
    inputs = [*model_files(model, hints), *([text] if text is not None else [])]
    check_out_folder(out, force=force, inputs=inputs)  # before a compiler runs for minutes
    library = None if no_library or stock else _ort_library(target_name, builder)
    with progress_bar() as progress:
        report = export_onnx(model, out, form=form, library=library, hints=hints, force=force, progress=progress)
        distance, why_not = _distance(model, out, text, hints, progress) if stock else (None, ())
    if report.fallback is None:
        meaning = "none of ours: near the native engine's numbers, not the same (fast from ONNX Runtime 1.28 on)"
    else:
        meaning = f"{'with' if report.library else 'without'} libedgebit_ort.so; {WITHOUT_LIBRARY[report.fallback]}"
    summary = f"{report.size / (1 << 20):.1f} MiB, operators {report.ops}, {meaning}"
    _print(replace(report, notes=(*report.notes, *why_not)), as_json, summary, distance)


def _refuse_contradictions(
    stock: bool, text: Path | None, target_name: str | None, builder: str, no_library: bool
) -> None:
    """Raise UsageError for options of `export onnx` that do not go together."""
    chosen = click.get_current_context().get_parameter_source("fallback")
    if text is not None and not stock:
        raise click.UsageError("--text goes with --stock: it is what the distance of that is measured on")
    if stock and chosen == ParameterSource.COMMANDLINE:
        raise click.UsageError("--stock needs no fallback: nothing in it is of ours. Leave --fallback out")
    if stock and (target_name or builder != "auto"):
        raise click.UsageError("--stock has no library to build. Leave --target and --builder out")
    if no_library and (target_name or builder != "auto"):
        raise click.UsageError("--no-library goes with neither --target nor --builder")


def _distance(
    model: Path, out: Path, text: Path | None, hints: Hints, progress: Progress
) -> tuple[LogitDistance | None, tuple[str, ...]]:
    """Of what was written from the native engine; where it could not be measured, why."""
    try:
        return measure_distance(model, out, text=text, hints=hints, progress=progress), ()
    except EdgebitError as fault:
        return None, (f"the distance from the native engine was not measured: {fault}",)


def _in_words(distance: LogitDistance) -> str:
    return (
        f"from the native engine: logits {distance.max_difference:.3g} at most, KL {distance.kl_mean:.2g} nats in the "
        f"mean, the same greedy token {distance.same_greedy:.1%} of the time "
        f"({distance.tokens} tokens, {distance.text}; {distance.runtime})"
    )


def _ort_library(target_name: str | None, builder: str) -> Path:
    """libedgebit_ort.so: the installed one, unless a target or builder is named."""
    if target_name is None and builder == "auto":
        return ort_library()
    return build_ort_library(
        find_target(target_name or "host"), builder, report=lambda line: click.echo(printable(line), err=True)
    )


def _print(report: Any, as_json: bool, summary: str, distance: LogitDistance | None = None) -> None:
    if as_json:
        measured = {} if distance is None else {"distance": asdict(distance)}
        click.echo(printable_json(asdict(report) | {"out": str(report.out)} | measured, indent=2))
        return
    click.echo(f"{report.out}: {summary}")
    if distance is not None:
        click.echo(f"  distance {_in_words(distance)}")
    for note in report.notes:
        click.echo(f"  note     {printable(note)}")
