"""From a question to the tokens that an engine is given."""

from pathlib import Path

from edgebit.bundle.prompt_program import Message
from edgebit.engines.engine import TextEngine
from edgebit.errors import EngineError


def question_ids(engine: TextEngine, path: Path, prompt: str, system: str | None, *, raw: bool) -> list[int]:
    """Tokens of `prompt` in the template of the model at `path`, where it has one and `raw` is not wanted; else plain.

    Raises EngineError where there is a system message and no template to put it into.
    """
    if raw or not engine.has_chat_template:
        if system is not None:
            raise EngineError(f"{path} has no chat template, which --system belongs to. Leave it out")
        return engine.prompt_ids(prompt)
    messages = [Message("system", system)] if system is not None else []
    return engine.chat_ids([*messages, Message("user", prompt)])
