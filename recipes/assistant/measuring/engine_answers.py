"""What our engine answers: several lines in a batch, held to a response schema or not, with an adapter or not."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgebit.bundle.prompt_program import Message
from edgebit.native_model import native_model
from edgebit.runtime.adapter import Adapter
from edgebit.runtime.engine import KV_TYPES
from edgebit.runtime.generation import Answer, Generation
from edgebit.runtime.session import Session

SEQUENCES = 16
LONGEST = 320  # tokens of an answer: the lengths that the schema allows end each before
CONTEXT = 512


@dataclass(frozen=True, slots=True)
class Written:
    """An answer: its tokens, the text they are, and whether it ended by itself."""

    tokens: tuple[int, ...]
    text: str
    ended: bool


@contextmanager
def engine_of(checkpoint: Path, kv: str = KV_TYPES[0]) -> Iterator[Session]:
    """A session over the checkpoint in a folder; kv: how it holds keys and values."""
    with (
        native_model(checkpoint) as model,
        closing(Session(model, ctx_len=CONTEXT, sequences=SEQUENCES, kv=kv)) as session,
    ):
        yield session


def prompts_of(session: Session, lines: Sequence[str]) -> list[list[int]]:
    """Tokens of a chat of one user line, for each line."""
    return [session.chat_ids([Message("user", line)]) for line in lines]


def engine_answers(
    session: Session, prompts: Sequence[Sequence[int]], *, schema: bytes | None = None, adapter: Adapter | None = None
) -> list[Written]:
    """The greedy answer to each prompt; schema: the program that it is held to."""
    answers = [Answer(len(prompt)) for prompt in prompts]
    waiting = list(range(len(prompts)))[::-1]
    going: list[Generation] = []
    while waiting or going:
        while waiting and len(going) < SEQUENCES:
            number = waiting.pop()
            going.append(
                session.begin(prompts[number], answers[number], max_tokens=LONGEST, adapter=adapter, constraint=schema)
            )
        session.step(going)
        for generation in [each for each in going if each.done]:
            going.remove(generation)
            session.end(generation)
            if generation.error is not None:
                raise generation.error
    return [Written(tuple(answer.tokens), answer.text, answer.done_reason == "stop") for answer in answers]
