"""Plans: bytes are exact, memory is what an engine takes, and what does not fit is told what would."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from edgebit.bundle.model_format import (
    PER_ROW,
    PER_TENSOR,
    PROJECTIONS,
    ActivationQuantisation,
    Encoding,
    Granularity,
    Norms,
    Role,
    Scaling,
)
from edgebit.bundle.model_reader import ModelFile
from edgebit.cli.plan import command
from edgebit.convert import convert
from edgebit.errors import BundleError, CheckpointError, TargetError
from edgebit.footprint import KV_TYPES, LOW_PLANES
from edgebit.plan import host_check
from edgebit.plan.adapter_memory import adapter_facts_of
from edgebit.plan.device_plan import ENERGY_CLASSES, MIB, SYSTEM_BYTES, PlanOptions, energy_class, make_plan, make_plans
from edgebit.plan.host_check import check_plan, measure_host
from edgebit.plan.model_facts import facts_of
from edgebit.roofline import Machine, Range, machine_of
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.synthesize import synthesize
from edgebit.targets import find_target, host_target
from tests.kernels.random_adapter import random_adapter
from tests.kernels.tiny_model import TinyModel, tiny_conf

REFERENCES = ["bitnet-packed", "bitnet-packed-odd-untied", "bitnet-bf16"]
SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "schemas" / "plan.json").read_text())


def plan_2b4t(name, **options):
    (plan,) = make_plans(facts_of("2b4t"), find_target(name), PlanOptions(**options))
    return plan


@pytest.fixture(scope="module")
def tiny(native, tmp_path_factory):
    """A model file of the tiny shape."""
    folder = tmp_path_factory.mktemp("tiny")
    synthesize("tiny", folder / "checkpoint")
    convert(folder / "checkpoint", folder / "tiny.ebm")
    return folder / "tiny.ebm"


# BitNet 2B-4T: 2,084,044,800 ternary weights; a head of 128,256 x 2,560. Layout t1 takes five bytes for 24 weights, but
# two bits for what is left of a row's 2,560 columns after six blocks of 384.
GOLDEN = {
    "t2": {"projections": 521_012_040, "bytes_per_token": 687_972_424},
    "t1": {"projections": 440_648_520, "bytes_per_token": 607_608_904},
}


@pytest.mark.parametrize("target", ["rpi4", "rpi5"])
@pytest.mark.parametrize("layout", GOLDEN)
def test_the_bytes_of_2b4t_are_exact(target, layout):
    """What a decode step reads, and what memory holds."""
    plan = plan_2b4t(target, layout=layout, context=2048)

    assert plan.memory["projections"] == GOLDEN[layout]["projections"]
    assert plan.memory["head"] == 128_256 * (2560 // 2 + 4 + 4)  # a bound and a scale a row
    assert plan.memory[LOW_PLANES] == 128_256 * (2560 // 2 + 4)
    assert plan.memory["KV cache"] == 2048 * 76_800
    assert plan_2b4t(target, kv="int8").memory["KV cache"] == 2048 * 2 * 30 * 5 * (128 + 4)
    assert plan.bytes_per_token == GOLDEN[layout]["bytes_per_token"]
    assert plan.memory_bytes == sum(plan.memory.values())


def test_speed_is_bytes_by_bandwidth_where_memory_bounds_it():
    """On a Pi 4, whose figure for the memory is far below what its cores compute."""
    target = find_target("rpi4")
    bound = dataclasses.replace(machine_of(target), weights_s={})

    plan = make_plan(facts_of("2b4t"), target, PlanOptions(layout="t2"), bound)

    low, high = target.read_gb_s
    assert plan.decode.tokens_s == pytest.approx(
        Range(0.85e9 * low / plan.bytes_per_token, 1e9 * high / plan.bytes_per_token)
    )
    assert plan.decode_full.tokens_s.low < plan.decode.tokens_s.low


def test_a_pi_5_is_faster_than_a_pi_4_and_that_than_a_pi_3():
    """And rpi stands for them, and for the Zero 2 W, whose memory is the Pi 3's."""
    plans = make_plans(facts_of("2b4t"), find_target("rpi"), PlanOptions())

    assert [plan.target.name for plan in plans] == ["rpi-zero2w", "rpi3", "rpi4", "rpi5"]
    assert plans[1].decode.tokens_s.high < plans[2].decode.tokens_s.high < plans[3].decode.tokens_s.high
    assert plans[0].prefill.tokens_s.high < plans[1].prefill.tokens_s.high


