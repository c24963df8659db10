"""What is kept of answers, for how long, and what a caller hears who asks the same again."""

import dataclasses

import pytest
from serving_fixtures import Engine, Serving, job, request, turn

from edgebit.daemon.config.sections import ServingConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.daemon.serving.answer_cache import AnswerCache
from edgebit.runtime.generation import Answer


def answer(text, tokens=3):
    return Answer(prompt_tokens=5, tokens=list(range(tokens)), text=text, done_reason="stop")


def test_what_is_kept_is_bounded_in_bytes_and_age():
    """The answer used longest ago goes first; one that is larger than all the room is not kept at all."""
    now = [0.0]
    cache = AnswerCache(2_100, 60.0, lambda: now[0])
    for name in (b"1", b"2", b"3"):
        cache.keep("a", name, answer("x" * 100))
    assert cache.find("a", b"1").text == "x" * 100 and cache.find("b", b"1") is None
    cache.keep("a", b"4", answer("x" * 300))
    assert [cache.find("a", name) is not None for name in (b"1", b"2", b"3", b"4")] == [True, False, True, True]
    cache.keep("a", b"5", answer("x" * 3_000))
    assert cache.find("a", b"5") is None and cache.find("a", b"4") is not None
    now[0] = 60.0
    assert cache.find("a", b"4") is None and cache.find("a", b"1") is None
    cache.keep("a", b"3", answer("new"))
    assert cache.find("a", b"3").text == "new"
    for name in (b"6", b"7"):
        cache.keep("a", name, answer("x" * 100))
    found = [cache.find("a", name) is not None for name in (b"3", b"6", b"7")]
    assert found == [True, True, True], "what is gone takes no room"


def test_nothing_is_kept_without_room_or_certainty():
    """Size 0, and no key."""
    for size, key in ((0, b"1"), (1_000, None)):
        cache = AnswerCache(size, 60.0)
        cache.keep("a", key, answer("x"))
        assert cache.find("a", key) is None


def certain(principal, name, tokens=3, *, seed_given=True, cache=True, **named):
    asked = job(principal, name, tokens, **named)
    asked.request = dataclasses.replace(asked.request, seed_given=seed_given, cache=cache)
    return asked


def finish(serving):
    while serving.scheduler.load().running or serving.scheduler.load().queue_len:
        turn(serving)


def ready(*, sequences=2, **named):
    serving = Serving(Engine(sequences=sequences), **named)
    serving.scheduler.set_engine(serving.engine)
    return serving


def test_an_answer_is_given_again_where_it_is_certain():
    """Not to another principal, not where chance has a part, not where the caller wants it anew; and one can see it."""
    told, cacheable = [], {}

    class Listener:
        def job_ended(self, outcome):
            told.append((outcome.job_id, outcome.from_cache, outcome.completion_tokens))
            cacheable[outcome.job_id] = outcome.cacheable

    serving = ready(listeners=[Listener()])
    for asked in (
        certain("a", "first"),
        certain("a", "again"),
        certain("b", "other's"),
        certain("a", "drawn", seed_given=False),
        certain("a", "anew", cache=False),
        certain("a", "longer", tokens=4),
    ):
        serving.ask(asked)
        finish(serving)
    assert [name for name, cached, _ in told if cached] == ["again"] and told[1][2] == 3
    assert [name for name, asked in cacheable.items() if not asked] == ["drawn", "anew"]
    first, again = serving.heard.bodies["a/first"], serving.heard.bodies["a/again"]
    assert again["cached"] is True and "cached" not in first
    assert all(again[field] == first[field] for field in ("text", "text_sha256", "done_reason", "usage"))
    assert [again[field] for field in ("eval_count", "eval_duration", "prompt_eval_duration")] == [0, 0, 0]
    assert again["prompt_eval_cached"] == again["prompt_eval_count"] == 1
    assert len(serving.engine.owners) == 5


def test_an_answer_may_serve_everybody_where_prefixes_do():
    """share_prefixes."""
    serving = ready(serving=ServingConfig(share_prefixes=True))
    for principal in "ab":
        serving.ask(certain(principal, "1"))
        finish(serving)
    assert serving.heard.bodies["b/1"]["cached"] is True


