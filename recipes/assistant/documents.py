"""Training examples as documents: a chat of one user line, at times of two or with a system message, and its answer."""

import random
from collections.abc import Callable
from pathlib import Path

from edgebit.bundle.prompt_program import Message
from edgebit.train.data.examples import Conversation
from edgebit.train.data.rendering import Encoder
from edgebit.train.rows import Document
from recipes.assistant.examples import Example, training_example

SYSTEM_SHARE, SECOND_TURN_SHARE = 0.03, 0.04
SPARE = 1 << 40  # further on in the stream than any training comes
SYSTEM = ("You are a helpful assistant.", "You are the voice of the house.", "Answer with a JSON object.")


def conversation(seed: int, number: int) -> Conversation:
    """The chat that belongs to the training example of that number."""
    rng = random.Random(f"chat {seed}/{number}")
    chance = rng.random()
    messages: list[Message] = []
    if chance < SYSTEM_SHARE:
        messages.append(Message("system", rng.choice(SYSTEM)))
    elif chance < SYSTEM_SHARE + SECOND_TURN_SHARE:
        messages += turn(training_example(seed + 1, number))
    return Conversation((*messages, *turn(training_example(seed, number))))


def turn(example: Example) -> list[Message]:
    """A user line and its answer."""
    return [Message("user", example.text), Message("assistant", example.answer)]


def documents(tokenizer: Path, seed: int, most: int) -> Callable[[int], Document]:
    """The document of each number, by the tokenizer in a folder.

    A chat of more than `most` tokens loses its first turns; if it is too long even so, another takes its place.
    """
    encoder = Encoder(tokenizer)

    def document(number: int) -> Document:
        chat = conversation(seed, number)
        found = encoder.conversation(chat)[0]
        if len(found.ids) > most:
            found = encoder.conversation(Conversation(chat.messages[-2:]))[0]
        return found if len(found.ids) <= most else document(number + SPARE)

    return document
