"""Tuning: what is chosen from figures is a table; what is measured is bounded; what is written keeps all else."""

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace

import pytest
from click.testing import CliRunner

from edgebit import pyz
from edgebit.cli.tune import command
from edgebit.convert import convert
from edgebit.daemon.__main__ import main
from edgebit.daemon.tune import (
    BATCH_LENS,
    ROUNDS,
    SCENARIOS,
    Limits,
    Row,
    Setting,
    answer_seconds,
    choose,
    engine_settings,
    layout_advice,
    lines,
    thread_counts,
    tune,
    tune_and_write,
)
from edgebit.errors import ConfigError
from edgebit.runtime.engine import Engine
from edgebit.runtime.model import Model
from edgebit.runtime.speed import Speed, measure_speed
from edgebit.synthesize import synthesize

MIB = 1 << 20
BASE = Setting(threads=1, kv="f16", batch_len=128, ctx_len=2048)


class FakeMeter:
    """A device with four cores: decode is bound by memory from `knee` threads on, prefill grows with threads."""

    layout = "t2"
    ctx_len = 2048
    memory_bytes = 4096 * MIB

    def __init__(self, cores=4, knee=3, kv_gain=1.0, batch_best=128, weights_mib=600, share=0.5):
        self.cores, self.knee, self.kv_gain, self.batch_best = cores, knee, kv_gain, batch_best
        self.weights_mib, self.share = weights_mib, share
        self.asked, self.budget_s = [], 0.0

    def memory_of(self, setting):
        kv_kib = {"f16": 75, "int8": 38}[setting.kv]
        return self.weights_mib * MIB + setting.ctx_len * kv_kib * 1024 + setting.batch_len * 100 * 1024

    def speed(self, setting, scenario, budget_s):
        self.asked.append(setting)
        self.budget_s += budget_s
        gain = self.kv_gain if setting.kv == "int8" else 1.0
        prefill = 20.0 * setting.threads * (1.0 if setting.batch_len == self.batch_best else 0.8)
        decode = 5.0 * min(setting.threads, self.knee) * gain
        return Speed(prefill_tok_s=prefill, decode_tok_s=decode, context=scenario.prompt)

    def memory_share(self, setting, speed):
        return self.share


def row(seconds, **setting):
    return Row(
        key=next(iter(setting)),
        setting=replace(BASE, **setting),
        speed=Speed(prefill_tok_s=1, decode_tok_s=1, context=1),
        seconds=seconds,
        rounds=(seconds,),
        memory_bytes=0,
    )


@pytest.mark.parametrize(
    ("goal", "rows", "chosen"),
    [
        ("speed", [row(10, threads=1), row(5, threads=2), row(3, threads=4)], 4),
        ("speed", [row(10, threads=1), row(5, threads=2), row(4.9, threads=4)], 2),  # no finer than noise
        ("speed", [row(10, threads=1), row(5, threads=2), row(5.5, threads=4)], 2),
        (
            "efficiency",
            [row(10, threads=1), row(6, threads=2), row(4, threads=4)],
            2,
        ),  # 1: too slow
        ("efficiency", [row(10, threads=1), row(9, threads=2), row(8, threads=4)], 1),
        ("efficiency", [row(10, threads=1), row(4, threads=2), row(3.9, threads=4)], 2),
        ("efficiency", [row(10, threads=1), row(5, threads=2)], 2),  # at the same cost the faster
        ("speed", [row(10, kv="f16"), row(9.8, kv="int8")], "f16"),
        ("speed", [row(10, kv="f16"), row(9.0, kv="int8")], "int8"),
        ("speed", [row(10, kv="int8")], "int8"),
        ("speed", [row(10, batch_len=64), row(9.9, batch_len=16), row(9.8, batch_len=256)], 16),
        ("speed", [row(10, batch_len=64), row(12, batch_len=16), row(8, batch_len=256)], 256),
    ],
)
def test_what_is_chosen(goal, rows, chosen):
    """The fastest, but for what costs more and gains nothing; with a reason that names it."""
    found, reason = choose(rows, goal)

    assert found.value == chosen
    assert reason.startswith(f"{rows[0].key} {chosen}:")


