"""The response schema of a model, as exports carry it."""

from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.errors import SchemaError
from edgebit.runtime.json_schema import schema_section


def response_schema_text(checkpoint: Checkpoint) -> str | None:
    """The JSON text as it stands in the model; None: it has none.

    Raises SchemaError where answers cannot be held to it, naming the checkpoint, and what reading it raises.
    """
    content = checkpoint.response_schema()
    if content is None:
        return None
    try:
        schema_section(content)
    except SchemaError as error:
        raise SchemaError(f"{checkpoint.path}: the response schema: {error}") from error
    return content.decode("utf-8-sig").strip()
