"""What stands in the log where the owner wants to read along."""

import logging

import pytest

from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.privacy.answer_log import AnswerLog


class Guard:
    """Lets nothing with a 7 go."""

    closed = False

    def push(self, piece: str) -> str:
        if "7" in piece:
            raise Refusal(451, "response_filtered", "no")
        return piece.upper()

    def finish(self) -> str:
        return "."

    def close(self) -> None:
        self.closed = True


def test_the_log_has_what_was_sent(caplog):
    """As the filter let it go, in one line, whatever is in it."""
    with caplog.at_level(logging.INFO, "edgebit.prompts"):
        answer = AnswerLog(Guard(), "j1", "p-1", ["one\ntwo"])
        assert [answer.push("a\n"), answer.push("b"), answer.finish()] == ["A\n", "B", "."]
        answer.close()
    assert caplog.messages == [r"job j1 of p-1 asks ['one\ntwo']", r"job j1 is answered: 'A\nB.'"]


def test_an_answer_that_does_not_end_is_logged_too(caplog):
    """Once, and its filter is closed."""
    guard = Guard()
    with caplog.at_level(logging.INFO, "edgebit.prompts"):
        answer = AnswerLog(guard, "j1", "p-1", ["x"])
        answer.push("a")
        with pytest.raises(Refusal):
            answer.push("7")
        answer.close()
    assert guard.closed and caplog.messages[1:] == ["job j1 ended within its answer: 'A'"]