def test_int8_must_win_every_round():
    """It changes answers, so a disturbed round must not bring it in."""
    exact, other = row(10, kv="f16"), row(8, kv="int8")

    won_once = [replace(exact, rounds=(10, 12)), replace(other, rounds=(10, 8))]
    won_always = [replace(exact, rounds=(10, 12)), replace(other, rounds=(8, 8))]

    assert [choose(rows, "speed")[0].value for rows in (won_once, won_always)] == ["f16", "int8"]


def test_an_answer_is_a_prompt_and_its_continuation():
    """Each at its own speed."""
    speed = Speed(prefill_tok_s=100, decode_tok_s=10, context=1)

    assert answer_seconds(speed, SCENARIOS["edge"]) == pytest.approx(128 / 100 + 128 / 10)
    assert answer_seconds(speed, SCENARIOS["server"]) == pytest.approx(512 / 100 + 128 / 10)


@pytest.mark.parametrize(("most", "counts"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (10, [1, 2, 3, 4, 6, 8, 10])])
def test_thread_counts(most, counts):
    """All of a few, steps among many, and always the most that is allowed."""
    assert thread_counts(most) == counts


@pytest.mark.parametrize(
    ("scenario", "limits", "expected"),
    [
        ("edge", Limits(), 4),  # prefill still grows
        ("edge", Limits(threads=2), 2),
        ("mobile", Limits(), 2),  # half of the cores
        ("mobile", Limits(threads=1), 1),
        ("cloud", Limits(), 4),
    ],
)
def test_threads_keep_to_scenario_and_limits(scenario, limits, expected):
    """No thread count above what is allowed is even tried."""
    meter = FakeMeter()

    tuning = tune(scenario, meter, limits)

    assert tuning.setting.threads == expected
    assert max(setting.threads for setting in meter.asked) <= (limits.threads or 4)


def test_a_long_prompt_takes_more_threads_than_a_short_one():
    """What tells the scenarios apart: a fourth thread is worth it for prefill alone."""
    tunings = {name: tune(name, FakeMeter(knee=1), Limits()) for name in ("edge", "server", "cloud")}

    assert {name: tuning.setting.threads for name, tuning in tunings.items()} == {"edge": 3, "server": 4, "cloud": 4}
    assert any("an hour, the fastest" in reason for reason in tunings["server"].reasons)


def test_each_stage_takes_the_best_of_the_one_before():
    """Threads, then the KV type, then the batch; each candidate in every round."""
    meter = FakeMeter(kv_gain=1.5, batch_best=64)

    tuning = tune("edge", meter, Limits())

    assert tuning.setting == Setting(threads=4, kv="int8", batch_len=64, ctx_len=2048)
    assert len(meter.asked) == ROUNDS * (4 + 2 + len(BATCH_LENS))
    assert meter.asked[: 4 * ROUNDS] == [replace(BASE, threads=n) for n in (1, 2, 3, 4)] * ROUNDS
    assert {setting.kv for setting in meter.asked[-len(BATCH_LENS) :]} == {"int8"}


def test_measuring_is_bounded():
    """All measurements share the time that is given."""
    meter = FakeMeter()

    tune("server", meter, Limits(seconds=12))

    assert meter.budget_s == pytest.approx(12)


def test_a_slow_device_gets_one_round():
    """When the time is over, what has a figure is not measured again; what has none still is."""
    meter, now = FakeMeter(), iter(range(0, 10_000, 30))

    tuning = tune("edge", meter, Limits(seconds=40), clock=lambda: next(now))

    assert len(meter.asked) < ROUNDS * (4 + 2 + len(BATCH_LENS))
    assert len(tuning.rows) == 4 + 2 + len(BATCH_LENS)


def test_a_disturbed_round_does_not_decide():
    """The better of two rounds counts."""

    class Disturbed(FakeMeter):
        def speed(self, setting, scenario, budget_s):
            speed = super().speed(setting, scenario, budget_s)
            return replace(speed, decode_tok_s=0.1) if self.asked.count(setting) == 1 else speed

    assert tune("edge", Disturbed(), Limits()).setting == tune("edge", FakeMeter(), Limits()).setting


