"""A job's prompt: in the model's tokens, after what was said before in its conversation, and within the context."""

import dataclasses
from bisect import bisect_left
from typing import Any

from edgebit.daemon.admission.input_checks import check_length
from edgebit.daemon.config.sections import LimitsConfig
from edgebit.daemon.contract.messages import GenerateRequest, Refusal
from edgebit.daemon.serving.answering import AnsweringEngine
from edgebit.daemon.serving.conversations import Conversation, Conversations, Turn
from edgebit.daemon.serving.job import Job
from edgebit.errors import EdgebitError
from edgebit.runtime.generation import Answer

ANSWER_PART = 4  # a conversation leaves at least this part of the context to the answer, if so much is asked for
KEPT_PART = 2  # and where it does not, what is kept of it fills at most this one: so that it is not shortened each time


def read_prompt(job: Job, engine: AnsweringEngine[Any], conversations: Conversations, limits: LimitsConfig) -> None:
    """Set the job's ids, and the conversation that they are the prompt of.

    Raises Refusal: 400 where the model's template does not allow the messages, or it has no schema, 404 where the
    adapter is not there, 413 or 422 where the messages are too long.
    """
    request = job.request = engine.fitting(job.request)
    if job.conversation_key is None:
        job.ids = _ids(engine, request)
    else:
        so_far, job.new_turn = conversations.so_far(job.conversation_key).asked(request.messages)
        _check_adapter(request, so_far)
        prompt_most = limits.max_prompt_tokens or engine.ctx_len
        job.conversation, job.ids = _fitting(engine, request, so_far, job.new_turn, prompt_most)
    check_length(len(job.ids), limits)
    if len(job.ids) >= engine.ctx_len:
        words = f"the prompt has {len(job.ids)} tokens and the context {engine.ctx_len}: shorten it"
        raise Refusal(422, "context_overflow", words)
    job.answer = Answer(prompt_tokens=len(job.ids))
    job.answer_key = engine.answer_key(request, job.ids) if request.cache else None


def _check_adapter(request: GenerateRequest, so_far: Conversation) -> None:
    """Raise Refusal, 400, where a conversation was begun with another adapter, or with the model alone."""
    if not so_far.turns or so_far.adapter_sha256 == request.adapter_sha256:
        return
    if so_far.adapter == request.adapter:
        words = f"adapter {so_far.adapter!r} was replaced since session {request.session!r} was begun: begin another"
    else:
        before = "the model alone" if so_far.adapter is None else f"adapter {so_far.adapter!r}"
        words = f"session {request.session!r} was begun with {before}: go on so, or begin another session"
    raise Refusal(400, "conflict", words)


def _fitting(
    engine: AnsweringEngine[Any], request: GenerateRequest, so_far: Conversation, new: Turn, prompt_most: int
) -> tuple[Conversation, list[int]]:
    """The conversation, without its oldest turns where they leave no room for an answer, and its tokens."""

    def ids_without(count: int) -> list[int]:
        return _ids(engine, dataclasses.replace(request, prompt=None, messages=so_far.without(count).prompt(new)))

    ids = ids_without(0)
    room = min(request.max_tokens, engine.ctx_len // ANSWER_PART)
    prompt_most = min(prompt_most, engine.ctx_len - room)
    if len(ids) <= prompt_most or not so_far.turns:
        return so_far, ids
    most = min(engine.ctx_len // KEPT_PART, prompt_most)
    turns = len(so_far.turns)
    count = bisect_left(range(turns), -most, key=lambda dropped: -len(ids_without(dropped)))
    return so_far.without(count), ids_without(count)


def _ids(engine: AnsweringEngine[Any], request: GenerateRequest) -> list[int]:
    try:
        return engine.request_ids(request)
    except EdgebitError as error:
        raise Refusal(400, "bad_messages", str(error)) from error
