"""Puts a measurement together: medians with the least and the most, shares of the machine's limits, ratios to peers."""

import math
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from edgebit import __version__
from edgebit.bench.machine import machine_facts, source_revision
from edgebit.bench.measure import EDGEBIT, HEAD_PLANES, MACHINE, START_FIGURES, Measurement

SCHEMA = "edgebit/bench/1"
# A figure above its limit by more than this is no figure: the limits themselves are measured, and vary.
LIMIT_SLACK = 1.25
# Bits that a ternary weight holds at least: no format of an exact engine reads less.
TERNARY_BITS = math.log2(3)
_SAME_SIZE = 0.05  # parameters of a peer's model may differ by this share and still be a model of the same shape

Report = dict[str, Any]


def make_report(
    measured: Measurement, *, model_name: str, command: Sequence[str], left_out: Sequence[str] = ()
) -> Report:
    """The JSON object that docs/schemas/bench.json describes. left_out: default tests that the model cannot do."""
    options, facts = measured.options, measured.facts
    engines = [_engine(measured, name, threads) for name, threads in measured.series if name != MACHINE]
    engines.sort(key=lambda engine: (engine["threads"], engine["name"] != EDGEBIT))  # sort() keeps the peers' order
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "edgebit": {
            "version": __version__,
            "revision": source_revision(),
            "library_version": facts["library_version"],
            "isa": facts["isa"],
            "isa_levels": facts["isa_names"],
        },
        "machine": {**machine_facts(), "load": measured.load},
        "model": {
            "name": model_name,
            **{key: facts["info"][key] for key in _SIZES},
            "ternary_weights": ternary_weights(facts["info"]),
            "weight_bytes": facts["info"]["weight_bytes"],
            "bytes_per_token": facts["info"]["bytes_per_token"],
            "kv_bytes_per_token": facts["kv_bytes_per_token"],
            "golden_probes": measured.probes,
        },
        "settings": {
            "rounds": options.rounds,
            "threads": list(options.threads),
            "prefill": list(options.prefill),
            "decode_tokens": options.decode_tokens,
            "contexts": list(options.contexts),
            "sequences": list(options.sequences),
            "kv": options.kv,
            "isa": options.isa,
            "left_out": list(left_out),
            "read_buffer_bytes": measured.buffer_bytes,
        },
        "limits": [_limits(measured, threads) for threads in options.threads],
        "engines": engines,
        "ratios": [ratio for engine in engines for ratio in _ratios(measured, engine)],
        "failures": [
            {"name": name, "threads": threads, "reason": reason}
            for (name, threads), reason in measured.failures.items()
        ],
    }


_SIZES = ("hidden_size", "ffn_size", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "context_max")


def ternary_weights(info: dict[str, Any]) -> int:
    """Weights of all projections: as many products a token needs, attention and head aside."""
    hidden, attention = info["hidden_size"], info["n_heads"] * info["head_dim"]
    kv = info["n_kv_heads"] * info["head_dim"]
    return int(info["n_layers"] * (2 * hidden * attention + 2 * hidden * kv + 3 * hidden * info["ffn_size"]))


def summary(values: Iterable[float]) -> dict[str, Any]:
    """Median, least, most, and the values themselves, in order."""
    samples = list(values)
    return {
        "median": statistics.median(samples),
        "min": min(samples),
        "max": max(samples),
        "samples": samples,
    }