def test_memory_takes_int8_and_then_a_shorter_context():
    """600 MiB of weights with 150 MiB of f16 cache at 2,048 tokens: what fits is taken, and the reason says so."""
    roomy = tune("edge", FakeMeter(), Limits(memory_mib=800))
    tight = tune("edge", FakeMeter(), Limits(memory_mib=690))
    tightest = tune("edge", FakeMeter(), Limits(memory_mib=640))

    assert (roomy.setting.kv, roomy.setting.ctx_len, roomy.shortened) == ("f16", 2048, False)
    assert (tight.setting.kv, tight.setting.ctx_len) == ("int8", 2048)
    assert any("kv f16 would take" in reason for reason in tight.reasons)
    assert (tightest.setting.ctx_len, tightest.shortened) == (512, True)
    assert engine_settings(tightest)["ctx_len"] == 512
    assert "ctx_len" not in engine_settings(roomy)


def test_what_cannot_fit_is_refused():
    """With the limit, what it takes, and what to do."""
    with pytest.raises(ConfigError, match=r"limit of 500 MiB is too small.*256 tokens.*--memory-max"):
        tune("edge", FakeMeter(), Limits(memory_mib=500))


@pytest.mark.parametrize(
    ("layout", "share", "words"),
    [
        ("t2", 0.9, "t1 has about 15 % fewer bytes"),
        ("t2", 0.5, "nothing speaks for another"),
        ("t1", 0.4, "t2 takes fewer cycles"),
        ("t1", 0.9, "nothing speaks for another"),
        ("t2", 2.0, "in a cache"),
    ],
)
def test_layout_advice(layout, share, words):
    """A layout cannot be changed here, so the other one is only named where it would be faster."""
    assert words in layout_advice(layout, share)


def test_lines_hold_table_and_reasons():
    """Every row that was measured, the chosen one marked."""
    tuning = tune("edge", FakeMeter(), Limits())

    text = "\n".join(lines(tuning))

    assert text.count("f16") >= len(tuning.rows) - 1
    assert [line for line in text.splitlines() if line.startswith("threads") and "4 *" in line]
    assert all(reason in text for reason in tuning.reasons)


@pytest.fixture(scope="module")
def tiny(native, tmp_path_factory):
    """A model file of the tiny shape."""
    folder = tmp_path_factory.mktemp("tiny")
    synthesize("tiny", folder / "checkpoint")
    convert(folder / "checkpoint", folder / "tiny.ebm")
    return folder / "tiny.ebm"


@pytest.mark.parametrize(("prompt", "ctx_len"), [(64, 128), (500, 96), (1, 9)])
def test_measuring_an_engine(native, tiny, prompt, ctx_len):
    """Short contexts and long prompts: figures come out, and nothing overflows."""
    with Model.open(native, tiny) as model, Engine(model, ctx_len=ctx_len) as engine:
        speed = measure_speed(engine, prompt=prompt, batch_len=32, budget_s=0.05)

    assert speed.prefill_tok_s > 0
    assert speed.decode_tok_s > 0
    assert 1 <= speed.context <= ctx_len


def test_a_measured_prefill_computes_the_head_once_a_prompt(native, tiny):
    """As a session's does; a decode step has it each time."""
    calls = []
    with Model.open(native, tiny) as model, Engine(model, ctx_len=128) as engine:
        compute = engine.eval_batch

        def watch(tokens, sequences, want_logits=None, *, n_best=0):
            calls.append((len(tokens), sum(want_logits), want_logits[-1]))
            compute(tokens, sequences, want_logits, n_best=n_best)

        engine.eval_batch = watch
        measure_speed(engine, prompt=70, batch_len=32, budget_s=0.2)

    assert (32, 0, False) in calls
    assert {call for call in calls if call[0] > 1} <= {(32, 0, False), (6, 1, True)}
    assert {call for call in calls if call[0] == 1} == {(1, 1, True)}


def test_a_real_run_writes_the_configuration_once(native, tiny, tmp_path):
    """On this machine, with the daemon's own engine: other keys and comments stay, and only [engine] is touched."""
    config = tmp_path / "edgebitd.toml"
    config.write_text('# mine\n[mqtt]\nurl = "mqtt://broker"  # ours\n\n[engine]\nisa = ""  # any\nthreads = 7\n')
    said = []

    outcome = tune_and_write(tiny, "edge", Limits(threads=1, seconds=1), config, progress=said.append)

    written = tomllib.loads(config.read_text())
    assert outcome.changed
    assert written["mqtt"] == {"url": "mqtt://broker"}
    assert written["engine"] == {"isa": "", **engine_settings(outcome.tuning)}
    assert written["engine"]["threads"] == 1
    assert "# mine" in config.read_text() and "# ours" in config.read_text()
    assert any(text.startswith("threads 1") for text in said)


