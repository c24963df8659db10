"""A measurement of a small model: all figures asked for, and what a report makes of them."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from edgebit.asked_process import process as asked_process
from edgebit.bench import measure as measure_module
from edgebit.bench.measure import HEAD_PLANES, BenchOptions, Measurement, measure
from edgebit.bench.peers import PeerRun, parse_peer
from edgebit.bench.report import implausible, make_report, ternary_weights
from edgebit.bundle.archive import locate_model
from edgebit.errors import EngineError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "bench.json").read_text())
BUFFER = 4 << 20


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch):
    """Limits are measured on a small buffer: what they come to is not looked at here."""
    monkeypatch.setattr(measure_module, "read_buffer_bytes", lambda: BUFFER)


@pytest.fixture
def options(reference_model):
    return BenchOptions(
        model=locate_model(reference_model("bitnet-packed")), context_max=4096, threads=(1, 2), rounds=2,
        prefill=(4, 16), decode_tokens=4, contexts=(0, 24), sequences=(1, 3),
    )  # fmt: skip


def test_a_measurement_has_every_figure_of_each_round_and_fits_the_schema(options, against):
    """Each thread count, the machine's limits and a peer beside it; progress goes up to the end."""
    steps = []
    measured = measure(
        replace(options, peers=(parse_peer(against()),)), lambda what, done, total: steps.append((done, total))
    )
    report = make_report(measured, model_name="small", command=["edgebit", "bench"])

    Draft202012Validator(SCHEMA).validate(report)
    assert steps == sorted(steps) and steps[-1] == (13, 13)
    assert [(engine["name"], engine["threads"]) for engine in report["engines"]] == [
        ("edgebit", 1), ("fake", 1), ("edgebit", 2), ("fake", 2),
    ]  # fmt: skip
    for engine in report["engines"]:
        assert set(engine["prefill"]) == {"4", "16"}
        assert set(engine["decode"]) == {"0", "24"}
        assert set(engine["sequences"]) == (set() if engine["peer"] else {"1", "3"})
        assert all(len(value["samples"]) == 2 for value in engine["prefill"].values())
        if not engine["peer"]:
            assert set(engine["int8_share"]) == {"4", "16"}
            assert set(engine["head_rows"]["middle_rows"]) == set(engine["step_bytes"]) == {"0", "24"}
            assert set(engine["all_logits"]) == {"0"}
            assert engine["peak_rss_bytes"].keys() == {"prefill", "context"}
            assert {"start_s", "first_token_s", "library_load_s"} <= engine["start"].keys()
            assert engine["start"]["first_token_s"]["max"] <= engine["start"]["start_s"]["max"]
    assert report["model"]["golden_probes"] > 0
    assert report["failures"] == []


def test_ratios_are_taken_within_a_round():
    """Both engines slowed down by half in one round leaves the ratio as it is."""
    measured = made({"prefill/8": [100.0, 50.0, 100.0], "decode/0": [30.0, 15.0, 30.0]},
                    {"prefill/8": [50.0, 25.0, 40.0], "decode/0": [10.0, 5.0, 10.0]})  # fmt: skip
    ratios = {ratio["figure"]: ratio for ratio in report_of(measured)["ratios"]}

    assert ratios["prefill/8"]["samples"] == [2.0, 2.0, 2.5]
    assert (ratios["decode/0"]["min"], ratios["decode/0"]["max"]) == (3.0, 3.0)


def test_shares_are_of_the_limit_of_the_same_round():
    """Prefill of int8 products over ternary weights; decode of bytes read over bytes a step needs."""
    ours = {"prefill/8": [2.0, 1.0], "decode/0": [3.0, 6.0], "decode/100": [1.0, 1.0]}
    measured = made(ours | {"middle_rows/100": [0, 9e5], "low_rows/100": [0, 1e5]}, {})
    weights = ternary_weights(INFO)
    measured.series["machine", 1] = {
        "int8": [4.0 * weights, 4.0 * weights], "int8_any": [1.0, 1.0], "read": [6e9, 12e9]
    }  # fmt: skip
    engine = report_of(measured)["engines"][0]

    assert engine["int8_share"]["8"]["samples"] == [0.5, 0.25]
    assert engine["read_share"]["0"]["samples"] == [0.5, 0.5]
    assert engine["read_share"]["100"]["samples"] == pytest.approx([1.2e9 / 6e9, 1.264e9 / 12e9])


def test_a_model_that_the_caches_hold_has_no_share_of_memory():
    """Reading it says nothing about memory."""
    measured = made({"prefill/8": [2.0], "decode/0": [3.0]}, {})
    measured.cache_bytes = 1 << 30

    assert report_of(measured)["engines"][0]["read_share"] == {}


@pytest.mark.parametrize(
    ("figures", "doubted", "words"),
    [
        ({"prefill/8": [1e12], "decode/0": [1.0]}, "prefill/8", "more than this machine's int8 products allow"),
        ({"prefill/8": [1.0], "decode/0": [1e12]}, "decode/0", "more than reading weights"),
        (
            {"prefill/8": [20.0], "prefill/64": [10.0], "prefill/128": [30.0], "decode/0": [1.0]},
            "prefill/128",
            "less time than a prompt of 64",
        ),
    ],
)
def test_a_figure_faster_than_the_machine_is_not_counted(figures, doubted, words):
    """It has no ratio, and the reason is told; the peer's other figures count."""
    report = report_of(made({figure: [1.0] for figure in figures}, figures))

    assert list(report["engines"][1]["doubts"]) == [doubted]
    assert words in report["engines"][1]["doubts"][doubted]
    assert {ratio["figure"] for ratio in report["ratios"]} == figures.keys() - {doubted}


