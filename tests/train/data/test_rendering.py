"""Conversations to tokens: those of the engine, with nothing special in what somebody wrote."""

from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_folders import FORMS, write_tokenizer

from edgebit.bundle.prompt_program import Message
from edgebit.checkpoint.chat_template import choice
from edgebit.checkpoint.chat_template.choice import BUILT_IN
from edgebit.errors import TrainError
from edgebit.train.data.examples import Conversation, RecordError
from edgebit.train.data.rendering import Encoder
from edgebit.train.data.tokenizer_training import train_tokenizer
from edgebit.train.rows import IGNORED, Document

tokenizers = pytest.importorskip("tokenizers")

MARKS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|im_start|>system\n", "<|im_end|>", "<|end_header_id|>",
    "Assistant: ", "### Response:\n", "</think>", "</s>", "\n\n", "  ", "\u3000", "\u0301", "🙂", "<|",
)  # fmt: skip
HOSTILE = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=4)), min_size=1, max_size=6).map("".join)
WRITTEN = HOSTILE.filter(lambda text: text.strip() and "\0" not in text)
TAME = st.text("abc de.,\n1ü🙂", min_size=1, max_size=20).filter(str.strip)
STRIPPING = ("bitnet", "llama3")  # templates that take the white space around contents away
CASES = settings(max_examples=25)


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[place % 2], content) for place, content in enumerate(contents))


def answers(documents: list[Document]) -> Iterator[tuple[list[int], list[int]]]:
    """What comes before each learnt stretch, and the stretch."""
    for document in documents:
        ids, learnt = list(document.ids), [label != IGNORED for label in document.labels]
        assert all(label in (IGNORED, token) for token, label in zip(ids, document.labels, strict=True))
        starts = [place for place in range(len(ids)) if learnt[place] and not (place and learnt[place - 1])]
        for start in starts:
            end = next((place for place in range(start, len(ids)) if not learnt[place]), len(ids))
            yield ids[:start], ids[start:end]


@pytest.mark.parametrize("template", ["bitnet", "llama3", "chatml", "alpaca"])
@CASES
@given(contents=st.tuples(WRITTEN, WRITTEN, WRITTEN, WRITTEN))
def test_each_answer_is_learnt_after_the_engines_own_prompt(encoder, session, template, contents):
    """Whatever was written: ids of Session.chat_ids, then the answer's text and one token that ends it."""
    messages, engine = turns(*contents), session(template)
    found = list(answers(encoder(template).conversation(Conversation(messages))))

    assert len(found) == 2
    for place, (prompt, answer) in zip((1, 3), found, strict=True):
        said = contents[place].strip() if template in STRIPPING else contents[place]
        assert prompt == engine.chat_ids(messages[:place])
        assert engine.tokenizer.decode(answer[:-1], skip_special=False).decode() == said
        assert answer[-1] in engine.model.info.stop_tokens
        assert not any(engine.tokenizer.is_special(token) for token in answer[:-1])


@pytest.mark.parametrize("template", ["bitnet", "chatml"])
@CASES
@given(text=WRITTEN)
def test_a_text_has_the_ids_of_the_engines_plain_prompt(encoder, session, template, text):
    """And all of them are learnt, with the token that ends it."""
    document, engine = encoder(template).text(text), session(template)

    assert document.ids[:-1] == engine.prompt_ids(text) and document.labels == document.ids
    assert engine.tokenizer.token_bytes(document.ids[-1]) == b"<|end_of_text|>"


@pytest.mark.parametrize("template", ["llama3", "chatml"])
@CASES
@given(contents=st.tuples(TAME, TAME, TAME, TAME))
def test_a_conversation_has_the_ids_of_jinja_and_tokenizers(encoder, learnt, template, contents):
    """In one document, where nothing that was written looks like a special token."""
    messages = turns(*contents)
    (document,) = encoder(template).conversation(Conversation(messages))
    text = jinja_text(template, messages)

    theirs = tokenizers.Tokenizer.from_file(str(learnt(template) / "tokenizer.json"))
    wanted = theirs.encode(text.removesuffix("\n"), add_special_tokens=False).ids  # chatml's line ends after the turn
    assert list(document.ids) == wanted


def jinja_text(template: str, messages: tuple[Message, ...]) -> str:
    """The built-in template, rendered without edgebit."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    jinja = (Path(choice.__file__).parent / "built_in" / f"{template}.jinja").read_text()
    said = [{"role": message.role, "content": message.content} for message in messages]
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    text = environment.from_string(jinja).render(messages=said, add_generation_prompt=False, **names)
    return text if text.startswith("<|begin_of_text|>") else "<|begin_of_text|>" + text


@pytest.mark.parametrize("template", BUILT_IN)
def test_every_built_in_template_ends_its_answers(encoder, template):
    """With a token that the engine stops at; the next turn's prompt goes on after it."""
    opened = encoder(template)
    found = list(answers(opened.conversation(Conversation(turns("On?", "Yes.", "Off?", "No.")))))

    decode = opened.tokenizer.decode
    assert [decode(answer).decode().strip() for _, answer in found] == ["Yes.", "No."]
    assert all(opened.tokenizer.is_special(answer[-1]) for _, answer in found)


