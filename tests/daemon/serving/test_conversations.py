"""Conversations that the device remembers: what the model reads, in which order, and what is forgotten."""

import dataclasses

import pytest
from serving_fixtures import Engine, Making, Serving, job, turn

from edgebit.bundle.prompt_program import Message
from edgebit.daemon.config.sections import EngineConfig, ServingConfig
from edgebit.daemon.contract.messages import GenerateRequest, Refusal
from edgebit.daemon.serving.conversations import Conversation, Conversations
from edgebit.daemon.serving.engine import LoadedModel
from edgebit.runtime.generation import Answer


class Talking(Engine):
    """A token for each word of all messages; its answers are numbered."""

    ctx_len = 40

    def __init__(self, **named):
        super().__init__(**named)
        self.read = []

    def request_ids(self, request):
        return [ord(each.role[0]) for each in request.messages for _ in each.content.split()]

    def begin(self, request, ids, answer, owner):
        self.read.append([(each.role[0], each.content) for each in request.messages])
        return super().begin(request, ids, answer, owner)


class Remembering(Talking):
    """Tells what the prompt was by its length alone: begin() gets the new request, and the ids of all."""

    def begin(self, request, ids, answer, owner):
        self.read.append(len(ids))
        self.taken += 1
        return Making(ids, request.max_tokens, answer, owner)


def said(principal, name, words, *, session="s", tokens=2, system="", **named):
    asked = job(principal, name, tokens, op="chat", **named)
    messages = (*([Message("system", system)] if system else []), Message("user", words))
    asked.request = dataclasses.replace(asked.request, prompt=None, messages=messages, session=session)
    return asked


def ready(engine=None, **named):
    serving = Serving(engine or Remembering(), serving=ServingConfig(**named))
    serving.scheduler.set_engine(serving.engine)
    return serving


def finish(serving):
    while serving.scheduler.load().running or serving.scheduler.load().queue_len:
        turn(serving)


def test_a_message_is_put_after_all_that_was_said():
    """The reply says which conversation, how many turns and how many tokens; another principal's begins anew."""
    serving = ready()
    for principal, name, words in (("a", "1", "one two three"), ("a", "2", "four"), ("b", "1", "five six")):
        serving.ask(said(principal, name, words))
        finish(serving)
    assert serving.engine.read == [3, 3 + 1 + 1, 2]
    assert serving.heard.bodies["a/1"]["session"] == {"id": "s", "turns": 1, "tokens": 5}
    assert serving.heard.bodies["a/2"]["session"] == {"id": "s", "turns": 2, "tokens": 7}
    assert serving.heard.bodies["b/1"]["session"]["turns"] == 1
    conversation = serving.scheduler.conversations.so_far(("a", "s"))
    assert conversation.turns == (
        (Message("user", "one two three"), Message("assistant", "xx")),
        (Message("user", "four"), Message("assistant", "xx")),
    )


def test_a_system_message_replaces_the_one_before():
    """It stands first, and once, however often it is sent."""
    serving = ready()
    for name, system in (("1", "be brief"), ("2", "be brief"), ("3", ""), ("4", "be very kind please")):
        serving.ask(said("a", name, "hello", system=system))
        finish(serving)
    assert serving.engine.read == [3, 5, 7, 11]
    assert serving.scheduler.conversations.so_far(("a", "s")).system == Message("system", "be very kind please")


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_a_turn_that_failed_leaves_the_conversation_as_it_was(end):
    """The next one is put after the last that was answered."""
    serving = ready()
    serving.ask(said("a", "1", "one"))
    finish(serving)
    before = serving.scheduler.conversations.so_far(("a", "s"))
    asked = said("a", "2", "two", tokens=30)
    if end == "failed":
        asked.filter = Withholding()
    serving.ask(asked)
    turn(serving)
    serving.scheduler.cancel("a", "2")
    finish(serving)
    assert serving.heard.status["a/2"] in (451, 499) and "session" not in serving.heard.bodies["a/2"]
    assert serving.scheduler.conversations.so_far(("a", "s")) == before


class Withholding:
    """Lets nothing through."""

    def push(self, piece):
        raise Refusal(451, "response_filtered", "the answer is withheld")

    def close(self):
        pass


def test_two_messages_to_one_conversation_are_answered_in_order():
    """The second waits for the first one's end, though there is a sequence for it; others' do not."""
    serving = ready(Remembering(sequences=3))
    serving.ask(said("a", "1", "one", tokens=3))
    second = said("a", "2", "two", tokens=1)
    second.request = dataclasses.replace(second.request, priority=1)
    serving.ask(second)
    serving.ask(said("a", "other", "three", session="t", tokens=1))
    turn(serving)
    assert serving.heard.status == {"a/other": 200} and serving.scheduler.load().queue_len == 1
    finish(serving)
    assert serving.engine.read == [1, 1, 3] and serving.heard.bodies["a/2"]["session"]["turns"] == 2


