"""Multiple-choice questions in the common forms of JSONL files: ARC, HellaSwag, and plain query and choices."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebit.errors import EdgebitError

_DELIMITER = " "  # between a context and its choice
_SHOT_END = "\n\n"  # after each example


@dataclass(frozen=True, slots=True)
class Question:
    """A context, the texts that may follow it, and which of them is right."""

    context: str
    choices: tuple[str, ...]
    gold: int

    @property
    def continuations(self) -> list[str]:
        """The choices as they follow the context."""
        return [_DELIMITER + choice for choice in self.choices]

    def example(self) -> str:
        """With its right answer, as it stands before another question."""
        return self.context + self.continuations[self.gold] + _SHOT_END


def read_questions(lines: Iterable[bytes], name: str) -> list[Question]:
    """The questions of a JSONL file, one a line; empty lines are passed over.

    {"question", "choices": {"text", "label"}, "answerKey"} as ARC has it, {"ctx", "endings", "label"} as HellaSwag
    (with "activity_label", "ctx_a" and "ctx_b" where they are there), or {"query", "choices", "gold"}. Contexts are
    made of them as the tasks arc_easy and hellaswag of lm-evaluation-harness do.
    Raises EdgebitError naming the line that is none of these, or where there is no question.
    """
    questions = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            questions.append(_question(_row(line)))
        except _RowError as error:
            raise EdgebitError(f"{name}, line {number}: {error}") from error
    if not questions:
        raise EdgebitError(f"{name}: there is no question in it")
    return questions


def with_shots(questions: Sequence[Question], shots: Sequence[Question], count: int) -> list[Question]:
    """Each question after the first `count` examples of `shots`, itself passed over.

    Raises EdgebitError where there are fewer.
    """
    made = []
    for question in questions:
        examples = [shot for shot in shots[: count + 1] if shot is not question][:count]
        if len(examples) < count:
            raise EdgebitError(f"--shots {count}, and there are {len(examples)} other questions. Give a smaller number")
        context = "".join(shot.example() for shot in examples) + question.context
        made.append(Question(context, question.choices, question.gold))
    return made


class _RowError(Exception):
    """What is wrong with a row, in words."""


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise _RowError(f"byte {error.start} of it is no UTF-8 ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise _RowError(f"is no JSON: {error.msg}, column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists in lists
        raise _RowError(f"is no JSON that can be read: {error}") from error
    if not isinstance(row, dict):
        raise _RowError("is no JSON object")
    return row


def _question(row: Mapping[str, Any]) -> Question:
    for key, read in (("question", _arc), ("endings", _hellaswag), ("query", _plain)):
        if key in row:
            context, choices, gold = read(row)
            break
    else:
        raise _RowError(
            "has none of the known forms: question, choices, answerKey; ctx, endings, label; query, choices, gold"
        )
    if len(choices) < 2 or not all(choices):
        raise _RowError("two choices or more are needed, and none may be empty")
    if not 0 <= gold < len(choices):
        raise _RowError(f"the right answer is number {gold}, and there are {len(choices)} choices")
    return Question(context, tuple(choices), gold)


def _arc(row: Mapping[str, Any]) -> tuple[str, list[str], int]:
    options = row.get("choices")
    if not isinstance(options, dict):
        raise _RowError('"choices" must be an object with "text" and "label"')
    texts, labels, key = _texts(options, "text"), _texts(options, "label"), str(row.get("answerKey"))
    if len(labels) != len(texts) or key not in labels:
        raise _RowError(f'"answerKey" {key!r} is none of the labels {labels}, or these are not as many as the texts')
    return f"Question: {_text(row, 'question')}\nAnswer:", texts, labels.index(key)


def _hellaswag(row: Mapping[str, Any]) -> tuple[str, list[str], int]:
    if {"activity_label", "ctx_a", "ctx_b"} <= row.keys():
        activity, begin, end = (_text(row, key) for key in ("activity_label", "ctx_a", "ctx_b"))
        context = f"{activity}: {begin} {end.capitalize()}"
    else:
        context = _text(row, "ctx")
    return _without_marks(context), [_without_marks(text) for text in _texts(row, "endings")], _number(row, "label")


def _plain(row: Mapping[str, Any]) -> tuple[str, list[str], int]:
    return _text(row, "query"), _texts(row, "choices"), _number(row, "gold")


def _without_marks(text: str) -> str:
    """HellaSwag's texts from WikiHow have marks such as [header] in them, which its task takes out."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise _RowError(f'"{key}" must be a text')
    return value


def _texts(row: Mapping[str, Any], key: str) -> list[str]:
    values = row.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _RowError(f'"{key}" must be a list of texts')
    return values


def _number(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    if isinstance(value, str) and value.isdecimal():
        return int(value)  # HellaSwag's labels are texts
    if not isinstance(value, int) or isinstance(value, bool):
        raise _RowError(f'"{key}" must be the number of the right choice, from 0 on')
    return value
