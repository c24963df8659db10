"""The filter of a daemon: verdicts as refusals, rules that change while it runs, and the owner's classifier."""

import os
import sys
import textwrap
import time

import pytest

from edgebit.daemon.config.safeguards import ContentFilterConfig
from edgebit.daemon.content_filter.content_filter import ContentFilter
from edgebit.daemon.contract.messages import Refusal
from edgebit.errors import ConfigError

# Says no to a text with "no" in it, is slow at "slow", and otherwise at fault.
JUDGE = textwrap.dedent("""
    import sys, time
    text = sys.stdin.read()
    if "slow" in text:
        time.sleep(60)
    if "fault" in text:
        sys.exit(3)
    print("a word for the log\\x1b")
    sys.exit(1 if "no" in text else 0)
""")


def with_rules(tmp_path, text: str) -> ContentFilter:
    (tmp_path / "rules.txt").write_text(text)
    return ContentFilter(ContentFilterConfig(rules=str(tmp_path / "rules.txt")))


def ended(guard, piece: str = "x") -> str:
    """All of an answer of one piece."""
    return guard.push(piece) + guard.finish()


def with_judge(**named) -> ContentFilter:
    return ContentFilter(ContentFilterConfig(classifier=(sys.executable, "-c", JUDGE), **named))


def code_of(refused: pytest.ExceptionInfo[Refusal]) -> tuple[int, str]:
    return refused.value.status, refused.value.code


def test_nothing_is_looked_at_unless_configured():
    """Off by default; text goes through as it is."""
    off = ContentFilter(ContentFilterConfig())
    off.check_prompt(["anything"])
    guard = off.guard(["anything"])
    assert guard.push("b\u200bad") == "b\u200bad" and guard.finish() == ""
    assert not off.active and off.describe() is None


def test_prompts_and_answers_are_refused(tmp_path):
    """451, with a code for each; the refusal does not tell the rule."""
    rules = with_rules(tmp_path, "word prompt bad\nword answer evil\n")
    rules.check_prompt(["evil is fine here"])
    with pytest.raises(Refusal) as refused:
        rules.check_prompt(["fine", "so BAD"])
    assert code_of(refused) == (451, "content_filtered") and "bad" not in str(refused.value).lower()
    guard = rules.guard([])
    assert guard.push("bad is fine; e") == "bad is fine; "
    with pytest.raises(Refusal) as refused:
        guard.push("vil!")
    assert code_of(refused) == (451, "response_filtered")
    assert rules.describe() == {"rules_prompt": 1, "rules_answer": 1, "classifier": None}


def test_rules_are_read_again_when_they_change(tmp_path):
    """New ones count for what comes then; wrong ones are said, and the old stay."""
    path = tmp_path / "rules.txt"
    rules = with_rules(tmp_path, "word prompt bad\n")
    running = rules.guard([])
    path.write_text("word both worse\n")
    rules.reload()
    rules.check_prompt(["bad"])
    assert running.push("worse ") == "worse "  # a job keeps the rules that it began with
    path.write_text("word prompt\n")
    rules.reload()
    assert "line 1" in rules.describe()["fault"]
    path.unlink()
    rules.reload()
    assert "cannot be read" in rules.describe()["fault"]
    with pytest.raises(Refusal):
        rules.check_prompt(["worse"])
    path.write_text("word prompt fine\n")
    rules.reload()
    assert "fault" not in rules.describe() and rules.counters["filter_reloaded"] == 2


def test_wrong_rules_stop_the_start(tmp_path):
    """There is nothing to fall back on."""
    with pytest.raises(ConfigError, match=r"rules.txt: line 1"):
        with_rules(tmp_path, "nonsense")


def test_a_classifier_judges_the_prompt_before_anything_leaves():
    """It works while the job waits; pieces are held until it has said yes, and nobody waits for it but the end."""
    judge = with_judge()
    guard = judge.guard(["hello", "there"])
    sent = [guard.push("Hi"), guard.push(" you"), guard.finish()]
    assert "".join(sent) == "Hi you"
    with pytest.raises(Refusal) as refused:
        ended(judge.guard(["oh no"]))
    assert code_of(refused) == (451, "content_filtered")
    with pytest.raises(Refusal):
        judge.guard(["oh no"]).finish()  # an answer without a token


def test_what_was_held_for_a_verdict_is_looked_at_too(tmp_path):
    """Rules see the text in its order, however it came."""
    (tmp_path / "go").touch()
    (tmp_path / "rules.txt").write_text("word answer bad\n")
    script = f"import os, time\nwhile os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    config = ContentFilterConfig(
        rules=str(tmp_path / "rules.txt"), classifier=(sys.executable, "-c", script), classifier_timeout_s=30
    )
    guard = ContentFilter(config).guard(["x"])
    assert guard.push("so ") == guard.push("ba") == ""
    (tmp_path / "go").unlink()
    with pytest.raises(Refusal) as refused:
        ended(guard, "d")
    assert code_of(refused) == (451, "response_filtered")


def test_a_classifier_for_answers_holds_them_back_whole():
    """It cannot judge a piece."""
    judge = with_judge(classifier_for="answer")
    guard = judge.guard(["oh no"])
    assert guard.push("a ") == "" and guard.push("word") == ""
    assert guard.finish() == "a word"
    guard = judge.guard(["fine"])
    guard.push("oh n")
    guard.push("o")
    with pytest.raises(Refusal) as refused:
        guard.finish()
    assert code_of(refused) == (451, "response_filtered")


@pytest.mark.parametrize("text", ["fault", "slow"])
def test_a_classifier_that_fails_refuses_or_allows_as_configured(text):
    """Refuses unless the owner says otherwise, with a code of its own that may pass."""
    with pytest.raises(Refusal) as refused:
        ended(with_judge(classifier_timeout_s=0.5).guard([text]))
    assert code_of(refused) == (503, "classifier") and refused.value.retryable
    assert ended(with_judge(classifier_timeout_s=0.5, classifier_fault="allow").guard([text])) == "x"


def test_a_program_that_is_not_there_is_a_fault():
    """Said in the log, and refused."""
    absent = ContentFilter(ContentFilterConfig(classifier=("/no/such/program",)))
    with pytest.raises(Refusal) as refused:
        absent.guard(["x"]).push("x")
    assert code_of(refused) == (503, "classifier")


def test_a_judge_that_is_not_waited_for_is_ended(tmp_path):
    """With whatever it has started: the whole group."""
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    judge = ContentFilter(ContentFilterConfig(classifier=(sys.executable, "-c", script), classifier_timeout_s=30))
    guard = judge.guard(["x"])
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert guard.push("x") == ""
    guard.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert guard.push("y") == "xy"  # whatever the job still says goes nowhere
