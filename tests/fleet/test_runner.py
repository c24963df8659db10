"""Roll-outs carried out on devices that act: what is begun, kept, taken up again, and how Ctrl-C ends it."""

import os
import signal
import threading

import pytest
from fleet.conftest import BUNDLE, ActingAgent

from edgebit.cli.rollout import show_report
from edgebit.deploy.device import has_edgebit
from edgebit.errors import DeployError
from edgebit.fleet import runner
from edgebit.fleet.journal import open_journal

WAIT_S = 60


def results(report):
    return {device.name: device.result for device in report.devices}


def test_every_device_is_reached_within_the_limits(acting_fleet):
    """Canary first, then batches, never more at once than allowed."""
    acting_fleet.acts = {"d3": "present"}

    report, heard = acting_fleet.roll_out(canary=1, batch=3, parallel=2)

    assert report.is_whole and not report.stopped
    assert results(report) == {**dict.fromkeys(["d0", "d1", "d2", "d4", "d5"], "updated"), "d3": "present"}
    assert heard.ends[0] == ("d0", "updated") and heard.begun[:1] == ["d0"]
    assert acting_fleet.most_under_way <= 2


def test_the_limit_leaves_the_rest_untouched(acting_fleet):
    """Who failed and why, and who was not tried."""
    acting_fleet.acts = {"d1": "silent", "d2": "gone"}

    report, heard = acting_fleet.roll_out(batch=1, parallel=1, max_failures=1, retries=2)

    assert report.stopped == "2 devices failed, and --max-failures is 1" and not report.interrupted
    assert results(report) == {
        "d0": "updated", "d1": "failed", "d2": "unreachable", "d3": "untried", "d4": "untried", "d5": "untried"
    }  # fmt: skip
    assert "did not answer" in report.devices[1].why and report.devices[2].tries == 3
    assert heard.begun == ["d0", "d1", "d2", "d2", "d2"]


def test_a_device_that_comes_back_is_no_failure(acting_fleet):
    """Out of reach at first, there when it is tried again."""
    answers = iter(["gone", "ok"])
    acting_fleet.acts = {"d1": lambda reporter: next(answers)}

    report, _ = acting_fleet.roll_out(retries=1)

    assert report.is_whole


def test_what_a_user_should_know_stands_in_the_report(acting_fleet, capsys):
    """Once, with the devices that it is true of."""
    acting_fleet.acts = dict.fromkeys(("d1", "d4"), lambda reporter: reporter.remark("it stops at log-out") or "ok")

    report, _ = acting_fleet.roll_out()

    show_report(report)
    assert "Note on d1, d4: it stops at log-out\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (ActingAgent(runs="fedcba9876543210"), "d1: failed; bundle fedcba9876543210 runs there\n"),
        (ActingAgent(runs=None, up=False), "d1: failed; nothing runs there\n"),
        (ActingAgent(up=False), "d1: failed; nothing runs there\n"),
        (ActingAgent(reached=False), "d1: failed; what runs there is not known\n"),
    ],
)
def test_the_report_says_what_runs_where_it_failed(acting_fleet, capsys, agent, said):
    """That nothing does, is known; of a device that is out of reach nothing is."""
    acting_fleet.acts, acting_fleet.agents = {"d1": "silent"}, {"d1": agent}

    show_report(acting_fleet.roll_out()[0])

    assert said in capsys.readouterr().out


def test_nothing_runs_where_nothing_was_ever_put(acting_fleet, monkeypatch):
    """A device that refused its first bundle."""
    monkeypatch.setattr(runner, "has_edgebit", has_edgebit)
    acting_fleet.acts = {"d1": "silent"}

    report, _ = acting_fleet.roll_out()

    assert report.devices[1].runs == ""


@pytest.mark.parametrize(
    ("acts", "limits", "said", "unsaid"),
    [
        (  # nothing was left to begin
            {"d5": "silent"},
            {},
            ["Once the cause is mended, the same command goes on with it", "build a better one"],
            ["ended early", "untouched"],
        ),
        ({"d5": "gone"}, {}, ["\nThe same command goes on with it"], ["ended early", "build a better one"]),
        (
            {"d0": "silent"},
            {"canary": 1},
            ["ended early: canary d0 failed. What was not begun is untouched", "the same command tries again"],
            ["what is done"],
        ),
        ({}, {}, [], ["ended early", "same command"]),
    ],
)
def test_the_closing_words_say_only_what_holds(acting_fleet, capsys, acts, limits, said, unsaid):
    """Of what was left to begin, and of what the same command would do."""
    acting_fleet.acts = acts

    report, _ = acting_fleet.roll_out(**limits)

    show_report(report)
    told = capsys.readouterr().out
    assert all(words in told for words in said) and not any(words in told for words in unsaid)
    assert bool(report.stopped) == ("canary" in limits)


