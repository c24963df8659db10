"""What a text must be to become a prompt."""

import pytest

from edgebit.bundle.prompt_program import Message
from edgebit.daemon.admission.input_checks import check_input, check_length
from edgebit.daemon.config.sections import LimitsConfig
from edgebit.daemon.contract.messages import GenerateRequest, PingRequest, Refusal, TokenizeRequest


def asked(prompt: str | None = None, *messages: str) -> GenerateRequest:
    return GenerateRequest(
        prompt=prompt,
        messages=tuple(Message("user", text) for text in messages),
        sampling={},
        seed=0,
        max_tokens=1,
        stop=(),
        stream=False,
        format="json",
    )


REFUSED = [
    (asked("a\0b"), "control_character", "prompt holds the control character U+0000 at character 1"),
    (asked(None, "fine", "\x1b[2J"), "control_character", "the user message holds the control character U+001B"),
    (TokenizeRequest(text="a\x9b"), "control_character", "text holds the control character U+009B"),
    (asked(" \n\t\u3000"), "missing_field", "holds blanks alone"),
    (asked(None, " "), "missing_field", "holds blanks alone"),
]


@pytest.mark.parametrize(("request_", "code", "words"), REFUSED)
def test_what_is_refused(request_, code, words):
    """400, with the field and the place."""
    with pytest.raises(Refusal) as refused:
        check_input(request_, LimitsConfig())
    assert (refused.value.status, refused.value.code) == (400, code) and words in str(refused.value)


@pytest.mark.parametrize(
    "request_", [asked("tab\tline\r\nend é\u200b𝄞"), asked(None, " ", "x"), TokenizeRequest(text=" "), PingRequest()]
)
def test_what_is_fine(request_):
    """Every language, its blanks, and what has no text."""
    check_input(request_, LimitsConfig())


def test_control_characters_can_be_allowed():
    """Where an owner's texts have them."""
    check_input(asked("a\0b"), LimitsConfig(control_characters="allow"))


def test_the_length_in_tokens():
    """Bounded only where it is configured."""
    check_length(10**6, LimitsConfig())
    check_length(5, LimitsConfig(max_prompt_tokens=5))
    with pytest.raises(Refusal, match="the prompt has 6 tokens, this device takes 5") as refused:
        check_length(6, LimitsConfig(max_prompt_tokens=5))
    assert (refused.value.status, refused.value.code) == (413, "prompt_too_long")