def test_a_known_answer_that_is_not_given_yet():
    """Between two passes it can be asked after, and the device stopped."""
    serving = ready()
    serving.ask(certain("a", "first"))
    finish(serving)
    serving.ask(certain("a", "again"))
    where = serving.scheduler.find("a", "again")
    assert (where.state, where.position) == ("queued", 0)
    serving.scheduler.stop()
    assert serving.heard.status["a/again"] == 503


def test_a_known_answer_waits_for_nobody():
    """All sequences are taken and others wait: it is said at once, and costs its principal nothing."""
    serving = ready(sequences=1)
    serving.ask(certain("a", "first"))
    finish(serving)
    serving.ask(job("b", "long", 50))
    turn(serving)
    serving.ask(job("c", "waits", 50))
    serving.ask(certain("a", "again"))
    serving.ask(certain("a", "cancelled"))
    serving.scheduler.cancel("a", "cancelled")
    turn(serving)
    assert serving.heard.status == {"a/first": 200, "a/again": 200, "a/cancelled": 499}
    finish(serving)


def test_the_same_asked_twice_at_once_is_computed_once_where_one_waits():
    """It is looked up again at its turn."""
    serving = ready(sequences=1)
    for name in ("1", "2"):
        serving.ask(certain("a", name))
    finish(serving)
    assert serving.heard.bodies["a/2"]["cached"] is True and len(serving.engine.owners) == 1


def test_no_errors_and_no_parts_are_kept():
    """An answer that was cancelled, withheld or too late has not been given."""

    class Filter:
        def push(self, piece):
            raise Refusal(451, "response_filtered", "the answer is withheld")

        def close(self):
            pass

    serving = ready()
    serving.ask(certain("a", "withheld", filter=Filter()))
    finish(serving)
    serving.ask(certain("a", "cancelled"))
    turn(serving)
    serving.scheduler.cancel("a", "cancelled")
    finish(serving)
    serving.ask(certain("a", "whole"))
    finish(serving)
    assert serving.heard.status == {"a/withheld": 451, "a/cancelled": 499, "a/whole": 200}
    assert "cached" not in serving.heard.bodies["a/whole"]
    serving.ask(certain("a", "rules have changed", filter=Filter()))
    finish(serving)
    assert serving.heard.status["a/rules have changed"] == 451


@pytest.mark.parametrize("stream", [False, True])
def test_a_known_answer_comes_in_the_frames_that_were_asked_for(stream):
    """Deltas, and a last frame that counts them."""
    serving = ready()
    for name in ("1", "2"):
        asked = certain("a", name)
        asked.request = dataclasses.replace(asked.request, stream=stream)
        serving.ask(asked)
        finish(serving)
    assert serving.heard.bodies["a/2"]["seq"] == stream and serving.heard.bodies["a/2"]["text"] == "xxx"
    assert serving.heard.deltas["a/2"] == (["xxx"] if stream else [])


def test_what_determines_an_answer(reference_model, native):
    """Tokens, sampling, length and stops; the seed only where something is drawn."""
    from edgebit.daemon.config.sections import EngineConfig
    from edgebit.daemon.serving.engine import LoadedModel

    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=64))
    greedy = dataclasses.replace(request(5), sampling={"temperature": 0.0})
    drawn = dataclasses.replace(greedy, sampling={"temperature": 0.7}, seed_given=True)
    same = [greedy, dataclasses.replace(greedy, seed=9), dataclasses.replace(greedy, seed_given=True, stream=False)]
    other = [
        dataclasses.replace(greedy, max_tokens=6),
        dataclasses.replace(greedy, stop=("x",)),
        dataclasses.replace(greedy, sampling={"temperature": 0.0, "repetition_penalty": 1.1}),
        drawn,
        dataclasses.replace(drawn, seed=9),
        dataclasses.replace(drawn, sampling={"temperature": 0.7, "top_k": 3}),
    ]
    assert len({model.answer_key(each, [1, 2, 3]) for each in same}) == 1
    keys = [model.answer_key(each, [1, 2, 3]) for each in (greedy, *other)] + [model.answer_key(greedy, [1, 2, 4])]
    assert None not in keys and len(set(keys)) == len(keys)
    assert model.answer_key(dataclasses.replace(drawn, seed_given=False), [1]) is None
    model.close()