def test_a_message_waits_for_one_that_is_not_released_yet():
    """What came first is answered first; where that one is withdrawn or cancelled, it goes on."""
    serving = ready()
    first, second = said("a", "1", "one"), said("a", "2", "two")
    serving.scheduler.submit(first)
    serving.ask(second)
    assert serving.scheduler.next_job() is None
    serving.scheduler.withdraw(first)
    assert serving.scheduler.next_job() is second


def test_the_oldest_turns_are_dropped_where_the_context_is_full():
    """To half of it, so that this happens seldom; the system message stays. Alone too long, it is refused."""
    serving = ready()
    turns = []
    for n in range(8):
        serving.ask(said("a", str(n), "one two three four five", system="be brief", tokens=4))
        finish(serving)
        turns.append(serving.heard.bodies[f"a/{n}"]["session"])
    # A prompt of 2 + 6 n + 5 tokens and an answer of 4 have room in 40 up to n = 4; then 20 are kept.
    assert serving.engine.read == [7, 13, 19, 25, 31, 19, 25, 31]
    assert [each["turns"] for each in turns] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [each.get("dropped", 0) for each in turns] == [0, 0, 0, 0, 0, 3, 3, 3]
    with pytest.raises(Refusal) as refused:
        serving.ask(said("a", "long", "word " * 40))
    assert (refused.value.status, refused.value.code) == (422, "context_overflow")


def test_conversations_are_bounded_in_number_and_idle_time():
    """One too many displaces the one unused longest of whoever has most; what is idle is forgotten."""
    now = [0.0]
    kept = Conversations(4, 60.0, lambda: now[0])
    for key in (("b", "1"), ("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")):
        kept.keep(key, Conversation(tokens=1))
        now[0] += 1
    assert kept.so_far(("a", "1")) == Conversation() and kept.so_far(("b", "1")).tokens == 1
    now[0] = 50.0
    kept.keep(("b", "1"), Conversation(tokens=2))
    now[0] = 70.0
    assert kept.so_far(("b", "1")).tokens == 2 and kept.so_far(("a", "4")) == Conversation() and len(kept) == 1


def test_a_prompt_is_computed_from_where_the_conversation_was(reference_model, native):
    """A real model: the second message's prompt begins with the first one's tokens, which are not computed again."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=256))
    serving = Serving(model)
    serving.scheduler.set_engine(model)
    for name, words in (("1", "the quick brown fox"), ("2", "jumps"), ("3", "over")):
        serving.ask(said("a", name, words, tokens=6))
        finish(serving)
    first, *later = (serving.heard.bodies[f"a/{name}"] for name in "123")
    assert all(each["prompt_eval_cached"] >= first["prompt_eval_count"] - 8 for each in later)
    assert later[1]["prompt_eval_cached"] > later[0]["prompt_eval_cached"]
    history = serving.scheduler.conversations.so_far(("a", "s"))
    alone = GenerateRequest(
        op="chat",
        prompt=None,
        messages=(*history.without(2).turns[0][:0], *history.turns[0], *history.turns[1], Message("user", "over")),
        sampling={},
        seed=1,
        max_tokens=6,
        stop=(),
        stream=False,
        format="json",
    )
    ids = model.request_ids(alone)
    generation = model.begin(alone, ids, Answer(prompt_tokens=len(ids)), "somebody else")
    while not generation.done:
        model.step([generation])
    assert generation.answer.text == later[1]["text"] and generation.answer.reused_tokens == 0
    model.end(generation)
    model.close()


def test_a_common_system_prompt_is_computed_once(reference_model, native):
    """Eight at once with the same system prompt: the first computes it, all others have it from there."""
    model = LoadedModel.open(
        reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=256, sequences=8, prefix_memory_mib=0)
    )
    serving = Serving(model)
    serving.scheduler.set_engine(model)
    system = "you are a small device that answers in one short and friendly sentence of plain words"
    for n in range(8):
        serving.ask(said("a", str(n), f"question {n}", session=None, tokens=3, system=system))
    finish(serving)
    replies = [serving.heard.bodies[f"a/{n}"] for n in range(8)]
    common = len(model.encode(system))
    computed = [each["prompt_eval_count"] - each["prompt_eval_cached"] for each in replies]
    assert computed[0] == replies[0]["prompt_eval_count"]
    assert all(each["prompt_eval_cached"] >= common for each in replies[1:]), computed
    model.close()
