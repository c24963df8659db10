"""Why an eval has computed nothing: it was cancelled, or the context is full."""

from edgebit.errors import EngineError


class Cancelled(Exception):
    """Engine.eval() ended early because Engine.cancel() was called; the sequences are as before it."""


class ContextFullError(EngineError):
    """A sequence has no room for the tokens: the prompt or the conversation is longer than the context."""