def test_another_engine_is_not_tuned(native, tiny, tmp_path):
    """What would be measured is not what answers; nothing is written."""
    config = tmp_path / "edgebitd.toml"
    config.write_text('[engine]\nengine = "onnx"\nonnx_folder = "."\n')
    with pytest.raises(ConfigError, match="tune measures our own engine"):
        tune_and_write(tiny, "edge", Limits(threads=1, seconds=1), config)
    assert "kv" not in config.read_text()


def test_a_link_to_the_configuration_stays_one(native, tiny, tmp_path):
    """What it leads to is written."""
    config, link = tmp_path / "own.toml", tmp_path / "link.toml"
    config.write_text("")
    link.symlink_to("own.toml")

    tune_and_write(tiny, "edge", Limits(threads=1, seconds=1), link)

    assert link.is_symlink()
    assert tomllib.loads(config.read_text())["engine"]["threads"] == 1


@pytest.mark.parametrize("write", [True, False])
def test_what_is_no_plain_file_is_left_alone(write, native, tiny, tmp_path):
    """A pipe would be waited for, a device replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(ConfigError, match="pipe is no plain file"):
        tune_and_write(tiny, "edge", Limits(threads=1, seconds=1), pipe, write=write)

    assert pipe.is_fifo()


def test_the_daemon_reads_what_was_written(native, tiny, tmp_path):
    """And opens the model with it."""
    from edgebit.daemon.config.reader import read_config
    from edgebit.daemon.serving.engine import LoadedModel

    config = tmp_path / "edgebitd.toml"
    config.write_text('[engine]\nthreads = 1\nkv = "int8"\nbatch_len = 16\n')

    loaded = LoadedModel.open(tiny, read_config(config).engine)
    try:
        assert loaded.describe()["engine"]["threads"] == 1
    finally:
        loaded.close()


def test_nothing_is_written_without_a_configuration(native, tiny, tmp_path):
    """The settings are shown instead."""
    done = CliRunner().invoke(
        command, [str(tiny), "--seconds", "1", "--threads-max", "1", "--json"], catch_exceptions=False
    )

    found = json.loads(done.output[done.output.index("{") :])
    assert (found["changed"], found["engine"]["threads"]) == (False, 1)
    assert {"threads", "kv", "batch_len", "prefill_tok_s", "decode_tok_s", "answer_s"} <= set(found["measured"][0])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--bundle", "no.ebm"], 3, "no.ebm: no such file or folder"),
        (["--bundle", "{tiny}", "--scenario", "fog"], 13, "there is no scenario 'fog'; there are mobile,"),
        (["--bundle", "{tiny}", "--threads-max", "0"], 13, "--threads-max 0"),
        (["--bundle", "{tiny}", "--memory-max", "0"], 13, "--memory-max 0"),
        (["--bundle", "{tiny}", "--seconds", "nan"], 13, "--seconds nan"),
        (["--bundle", "{tiny}", "--config", "{bad}"], 13, "unknown key 'threats'"),
        (["--bundle", "{tiny}", "--config", "{bad}.no/edgebitd.toml"], 13, "Make it: mkdir -p"),
        (["--bundle", "{tiny}", "--memory-max", "1", "--seconds", "1"], 13, "is too small"),
    ],
)
def test_what_is_refused_on_the_device(native, tiny, tmp_path, capsys, arguments, code, words):
    """In one line, before anything is measured or written."""
    bad = tmp_path / "edgebitd.toml"
    bad.write_text("[engine]\nthreats = 1\n")

    found = main(["tune", *(word.format(tiny=tiny, bad=bad) for word in arguments)])

    assert found == code
    assert words in capsys.readouterr().err
    assert bad.read_text() == "[engine]\nthreats = 1\n"


def test_the_one_file_tunes_a_device(native, tiny, tmp_path):
    """python3 edgebitd.pyz tune, with the standard library and the native library alone."""
    pyz.build_pyz(tmp_path / "edgebitd.pyz")
    config = tmp_path / "edgebitd.toml"

    done = subprocess.run(
        [sys.executable, "-I", "-S", "edgebitd.pyz", "tune", "--bundle", str(tiny), "--config", str(config),
         "--seconds", "1", "--threads-max", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "EDGEBIT_LIBRARY": str(native.path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert tomllib.loads(config.read_text())["engine"]["threads"] == 1
    assert "prefill tok/s" in done.stdout
