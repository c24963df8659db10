"""What goes along from the model that a training begins with."""

from pathlib import Path

from edgebit.checkpoint.checkpoint import RESPONSE_SCHEMA
from edgebit.errors import SchemaError, TrainError
from edgebit.runtime.json_schema import schema_section


def response_schema_of(folder: Path) -> dict[str, bytes]:
    """The response schema of a checkpoint as a file by its name, which goes along; nothing where it has none.

    Raises SchemaError where answers cannot be held to it, TrainError where it cannot be read.
    """
    path = folder / RESPONSE_SCHEMA
    if not path.is_file():
        return {}
    try:
        content = path.read_bytes()
        schema_section(content)
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror}") from error
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error
    return {path.name: content}