def test_a_roll_out_goes_on_where_it_ended(acting_fleet):
    """What is done is not done again; a device of which the inventory says something new is."""
    acting_fleet.acts = {"d2": "silent"}
    acting_fleet.roll_out(parallel=1, batch=1)

    acting_fleet.acts = {}
    acting_fleet.write("[devices.d0.settings.engine]\nthreads = 2\n")
    report, heard = acting_fleet.roll_out(parallel=1, batch=1)

    assert report.is_whole
    assert heard.begun == ["d0", "d2", "d3", "d4", "d5"]
    assert results(report)["d1"] == "updated"


def test_a_whole_roll_out_is_not_taken_up(acting_fleet):
    """The same command again asks every device again; so does --fresh at any time."""
    acting_fleet.roll_out()
    _, heard = acting_fleet.roll_out()
    assert len(heard.begun) == 6

    acting_fleet.acts = {"d5": "silent"}
    acting_fleet.roll_out()
    _, heard = acting_fleet.roll_out(fresh=True)
    assert len(heard.begun) == 6


def test_a_damaged_journal_is_named(acting_fleet, tmp_path):
    """With the way to begin anew."""
    acting_fleet.acts = {"d5": "silent"}
    acting_fleet.roll_out()
    (journal,) = tmp_path.glob("state/edgebit/rollouts/*/*.json")
    journal.write_text(journal.read_text()[:-9])

    with pytest.raises(DeployError, match=r"how far the roll-out came, cannot be read: .* Begin anew: --fresh"):
        acting_fleet.roll_out()


def test_two_roll_outs_to_one_fleet_are_refused(acting_fleet, tmp_path):
    """The second, whatever its bundle."""
    with open_journal(tmp_path / "fleet.toml", "another"), pytest.raises(DeployError, match="another roll-out"):
        acting_fleet.roll_out()


def test_ctrl_c_lets_what_is_under_way_end(acting_fleet):
    """Nothing new begins, and the next call goes on."""
    stopping = threading.Event()

    def press(reporter):
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.wait(WAIT_S)
        return "ok"

    acting_fleet.acts = {"d1": press}

    report, told = acting_fleet.roll_out(parallel=1, on_say=stopping.set)

    assert report.interrupted and report.stopped == "stopped by Ctrl-C"
    assert list(results(report).values()) == ["updated", "updated", *["untried"] * 4]
    assert "1 device under way" in told.said[0]
    _, heard = acting_fleet.roll_out()
    assert heard.begun == ["d2", "d3", "d4", "d5"]


def test_a_second_ctrl_c_ends_what_has_changed_nothing(acting_fleet):
    """A device that is being sent to is let go; it is tried again the next time."""
    stopping = threading.Event()

    def press(reporter):
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.wait(WAIT_S)
        os.kill(os.getpid(), signal.SIGINT)
        told = reporter.sending("model.ebm", 10)
        assert reporter._aborted.wait(WAIT_S)
        told(1)
        raise AssertionError("the transfer went on")

    acting_fleet.acts = {"d1": press}

    report, heard = acting_fleet.roll_out(parallel=1, on_say=stopping.set)

    assert results(report)["d1"] == "untried" and report.interrupted
    assert heard.ends[-1] == ("d1", "stopped")
    acting_fleet.acts = {}
    _, heard = acting_fleet.roll_out(parallel=1)
    assert heard.begun == ["d1", "d2", "d3", "d4", "d5"]


def test_a_fault_of_ours_is_not_swallowed(acting_fleet):
    """It is raised once all under way have ended, and nothing new begins."""
    begun = threading.Event()

    def break_down(reporter):
        assert begun.wait(WAIT_S)
        raise ZeroDivisionError("a bug")

    acting_fleet.acts = {"d0": break_down, "d1": lambda reporter: begun.set() or "ok"}

    with pytest.raises(ZeroDivisionError, match="a bug"):
        acting_fleet.roll_out(parallel=2)

    assert acting_fleet.under_way == 0


