"""The tables of `edgebit bench`."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgebit.bench.measure import HEAD_PLANES
from edgebit.bench.report import Report
from edgebit.cli.terminal import printable

_OWN_LOAD = 0.5  # above the threads that are measured: what the bench itself adds to the load average
_FILE_WIDTH = 110  # columns of a table that goes into a file or pipe


def print_report(report: Report) -> None:
    """Speeds, start and memory, limits, and what else a reader should know."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    model, settings = report["model"], report["settings"]
    for line in _head(report):
        console.print(Text(printable(line)), soft_wrap=True)
    console.print()
    tests = [
        *(("prefill", str(size), f"prefill {size:,}") for size in settings["prefill"]),
        *(("decode", str(size), f"decode at {size:,}" if size else "decode") for size in settings["contexts"]),
        *(("all_logits", str(size), "decode, all logits") for size in settings["contexts"] if not size),
        *(("sequences", str(count), f"{count} sequence{'s' * (count > 1)}") for count in settings["sequences"]),
    ]
    console.print(_speeds(report, tests))
    console.print()
    console.print(_starts(report))
    console.print()
    for limits in report["limits"]:
        console.print(
            f"Limits at {_threads(limits['threads'])}: memory read at {_range(limits['read_bytes_s'], 1e9, 1)} GB/s, "
            f"int8 products {_range(limits['int8_mac_s'], 1e9, 0)} G/s.",
            soft_wrap=True,
        )
    own = [engine for engine in report["engines"] if not engine["peer"]]
    for line in _step_lines(own[0], model) if own else ():
        console.print(line, soft_wrap=True)
    for engine in report["engines"]:
        for figure, doubt in engine["doubts"].items():
            who = f"{engine['name']} at {_threads(engine['threads'])}"
            words = f"Not counted: {figure.replace('/', ' ')} of {who}: {doubt}."
            console.print(Text(printable(words)), soft_wrap=True)
    for words in dict.fromkeys(engine["said"].get("note") for engine in report["engines"]):
        if words:
            console.print(Text(printable(words)), soft_wrap=True)
    load = max(reading["load_1_min"] or 0 for reading in report["machine"]["load"])
    if load > max(settings["threads"]) + _OWN_LOAD:
        console.print(
            f"Other work went on: load average up to {load}. Figures are lower than this machine can do.",
            soft_wrap=True,
        )
    for words in settings["left_out"]:
        console.print(f"Left out: {words}.", soft_wrap=True)


def _head(report: Report) -> list[str]:
    machine, model, edgebit = report["machine"], report["model"], report["edgebit"]
    load = machine["load"][0]["load_1_min"]
    return [
        f"{machine['cpu']}, {machine['usable_cores']} cores, {edgebit['isa']}, load average {load}, {report['date']}",
        f"{model['name']}: {model['ternary_weights'] / 1e6:,.1f} M ternary weights; {_proof(model)}"
        f"KV cache in {report['settings']['kv']}",
        *_runtimes(report),
        f"tok/s, medians of rounds: {report['settings']['rounds']}",
    ]


def _step_lines(engine: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """What a decode step of our own engine reads, by context."""
    lines = []
    for size, step in engine["step_bytes"].items():
        middle, low = (engine["head_rows"][plane][size]["median"] for plane in HEAD_PLANES)
        lines.append(
            f"A decode step behind {int(size):,} tokens reads {step['median'] / 1e6:,.1f} MB; of the head's "
            f"{model['vocab_size']:,} rows {middle:,.0f} again in the middle plane and {low:,.0f} in the low one."
        )
    return lines


def _proof(model: dict[str, Any]) -> str:
    """Of our own engine, where it is measured."""
    return f"{model['golden_probes']} golden probes equal; " if model["golden_probes"] else ""


def _runtimes(report: Report) -> list[str]:
    """Of ONNX Runtime, where it is measured: its version, and whose kernels run."""
    names = {
        "bound": "edgebit's operators",
        "fallback": "a fallback of edgebit's operators",
        "none": "its own operators",
    }
    said = [engine["said"] for engine in report["engines"] if "runtime" in engine["said"]]
    return list(dict.fromkeys(f"onnx: {one['runtime']}, {names[one['kernel']]}; KV cache in f32" for one in said))


def _speeds(report: Report, tests: list[tuple[str, str, str]]) -> Table:
    """A row for each test, thread count and engine: what it does, and how that stands to the limit or to edgebit."""
    ratios = {(ratio["peer"], ratio["threads"], ratio["figure"]): ratio for ratio in report["ratios"]}
    table = _table("test", "thr", "engine", "tok/s", "least to most", "of limit", "edgebit is")
    for kind, size, title in tests:
        for engine in report["engines"]:
            if size not in engine[kind]:
                continue
            value = engine[kind][size]
            share = engine.get({"prefill": "int8_share", "decode": "read_share"}.get(kind, ""), {}).get(size)
            ratio = ratios.get((engine["name"], engine["threads"], f"{kind}/{size}"))
            table.add_row(
                title,
                str(engine["threads"]),
                engine["name"],
                _speed(value["median"]),
                f"{_speed(value['min'])} to {_speed(value['max'])}",
                f"{share['median']:.0%}" if share else "",
                f"{_range(ratio, 1, 2)} x" if ratio else "not counted" if f"{kind}/{size}" in engine["doubts"] else "",
            )
            title = ""
    return table


def _starts(report: Report) -> Table:
    table = _table("start and memory", "thr", "engine", "one token", "first token", "peak RSS", "with context")
    for engine in report["engines"]:
        start, memory = engine["start"], engine["peak_rss_bytes"]
        peaks = [f"{memory[kind] / 2**20:,.0f} MiB" if kind in memory else "" for kind in ("prefill", "context")]
        rows = [("start to end", _ms(start.get("start_s")), _ms(start.get("first_token_s")), *peaks)]
        if "native_start_s" in start:
            rows.append(("the same, edgebit-run", _ms(start["native_start_s"]), "", "", ""))
        if "library_load_s" in start:
            rows.append(("library alone", _ms(start["library_load_s"]), "", "", ""))
        for title, *cells in rows:
            table.add_row(title, str(engine["threads"]), engine["name"], *cells)
    return table


def _table(*columns: str) -> Table:
    """The first and the third column may be folded on a narrow terminal; the others are figures."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        words = number in (0, 2)
        table.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def _speed(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _ms(value: dict[str, Any] | None) -> str:
    return f"{value['median'] * 1e3:,.1f} ms" if value else ""


def _range(value: dict[str, Any], unit: float, digits: int) -> str:
    median, least, most = (f"{value[key] / unit:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({least} to {most})" if len(value["samples"]) > 1 else median