def bytes_of_step(measured: Measurement, context: int, head_rows: float) -> float:
    """Bytes that a decode step behind `context` tokens reads: weights, head rows read again, KV cache."""
    info, kv_bytes = measured.facts["info"], measured.facts["kv_bytes_per_token"]
    plane_row = -(-info["hidden_size"] // 256) * 256 / 4
    return float(info["bytes_per_token"] + head_rows * plane_row + context * kv_bytes)


def _limits(measured: Measurement, threads: int) -> dict[str, Any]:
    row = measured.series[MACHINE, threads]
    return {"threads": threads, "read_bytes_s": summary(row["read"]), "int8_mac_s": summary(row["int8"])}


def _engine(measured: Measurement, name: str, threads: int) -> dict[str, Any]:
    row = measured.series[name, threads]
    is_peer = name != EDGEBIT
    runs = measured.peers.get((name, threads), [])
    memory = measured.memory.get((name, threads), {}) if not is_peer else _largest(run.peak_rss for run in runs)
    engine: dict[str, Any] = {
        "name": name,
        "threads": threads,
        "peer": is_peer,
        "prefill": _by_size(row, "prefill/"),
        "decode": _by_size(row, "decode/"),
        "all_logits": _by_size(row, "all_logits/"),
        "sequences": _by_size(row, "sequences/"),
        "start": {figure: summary(row[figure]) for figure in START_FIGURES if figure in row},
        "peak_rss_bytes": memory,
        "said": runs[0].said if runs else {},
        "doubts": {},
    }
    if is_peer:
        told = {figure: doubt for run in runs for figure, doubt in run.doubts.items()}
        engine["doubts"] = implausible(measured, name, threads) | told
    else:
        engine["int8_share"] = _shares(measured, threads, "prefill/")
        engine["read_share"] = _shares(measured, threads, "decode/") if measured.reads_memory else {}
        engine["head_rows"] = {plane: _by_size(row, f"{plane}/") for plane in HEAD_PLANES}
        engine["step_bytes"] = {
            size: summary(bytes_of_step(measured, int(size), rows) for rows in _head_rows(row, size))
            for size in engine["decode"]
        }
    return engine


def _by_size(row: dict[str, list[float]], prefix: str) -> dict[str, Any]:
    return {figure.removeprefix(prefix): summary(values) for figure, values in row.items() if figure.startswith(prefix)}


def _head_rows(row: dict[str, list[float]], size: str) -> list[float]:
    """Rows of both lower planes of the head that a step reads, in each round: they have the same size."""
    return [middle + low for middle, low in zip(*(row[f"{plane}/{size}"] for plane in HEAD_PLANES), strict=True)]


def _largest(sizes: Iterable[dict[str, int]]) -> dict[str, int]:
    most: dict[str, int] = {}
    for kinds in sizes:
        for kind, size in kinds.items():
            most[kind] = max(size, most.get(kind, 0))
    return most


def _shares(measured: Measurement, threads: int, prefix: str) -> dict[str, Any]:
    """Of each size: the speed as a share of what the machine's limit of the same round would allow."""
    limits = measured.series[MACHINE, threads]
    macs = ternary_weights(measured.facts["info"])
    shares = {}
    for figure, values in measured.series[EDGEBIT, threads].items():
        if figure.startswith(prefix):
            size = figure.removeprefix(prefix)
            if prefix == "prefill/":
                most = [limit / macs for limit in limits["int8"]]
            else:
                rows = _head_rows(measured.series[EDGEBIT, threads], size)
                most = [
                    limit / bytes_of_step(measured, int(size), again)
                    for limit, again in zip(limits["read"], rows, strict=True)
                ]
            shares[size] = summary(value / limit for value, limit in zip(values, most, strict=True))
    return shares


def implausible(measured: Measurement, name: str, threads: int) -> dict[str, str]:
    """Figures of a peer that no engine which computes can have on this machine, and why: it is too fast.

    The model is taken to have the shape of ours unless the peer tells another number of parameters.
    """
    row, limits = measured.series[name, threads], measured.series[MACHINE, threads]
    weights = ternary_weights(measured.facts["info"]) * _model_ratio(measured, name, threads)
    fastest_prefill = max(limits["int8_any"]) / weights
    fastest_decode = max(limits["read"]) / (weights * TERNARY_BITS / 8)
    speeds = {figure: statistics.median(values) for figure, values in row.items() if "/" in figure}
    lengths = sorted(int(figure.removeprefix("prefill/")) for figure in speeds if figure.startswith("prefill/"))
    doubts = {}
    for short, long in pairwise(lengths):
        if long / speeds[f"prefill/{long}"] < short / speeds[f"prefill/{short}"]:
            doubts[f"prefill/{long}"] = f"it takes less time than a prompt of {short}: not all of it is computed"
    for figure, speed in speeds.items():
        if figure.startswith("prefill/") and speed > LIMIT_SLACK * fastest_prefill:
            doubts[figure] = (
                f"{speed:,.1f} tok/s is more than this machine's int8 products allow ({fastest_prefill:,.1f}): "
                "not all of it is computed"
            )
        if (
            figure.startswith(("decode/", "all_logits/"))
            and measured.reads_memory
            and speed > LIMIT_SLACK * fastest_decode
        ):
            doubts[figure] = (
                f"{speed:,.1f} tok/s is more than reading weights of {TERNARY_BITS:.2f} bits allows "
                f"({fastest_decode:,.1f}): not all of them are read"
            )
    return doubts


def _model_ratio(measured: Measurement, name: str, threads: int) -> float:
    """The size of a peer's model in ours; 1 where it is the same, a tied head counted or not, or the peer is silent."""
    info = measured.facts["info"]
    embedding = info["vocab_size"] * info["hidden_size"]
    ours = ternary_weights(info) + embedding
    runs = measured.peers.get((name, threads), [])
    told: int | None = runs[0].said.get("model_n_params") if runs else None
    if told is None or min(abs(told / size - 1) for size in (ours, ours + embedding)) < _SAME_SIZE:
        return 1.0
    return float(told / ours)


def _ratios(measured: Measurement, engine: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """edgebit over a peer, of each speed that counts, round by round."""
    name, threads = engine["name"], engine["threads"]
    if not engine["peer"]:
        return
    ours, theirs = measured.series.get((EDGEBIT, threads), {}), measured.series[name, threads]
    same_model = _model_ratio(measured, name, threads) == 1.0
    for figure, values in theirs.items():
        rounds = list(zip(ours.get(figure, []), values, strict=False))  # a peer that failed has fewer
        if rounds and figure.startswith(("prefill/", "decode/", "all_logits/")) and figure not in engine["doubts"]:
            yield {
                "peer": name, "threads": threads, "figure": figure, "same_model_size": same_model,
                **summary(mine / other for mine, other in rounds),
            }  # fmt: skip
