"""Many questions in one request, and answers of before, put together from their parts (docs/mqtt.md)."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebit.errors import DeviceError, NoAnswerError
from edgebit.mqtt_client.answers import check_hash, device_words
from edgebit.mqtt_client.client import DeviceClient
from edgebit.mqtt_client.request import new_id

AT_ONCE = 8  # where a device does not say how many


@dataclass(frozen=True, slots=True)
class Answer:
    """What has come of one question of many."""

    number: int  # of the question, from 0
    id: str
    reply: Mapping[str, Any]  # the last frame

    @property
    def error(self) -> Mapping[str, Any] | None:
        """Why there is no text; None where there is one."""
        error = self.reply.get("error")
        return error if isinstance(error, Mapping) else None


def read_questions(text: str) -> list[dict[str, Any]]:
    """One question a line: the fields of a request as JSON where it begins with {, else a prompt. Empty lines are none.

    Raises ValueError, naming the line.
    """
    questions = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("{"):
            try:
                questions.append(dict(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} begins with {{ and is no JSON: {error}") from error
        elif line.strip():
            questions.append({"prompt": line})
    return questions


def ask_many(
    client: DeviceClient,
    device: str,
    questions: Sequence[Mapping[str, Any]],
    common: Mapping[str, Any],
    *,
    timeout_s: float,
) -> Iterator[Answer]:
    """Ask all, as many at once as the device takes, and yield each answer as it comes; `common` fields are all's.

    A Ctrl-C cancels what is left. Raises NoAnswerError where not all are answered in time, DeviceError where the device
    refuses a batch as a whole.
    """
    deadline = time.monotonic() + timeout_s
    limits = client.info(device).get("limits")
    most = limits.get("max_batch") if isinstance(limits, dict) else None
    size = most if isinstance(most, int) and most > 0 else AT_ONCE
    for first in range(0, len(questions), size):
        left_s = max(deadline - time.monotonic(), 1.0)
        for answer in _ask_batch(client, device, questions[first : first + size], common, left_s):
            yield Answer(first + answer.number, answer.id, answer.reply)


def _ask_batch(
    client: DeviceClient,
    device: str,
    questions: Sequence[Mapping[str, Any]],
    common: Mapping[str, Any],
    timeout_s: float,
) -> Iterator[Answer]:
    batch_id = new_id()
    numbers = {f"{batch_id}.{number}": number for number in range(len(questions))}
    numbers |= {str(each["id"]): number for number, each in enumerate(questions) if "id" in each}
    waiting = set(range(len(questions)))
    large: list[Answer] = []
    items = {"items": [dict(each) for each in questions]}
    call = client.call(device, "batch", {**common, **items}, batch_id, timeout_s=timeout_s)
    try:
        while (frame := client.hear(call)) is not None:
            if not frame.get("done"):
                continue
            if frame.get("id") == batch_id:
                if frame.get("error"):
                    raise DeviceError(device_words(device, frame["error"]))
                break
            number = numbers.get(str(frame.get("id")))
            if number not in waiting:
                continue
            waiting.remove(number)
            answer = Answer(number, str(frame["id"]), frame)
            if answer.error is not None and answer.error.get("code") == "answer_too_large":
                large.append(answer)
            else:
                yield answer
    except KeyboardInterrupt:
        client.cancel(device, batch_id)
        raise
    client.connection.unsubscribe(call.place)
    if waiting:
        count = f"{len(waiting)} of {len(questions)} questions"
        raise NoAnswerError(f"{device} did not answer {count} within {timeout_s:.0f} s. Give it a longer --timeout")
    for answer in large:
        yield Answer(answer.number, answer.id, fetch(client, device, answer.id, timeout_s=timeout_s))


def fetch(client: DeviceClient, device: str, job_id: str, *, timeout_s: float) -> dict[str, Any]:
    """What has become of a job: its last frame with all of its text, however many messages that takes.

    Raises NoAnswerError as DeviceClient.call(), DeviceError where the job is not known or failed.
    """
    text = ""
    while True:
        place = client.reply_topic(device, new_id())  # the job's own is where its frames may be coming
        call = client.call(device, "get", {"offset": len(text)}, job_id, timeout_s=timeout_s, place=place)
        frame = client.hear(call)
        client.connection.unsubscribe(place)
        if frame is None:
            raise NoAnswerError(f"{device} is online, but did not answer within {timeout_s:g} s")
        if frame.get("error"):
            raise DeviceError(device_words(device, frame["error"]))
        text += str(frame.get("text", ""))
        if not isinstance(frame.get("next_offset"), int) or not frame.get("text"):
            break
    if "text" not in frame:
        return frame
    check_hash(device, text, frame)
    return {**frame, "text": text}