@pytest.mark.parametrize(
    ("template", "form"), [*(("plain", form) for form in FORMS), ("llama2", "llama3"), ("llama2", "sentencepiece")]
)
def test_every_form_of_tokenizer_writes_the_answer_itself(native, tmp_path, template, form):
    """With no space of a text's first word before it; Llama 2's template has one of its own there."""
    plain = "{% for m in messages %}{{ m.role + ': ' + m.content + '</s>' }}{% endfor %}"
    plain += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    jinja = plain if template == "plain" else choice.read_template(template)
    write_tokenizer(tmp_path, form, chat_template=jinja)
    said = ("Hello there", "Fine, this  lamp", "And?", "Yes")

    with Encoder(tmp_path) as opened:
        found = [answer for _, answer in answers(opened.conversation(Conversation(turns(*said))))]
        texts = [b"".join(map(opened.tokenizer.token_bytes, answer)).decode() for answer in found]

    wanted = "{}</s>" if template == "plain" else " {} </s>"
    assert texts == [wanted.format(said[1]), wanted.format(said[3])]


def test_answers_of_weight_0_are_read_and_not_learnt(encoder):
    (document,) = encoder("chatml").conversation(Conversation(turns("a", "first", "b", "second"), frozenset({1})))

    ((prompt, answer),) = answers([document])
    decode = encoder("chatml").tokenizer.decode
    assert b"first" in decode(prompt) and decode(answer) == b"second"


def of_file(tmp_path: Path, jinja: str) -> Encoder:
    """An encoder whose tokenizer was learnt for a template in a file."""
    file, folder = tmp_path / "own.jinja", tmp_path / "own"
    file.write_text(jinja)
    folder.mkdir()
    train_tokenizer([], folder, vocab_size=256 + 2 + jinja.count("<|end|>"), template=str(file))
    return Encoder(folder)


_LOOP = "{% for m in messages %}"
_TURN = "{{ m.role }}>{{ m.content }}"


def test_thoughts_are_learnt_though_later_prompts_leave_them_out(native, tmp_path):
    """So the second answer stands in a document of its own, after the prompt without the first one's thoughts."""
    thoughtless = "{{ m.role }}>{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}<|end|>"
    end = "{% endfor %}{% if add_generation_prompt %}assistant>{% endif %}"
    messages = turns("a", "why</think>b", "c", "so</think>d")
    with of_file(tmp_path, _LOOP + thoughtless + end) as opened:
        first, second = opened.conversation(Conversation(messages))
        texts = [opened.tokenizer.decode(each.ids, skip_special=False).decode() for each in (first, second)]

    assert texts[0] == "<|begin_of_text|>user>a<|end|>assistant>why</think>b<|end|>"
    assert texts[1] == "<|begin_of_text|>user>a<|end|>assistant>b<|end|>user>c<|end|>assistant>so</think>d<|end|>"
    assert sum(label != IGNORED for label in second.labels) == len("so</think>d") + 1


def test_what_the_prompt_begins_an_answer_with_is_not_said_twice(native, tmp_path):
    """Where the template opens the thoughts itself, as DeepSeek-R1's do."""
    end = "<|end|>{% endfor %}{% if add_generation_prompt %}assistant><think>{% endif %}"
    with of_file(tmp_path, _LOOP + _TURN + end) as opened:
        (document,) = opened.conversation(Conversation(turns("a", "<think>b</think>c")))
        text = opened.tokenizer.decode(document.ids, skip_special=False).decode()

    assert text == "<|begin_of_text|>user>a<|end|>assistant><think>b</think>c<|end|>"


def test_an_answer_that_the_template_does_not_end_is_ended(native, tmp_path):
    """With end-of-text, since it would never end on a device."""
    end = "\n{% endfor %}{% if add_generation_prompt %}assistant>{% endif %}"
    with of_file(tmp_path, _LOOP + _TURN + end) as opened:
        found = list(answers(opened.conversation(Conversation(turns("a", "b", "c", "d")))))
        texts = [opened.tokenizer.decode(answer, skip_special=False) for _, answer in found]

    assert texts == [b"b\n<|end_of_text|>", b"d\n<|end_of_text|>"]


def test_roles_that_the_template_does_not_take_are_refused(encoder):
    with pytest.raises(RecordError, match="takes user and assistant messages in turns only"):
        encoder("mistral").conversation(Conversation((Message("user", "a"), Message("user", "b"), *turns("c", "d"))))


def test_conversations_need_a_template(encoder):
    with pytest.raises(TrainError, match=r"has no chat template, and the data are conversations. Choose one with --"):
        encoder("none").conversation(Conversation(turns("a", "b")))