def test_the_limits_of_a_smaller_model_are_those_of_a_smaller_model():
    """A peer that tells fewer parameters may be faster by as much, and its ratio is marked."""
    measured = made({"prefill/8": [1.0], "decode/0": [1.0]}, {"prefill/8": [40.0], "decode/0": [1.0]})
    measured.series["machine", 1]["int8_any"] = [20.0 * ternary_weights(INFO)]
    assert implausible(measured, "fake", 1)
    measured.peers["fake", 1] = [PeerRun({}, {}, {"model_n_params": PARAMETERS // 10}, {})]

    assert implausible(measured, "fake", 1) == {}
    assert {ratio["same_model_size"] for ratio in report_of(measured)["ratios"]} == {False}


@pytest.mark.parametrize("embeddings", [1, 2])
def test_a_tied_head_may_be_counted_twice(embeddings):
    """Some count the embedding again as the head: still the same model."""
    measured = made({"decode/0": [1.0]}, {"decode/0": [1.0]})
    size = ternary_weights(INFO) + embeddings * INFO["vocab_size"] * INFO["hidden_size"]
    measured.peers["fake", 1] = [PeerRun({}, {}, {"model_n_params": size}, {})]

    assert [ratio["same_model_size"] for ratio in report_of(measured)["ratios"]] == [True]


def test_a_peer_that_fails_is_left_out_and_the_rest_goes_on(options, against):
    """The reason is in the report; edgebit and the other peer have all their rounds."""
    peers = (parse_peer(against("fails", name="bad")), parse_peer(against(name="good")))
    measured = measure(replace(options, threads=(1,), peers=peers, contexts=(0,), sequences=()))
    report = make_report(measured, model_name="small", command=[])

    Draft202012Validator(SCHEMA).validate(report)
    assert [engine["name"] for engine in report["engines"]] == ["edgebit", "good"]
    assert [(failure["name"], failure["threads"]) for failure in report["failures"]] == [("bad", 1)]
    assert "exit code 3" in report["failures"][0]["reason"]


def test_isa_is_masked_and_an_unknown_one_is_an_error(options):
    """The worker says which levels there are."""
    small = replace(options, threads=(1,), rounds=1, contexts=(0,), sequences=(), prefill=(4,), kv="int8")
    report = make_report(measure(replace(small, isa="scalar")), model_name="small", command=[])
    assert report["edgebit"]["isa"] == "scalar"
    assert report["settings"]["kv"] == "int8"

    with pytest.raises(EngineError, match="'quantum' is not known"):
        measure(replace(small, isa="quantum"))


def test_a_damaged_model_is_an_error_and_not_a_dead_process(options, tmp_path):
    """In the engine's own words."""
    damaged = tmp_path / "damaged.ebm"
    damaged.write_bytes(options.model.path.read_bytes()[:1000])
    with pytest.raises(EngineError, match=r"damaged\.ebm"):
        measure(replace(options, model=locate_model(damaged)))


INFO = {
    "hidden_size": 256, "ffn_size": 512, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 64,
    "vocab_size": 1000, "context_max": 64, "weight_bytes": 1 << 30, "bytes_per_token": 1_000_000_000,
}  # fmt: skip
PARAMETERS = ternary_weights(INFO) + 256 * 1000


def made(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> Measurement:
    """A measurement as it might have come out, with limits that are far away."""
    measured = Measurement(
        BenchOptions(
            model=locate_model(Path(__file__)), context_max=64, threads=(1,), contexts=(0,), prefill=(8,),
        ),
        facts={"info": INFO, "kv_bytes_per_token": 2e6, "isa": "scalar", "isa_names": ["scalar"],
               "library_version": "0"},
    )  # fmt: skip
    rounds = range(len(next(iter(ours.values()))))
    measured.series["machine", 1] = {"int8": [1e12 for _ in rounds], "int8_any": [1e12 for _ in rounds],
                                     "read": [1e12 for _ in rounds]}  # fmt: skip
    decodes = [figure.removeprefix("decode/") for figure in ours if figure.startswith("decode/")]
    measured.series["edgebit", 1] = {
        f"{plane}/{size}": [0.0 for _ in rounds] for size in decodes for plane in HEAD_PLANES
    } | ours
    if theirs:
        measured.series["fake", 1] = theirs
    return measured


def report_of(measured: Measurement) -> dict:
    return make_report(measured, model_name="made", command=[])


def test_ctrl_c_ends_the_bench_at_once(monkeypatch):
    """Nothing waits for what a worker computes."""
    ended = []
    wait = asked_process.subprocess.Popen.wait
    monkeypatch.setattr(asked_process, "_START", "import time; print('{{}}', flush=True); time.sleep(60)")
    monkeypatch.setattr(asked_process.subprocess.Popen, "wait", lambda process: ended.append(wait(process)))

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(BenchOptions(model=None, context_max=64, threads=(1,)), interrupt)
    assert ended == [-signal.SIGKILL]