def test_a_canary_that_falls_silent_in_the_soak_goes_back(acting_fleet):
    """And nobody else is touched."""
    acting_fleet.agents = {"d0": ActingAgent(silent=True)}

    report, heard = acting_fleet.roll_out(canary=1, soak_s=0.01)

    assert heard.begun == ["d0"] and heard.asked == [("d0", "after the soak")] and heard.soaks
    assert report.stopped == "canary d0 failed"
    assert report.devices[0].runs == "fedcba9876543210"
    assert "rolled back to bundle fedcba9876543210" in report.devices[0].why


def test_a_canary_that_still_answers_lets_the_others_begin(acting_fleet):
    """After the soak; a roll-out that is taken up does not soak again."""
    acting_fleet.acts = {"d5": "silent"}

    report, heard = acting_fleet.roll_out(canary=2, soak_s=0.01)

    assert [result for _, result in heard.ends].count("updated") == 7 and heard.soaks
    assert results(report)["d5"] == "failed"
    acting_fleet.acts = {}
    _, heard = acting_fleet.roll_out(canary=2, soak_s=0.01)
    assert heard.begun == ["d5"] and not heard.soaks


@pytest.mark.parametrize(
    ("agent", "result", "runs", "why"),
    [
        (ActingAgent(silent=True, up=False), "failed", "", "did not answer a ping"),
        (ActingAgent(silent=True), "failed", BUNDLE, "did not answer a ping"),
        (ActingAgent(runs="fedcba9876543210"), "failed", "fedcba9876543210", "bundle fedcba9876543210 is active there"),
        (ActingAgent(runs=None, up=False), "failed", "", "no bundle is active there"),
    ],
)
def test_what_was_done_before_is_asked_again(acting_fleet, capsys, agent, result, runs, why):
    """One that does not answer by now has failed; it is left as it is, and the next roll-out tries it again."""
    acting_fleet.acts = {"d5": "silent"}
    acting_fleet.roll_out()
    acting_fleet.acts, acting_fleet.agents = {}, {"d1": agent}

    report, heard = acting_fleet.roll_out(max_failures=1)

    assert not report.is_whole
    assert sorted(heard.asked) == [(f"d{n}", "") for n in range(5)] and heard.begun == ["d5"]
    assert results(report) == {**dict.fromkeys(["d0", "d2", "d3", "d4", "d5"], "updated"), "d1": result}
    assert report.devices[1].runs == runs and why in report.devices[1].why
    show_report(report)
    assert "answers on 5 of 6 devices" in capsys.readouterr().out
    acting_fleet.agents = {}
    report, heard = acting_fleet.roll_out()
    assert report.is_whole and heard.begun == ["d1"]


def test_a_done_device_out_of_reach_is_tried_again(acting_fleet):
    """As often as any other: it may be back."""
    acting_fleet.acts = {"d5": "silent"}
    acting_fleet.roll_out()
    acting_fleet.agents = {"d1": ActingAgent(reached=False)}
    acting_fleet.acts = {"d1": "present"}

    report, heard = acting_fleet.roll_out(retries=1)

    assert report.is_whole and "d1" in heard.begun and ("d1", "unreachable") in heard.ends


def test_what_could_not_be_asked_again_does_not_count(acting_fleet, capsys):
    """After Ctrl-C; the next roll-out asks it, and does not do it again."""
    acting_fleet.acts = {"d5": "silent"}
    acting_fleet.roll_out()
    asked = ActingAgent()
    asked.ask = lambda *args, **named: os.kill(os.getpid(), signal.SIGINT)
    acting_fleet.acts, acting_fleet.agents = {}, {"d0": asked}

    report, _ = acting_fleet.roll_out(parallel=1)

    assert report.interrupted and not report.is_whole
    show_report(report)
    told = capsys.readouterr().out
    assert "done before, but not asked again: d2, d3, d4" in told.replace("d1, ", "") and "not tried: d5" in told
    acting_fleet.agents = {}
    report, heard = acting_fleet.roll_out()
    assert report.is_whole and heard.begun == ["d5"]


@pytest.mark.parametrize(("fault", "whole"), [(None, True), (DeployError("the self-test failed: it differs"), False)])
def test_a_device_without_python_passes_its_self_test_again(acting_fleet, monkeypatch, fault, whole):
    """No daemon runs there that could answer."""
    tested = []

    class Runner(ActingAgent):
        def test(self, slot):
            tested.append(slot)
            if fault:
                raise fault

    monkeypatch.setattr(runner, "RunnerDevice", Runner)
    acting_fleet.agents = {"d0": Runner()}

    report, _ = acting_fleet.roll_out(canary=1, soak_s=0.01)

    assert tested == ["a"] and report.is_whole == whole
    assert report.devices[0].runs == BUNDLE
