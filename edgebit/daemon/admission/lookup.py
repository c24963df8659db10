"""`get`: what has become of a job, from where jobs wait and run and from where their answers are kept."""

from collections.abc import Mapping
from typing import Any, Protocol

from edgebit.daemon.contract.frames import AnswerWriter
from edgebit.daemon.contract.messages import GetRequest, Refusal

FRAME_FIELDS = ("id", "seq", "t", "done", "op", "message")  # the frame's own, which the answer to `get` has itself
ERROR_FIELDS = ("status", "code", "type", "message", "retryable", "retry_after_ms")


class KeptAnswers(Protocol):
    """Where answers lie after they were sent."""

    def find(self, principal: str, job_id: str) -> Mapping[str, Any] | None:
        """The last frame of a job as JSON, with all of its text whatever was sent; None where none is kept."""


def send_kept(writer: AnswerWriter, job_id: str, kept: Mapping[str, Any], request: GetRequest) -> None:
    """Answer with a finished job: its figures and the asked part of its text, or the error that ended it."""
    body: dict[str, Any] = {"op": "get", "job": job_id}
    body |= {name: value for name, value in kept.items() if name not in FRAME_FIELDS}
    error = body.pop("error", None)
    if error is not None:
        writer.error(_refusal(error), {**body, "state": "failed"})
        return
    body["state"] = "done"
    text = body.pop("text", None)
    writer.done({**body, **_part(writer, body, str(text), request)} if text is not None else body)


def _part(writer: AnswerWriter, body: Mapping[str, Any], text: str, request: GetRequest) -> dict[str, Any]:
    """The text from `offset` on, as much as was asked for and as the broker takes in one message."""
    if request.offset > len(text):
        raise Refusal(400, "bad_field", f"offset: the text has {len(text)} characters")
    wanted = text[request.offset :][: request.limit]

    def part(piece: str) -> dict[str, Any]:
        end = request.offset + len(piece)
        fields: dict[str, Any] = {"text": piece, "offset": request.offset, "text_length": len(text)}
        return {**fields, "next_offset": end} if end < len(text) else fields

    return part(wanted[: writer.longest(wanted, lambda piece: writer.done_frame({**body, **part(piece)}))])


def _refusal(error: Mapping[str, Any]) -> Refusal:
    return Refusal(
        error["status"],
        error["code"],
        error["message"],
        retryable=error["retryable"],
        retry_after_ms=error.get("retry_after_ms"),
        details={name: value for name, value in error.items() if name not in ERROR_FIELDS},
    )