def test_what_does_not_fit_is_told_what_would():
    """2B-4T with 2,048 tokens needs more than a Pi 4 of 1 GB has; with 2 GB it fits."""
    small, larger = plan_2b4t("rpi4"), plan_2b4t("rpi4", memory_mib=2048)

    assert (small.fits, larger.fits) == (False, True)
    assert small.available_bytes == 1024 * MIB - SYSTEM_BYTES
    assert any("MiB of RAM at least" in note for note in small.notes)
    assert any("greedy answers would fit" in note for note in small.notes)


def test_the_least_change_that_fits_is_named_and_does_fit():
    """A shorter KV cache type first; what the note says is what a plan with it says."""
    needed = plan_2b4t("rpi5").memory_bytes
    tight = {"memory_mib": (needed + SYSTEM_BYTES) // MIB - 40}

    refused = plan_2b4t("rpi5", **tight)
    followed = plan_2b4t("rpi5", kv="int8", **tight)

    assert refused.fits is False
    assert any(note.startswith("it would fit with --kv int8 (") for note in refused.notes)
    assert followed.fits is True
    assert not any("fit" in note for note in followed.notes)


def test_nothing_is_made_up_for_a_target_without_figures():
    """Memory is still counted; speed, energy and fit are not known, and the notes say why."""
    plan = plan_2b4t("linux-x86_64")

    assert (plan.decode, plan.prefill, plan.joules_per_token, plan.energy_class, plan.fits) == (None,) * 5
    assert plan.memory_bytes > 800 * MIB
    assert any("read_gb_s" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("toml", "decode", "joules"),
    [
        ("read_gb_s = [4, 5]\n", True, False),
        ("idle_w = 2\nload_w = 4\n", False, False),
        ("cores = 4\nread_gb_s = [4, 5]\nidle_w = 2\nload_w = 4\n", True, True),
        ("clock_ghz = 1.0\n[cycles_per_weight]\ngemv_t2 = 0.1\n", False, False),
        ("cores = 4\nclock_ghz = 1e-6\nread_gb_s = [1e-6, 1e-6]\nmemory_mib = 1\n", True, False),
    ],
)
def test_targets_of_all_kinds_of_completeness(tmp_path, toml, decode, joules):
    """Each figure may be missing; a plan is made of what there is."""
    path = tmp_path / "board.toml"
    path.write_text('description = "x"\ntriple = "aarch64-linux-gnu"\n' + toml)

    (plan,) = make_plans(facts_of("tiny"), find_target(str(path)), PlanOptions())

    assert ((plan.decode is not None), (plan.joules_per_token is not None)) == (decode, joules)


def test_energy_is_power_by_speed():
    """With all cores the device takes load_w; with one, a quarter of the way from idle_w."""
    target = find_target("rpi5")
    every, one = plan_2b4t("rpi5"), plan_2b4t("rpi5", threads=1)

    assert every.joules_per_token.low * every.decode.tokens_s.high == pytest.approx(target.load_w)
    watts = target.idle_w + (target.load_w - target.idle_w) / 4
    assert one.joules_per_token.high * one.decode.tokens_s.low == pytest.approx(watts)


def test_energy_classes():
    """A is up to 0.25 J a token, and so on by doubling; the last has no end."""
    assert [energy_class(most) for most in ENERGY_CLASSES.values()] == list(ENERGY_CLASSES)
    assert (energy_class(0.01), energy_class(0.2501), energy_class(1e9)) == ("A", "B", "F")


def test_a_longer_context_than_the_models_is_refused():
    """With both numbers."""
    with pytest.raises(TargetError, match=r"5000 tokens.*4096"):
        plan_2b4t("rpi5", context=5000)


@pytest.mark.parametrize("name", ["nope", "no/such/folder", "2B4T"])
def test_what_is_no_model_is_refused(name, tmp_path, monkeypatch):
    """With what would be one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="there is no model"):
        facts_of(name)


@pytest.mark.parametrize("layout", ["t2", "t1"])
@pytest.mark.parametrize("embedding", ["exact", "int8"])
@pytest.mark.parametrize("name", REFERENCES)
def test_bytes_are_those_of_the_model_file(native, reference_checkpoint, tmp_path, name, embedding, layout):
    """Tensor by tensor, as the converter writes them; and a decode step reads what the engine says it reads."""
    path = tmp_path / "model.ebm"
    convert(reference_checkpoint(name), path, layout=layout, embedding=embedding, probes=False)
    facts = facts_of(str(path))
    footprint = facts.footprint(facts.layout)

    assert facts.layout == layout
    with ModelFile(path) as file:
        for tensor in file.tensors:
            assert footprint.tensor_bytes(tensor.role, tensor.layer) == tensor.size + 4 * tensor.n_scales, tensor.name
    with Model.open(native, path) as model:
        assert sum(part.n_bytes for part in footprint.decode_parts(0, "f16")) == model.info.bytes_per_token


GROUPED = {"hidden_size": 192, "ffn_size": 320, "n_heads": 32, "n_kv_heads": 1, "head_dim": 6, "n_layers": 3}
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rows": ({"activation_quantisation": ActivationQuantisation.INT15}, {"scaling": PER_ROW}),
    "groups": (GROUPED, {"scaling": Scaling(Granularity.GROUP, 64), "embedding": Encoding.F16}),
    "groups-in-places": (
        GROUPED | {"norms": Norms(15), "projection_norm_eps": 1e-3},
        {
            "scaling": lambda role, layer: Scaling(Granularity.GROUP, 64) if (role.value + layer) % 2 else PER_TENSOR,
            "layout": Encoding.T1,
        },
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_bytes_of_every_form_are_those_of_the_model_file(native, tmp_path, form):
    """Scales by row and by group, of all projections or of some; and what they add to the engine's scratch memory."""
    changes, options = FORMS[form]
    plain = {**changes, "norms": Norms(0), "projection_norm_eps": 0.0}
    plain["activation_quantisation"] = ActivationQuantisation.INT8
    scratch, arena = [], []
    for name, tiny in (("plain", TinyModel(tiny_conf(**plain))), (form, TinyModel(tiny_conf(**changes), **options))):
        path = tmp_path / f"{name}.ebm"
        path.write_bytes(tiny.to_bytes())
        facts = facts_of(str(path))
        assert facts.layout is not None
        footprint = facts.footprint(facts.layout)
        with ModelFile(path) as file:
            for tensor in file.tensors:
                n_bytes = tensor.size + 4 * tensor.n_scales
                assert footprint.tensor_bytes(tensor.role, tensor.layer) == n_bytes, tensor.name
        with Model.open(native, path) as model, Engine(model, ctx_len=200, threads=2) as engine:
            assert sum(part.n_bytes for part in footprint.decode_parts(0, "f16")) == model.info.bytes_per_token
            arena.append(engine.stats().arena_bytes)
        scratch.append(footprint.scratch_bytes(200, 2))
    assert facts.needs_t2 == (form == "groups")
    assert arena[1] > arena[0]
    assert scratch[1] - scratch[0] == pytest.approx(arena[1] - arena[0], rel=0.125, abs=2048)


def test_a_checkpoint_gives_the_plan_of_its_model_file(reference_checkpoint, reference_model):
    """But for the tokenizer, whose size is estimated."""
    before = facts_of(str(reference_checkpoint("bitnet-packed")))
    after = facts_of(str(reference_model("bitnet-packed")))

    assert before.layout is None
    assert before.footprint("t2").ternary_bytes == after.footprint("t2").ternary_bytes
    assert before.embedding == after.embedding
    assert before.other_bytes == pytest.approx(after.other_bytes, rel=1)


@pytest.mark.parametrize(("context", "threads", "rows"), [(64, 1, 1), (512, 2, 5), (2048, 4, 9)])
def test_scratch_memory_is_the_engines(native, tiny, context, threads, rows):
    """Within an eighth, or 64 KiB, of what the engine itself says it allocated."""
    footprint = facts_of(str(tiny)).footprint("t2")

    with (
        Model.open(native, tiny) as model,
        Engine(model, ctx_len=context, threads=threads, logits_rows=rows) as engine,
    ):
        stats = engine.stats()

    assert footprint.scratch_bytes(context, threads, rows) == pytest.approx(stats.arena_bytes, rel=0.125, abs=65536)


@pytest.mark.parametrize("roles", [(Role.Q_PROJ, Role.DOWN_PROJ), PROJECTIONS])
def test_adapters_take_what_the_engine_does(native, tiny, tmp_path, roles):
    """Their files with the room that is kept for them, and to the byte the buffers of two that were both set."""
    facts = facts_of(str(tiny))
    with Model.open(native, tiny) as model, Engine(model, ctx_len=64, threads=1, sequences=2) as engine:
        files = [
            random_adapter(model, facts.conf, seed=1, rank=3, roles=roles).pack(),
            random_adapter(model, facts.conf, seed=2, rank=12, roles=roles[:1]).pack(),
        ]
        paths = [tmp_path / "wide.adapter", tmp_path / "narrow.adapter"]
        for path, file in zip(paths, files, strict=True):
            path.write_bytes(file)
        found = [adapter_facts_of(path, facts.conf) for path in paths]
        before = engine.stats().arena_bytes
        for sequence, file in enumerate(files):
            engine.set_adapter(sequence, Adapter.open(native, model, file))
        taken = engine.stats().arena_bytes - before

    options = PlanOptions(adapters=tuple(found))
    (plan,), (bare,) = (make_plans(facts, find_target("rpi5"), wish) for wish in (options, PlanOptions()))
    assert plan.memory["side paths"] == taken
    assert plan.memory["adapters"] == sum(map(len, files)) + 2 * 56 * 7 * facts.conf.n_layers
    assert plan.memory_bytes == bare.memory_bytes + plan.memory["side paths"] + plan.memory["adapters"]
    assert not {"adapters", "side paths"} & bare.memory.keys()


def test_an_adapter_of_another_shape_is_refused(native, tiny, tmp_path):
    """Before anything is planned, with what it has and the model has not."""
    facts, path = facts_of(str(tiny)), tmp_path / "garden.adapter"
    with Model.open(native, tiny) as model:
        path.write_bytes(random_adapter(model, facts.conf, rank=2, roles=(Role.O_PROJ,)).pack())
    planned = json.loads(run(str(tiny), "--target", "rpi5", "--adapter", str(path), "--json").output)

    jsonschema.validate(planned, SCHEMA)
    assert planned["plans"][0]["memory"]["adapters"] > path.stat().st_size
    with pytest.raises(BundleError, match=r"garden\.adapter: it has layer 0, role O_PROJ"):
        adapter_facts_of(path, facts_of("2b4t").conf)


@pytest.mark.parametrize("kv", KV_TYPES)
@pytest.mark.parametrize("context", [16, 100, 129])
def test_the_kv_cache_is_the_engines(native, reference_model, kv, context):
    """To the byte, in whole groups of positions."""
    path = reference_model("bitnet-packed-odd-untied")
    footprint = facts_of(str(path)).footprint("t2")

    with Model.open(native, path) as model, Engine(model, ctx_len=context, kv=kv) as engine:
        assert footprint.kv_bytes(kv, context) == engine.stats().kv_bytes


class FakeLibrary:
    """Measures what it is told to."""

    def __init__(self, reads, products):
        self.reads, self.products, self.asked = reads, products, []

    def measure_read(self, threads, n_bytes):
        self.asked.append(threads)
        return self.reads[threads].pop(0)

    def measure_int8(self, threads):
        return self.products


def test_the_host_is_what_it_is_measured_to_be(monkeypatch):
    """One core and all cores, without the extremes of the rounds, and the int8 peak as the bound of prefill."""
    monkeypatch.setattr(host_check, "default_threads", lambda: 2)
    fake = FakeLibrary({2: [1e9, 20e9, 22e9, 21e9, 99e9], 1: [11e9, 12e9, 1e9, 99e9, 10e9]}, 100e9)

    target, machine = measure_host(fake)

    assert (target.name, target.cores, target.read_gb_s, target.read_core_gb_s) == ("host", 2, (20, 22), (10, 12))
    assert machine.read_bytes_s == pytest.approx((0.85 * 20e9, 22e9))
    assert machine.weights_s["gemm_c8"] == pytest.approx((60e9, 100e9))
    plan = make_plan(facts_of("2b4t"), target, PlanOptions(), machine)
    assert plan.threads == 2
    assert plan.prefill.bounds == {"projections": "cycles"}


@pytest.mark.parametrize("kv", KV_TYPES)
def test_a_prediction_is_checked_on_this_machine(native, tiny, kv, monkeypatch):
    """A real, short run with the plan's own KV cache: prefill, decode and RAM, each with its ratio."""
    facts, opened = facts_of(str(tiny)), []

    def open_engine(*args, **options):
        opened.append(Engine(*args, **options))
        return opened[-1]

    machine = Machine(cores=1, read_bytes_s=Range(1e9, 2e9), weights_s={"gemm_c8": Range(1e9, 2e9)})
    plan = make_plan(facts, host_target(), PlanOptions(context=256, threads=1, kv=kv), machine)
    monkeypatch.setattr(host_check, "Engine", open_engine)
    held = iter([100 * MIB, 104 * MIB])  # this process's own moves with whatever ran before in it
    monkeypatch.setattr(host_check, "rss_bytes", lambda: next(held))

    checked = check_plan(plan, facts, machine, native, seconds=0.3)

    assert [engine.kv for engine in opened] == [kv]
    assert checked.context == 128
    assert checked.prefill.predicted == plan.prefill.tokens_s
    assert checked.memory.measured == 4 * MIB
    for check in (checked.decode, checked.prefill, checked.memory):
        assert check.predicted.low <= check.predicted.high
        assert check.ratio == pytest.approx(check.measured / check.predicted.middle)
        assert check.ratio > 0
        assert check.within == (check.predicted.low <= check.measured <= check.predicted.high)


def test_more_threads_than_cores_are_no_faster_and_said_so():
    """What nobody wants is not answered in silence."""
    four, many = plan_2b4t("rpi5", threads=4), plan_2b4t("rpi5", threads=64)

    assert many.decode.tokens_s == four.decode.tokens_s
    assert any("64 threads are more than the 4 cores" in note for note in many.notes)
    assert not any("threads" in note for note in four.notes)


def test_all_targets_and_one_are_two_wishes():
    """Neither is dropped in silence."""
    done = CliRunner().invoke(command, ["2b4t", "--all", "--target", "rpi5"])

    assert done.exit_code == 2
    assert "leave one of them out" in done.output


def test_a_check_keeps_to_the_schema_and_is_shown(native, tiny, monkeypatch):
    """All three, for programs and for people."""
    machine = Machine(cores=1, read_bytes_s=Range(1e9, 2e9), weights_s={"gemm_c8": Range(1e9, 2e9)})
    monkeypatch.setattr("edgebit.cli.plan.measure_host", lambda library: (host_target(), machine))
    monkeypatch.setattr("edgebit.cli.plan.check_plan", functools.partial(check_plan, seconds=0.2))

    found = json.loads(run(str(tiny), "--check", "--json").output)
    said = run(str(tiny), "--check").output

    jsonschema.validate(found, SCHEMA)
    assert None not in found["check"].values()
    assert all(words in said for words in ("prefill, tok/s", "decode after 128 tokens, tok/s", "RAM, MiB"))


def test_only_a_file_can_be_checked(native):
    """A shape has no weights to run."""
    facts = facts_of("tiny")
    plan = make_plan(facts, find_target("rpi5"), PlanOptions(), machine_of(find_target("rpi5")))

    with pytest.raises(TargetError, match="edgebit build"):
        check_plan(plan, facts, machine_of(find_target("rpi5")), native)


def run(*args):
    return CliRunner().invoke(command, list(args), catch_exceptions=False)


@pytest.mark.parametrize("args", [("--target", "rpi5"), ("--target", "rpi", "--target", "linux-x86_64"), ("--all",)])
def test_json_keeps_to_its_schema(args):
    """docs/schemas/plan.json, whatever is known of the targets."""
    found = json.loads(run("2b4t", *args, "--json").output)

    jsonschema.validate(found, SCHEMA)
    assert len(found["plans"]) >= len(args) // 2


def test_people_get_the_same_with_sources():
    """The table, the reasons, and that it is an estimate."""
    output = run("2b4t", "--target", "rpi5").output

    assert "rpi5" in output
    assert "Estimates, not measurements" in output
    assert "sbc-bench" in output
    assert "layout t1, 4 threads:" in output


def test_check_is_for_this_machine():
    """Another cannot be measured from here."""
    done = CliRunner().invoke(command, ["2b4t", "--target", "rpi5", "--check"])

    assert done.exit_code == 2
    assert "--check is for this machine" in done.output


def test_an_unknown_model_ends_without_a_traceback():
    """One line, and the exit code of a checkpoint's fault."""
    done = subprocess.run(
        [sys.executable, "-m", "edgebit", "plan", "nope"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 4
    assert done.stderr.startswith("Error: there is no model 'nope'")
    assert "2b4t" in done.stderr


def test_every_projection_is_in_the_sum():
    """Ternary weights of 2B-4T, as its checkpoint has them."""
    footprint = facts_of("2b4t").footprint("t2")

    assert footprint.ternary_weights == 2_084_044_800
    assert footprint.ternary_bytes == sum(30 * footprint.tensor_bytes(role) for role in PROJECTIONS)
    assert footprint.tensor_bytes(Role.HEAD) == footprint.head_high_bytes + footprint.head_low_bytes


def test_a_file_is_planned_as_it_is_and_told_of_the_faster_layout(tiny):
    """The Pi 5 would take the dense one; of a target without figures nothing is said."""
    (known,) = make_plans(facts_of(str(tiny)), find_target("rpi5"), PlanOptions())
    (unknown,) = make_plans(facts_of(str(tiny)), find_target("linux-x86_64"), PlanOptions())

    assert (known.layout, unknown.layout) == ("t2", "t2")
    assert "t1 would be faster" in known.layout_reason
    assert "faster" not in unknown.layout_reason


@pytest.mark.parametrize("columns", ["80", "50"])
def test_no_figure_is_cut(monkeypatch, columns):
    """In a pipe and on a narrow terminal; and of a small number there are enough digits."""
    piped = run("tiny", "--target", "rpi").output
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": columns}.items():
        monkeypatch.setenv(name, value)
    shown = run("tiny", "--target", "rpi").output

    for said in (piped, shown):
        assert "…" not in said
        assert "46 of 1,792" in said
        assert "A 0.0013-0.0017" in said
    assert "13856-21306" in piped


def test_the_table_of_2b4t_fits_into_80_columns(monkeypatch):
    """A row for a device, as it is in a pipe."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)

    rows = [line for line in run("2b4t", "--target", "rpi").output.splitlines() if line.startswith("rpi5 ")]

    assert len(rows) == 1 and "997 of 1,792" in rows[0]
