"""A model file's response schema: that a device can hold answers to it."""

from edgebit.bundle.model_reader import ModelFile
from edgebit.checks import Check
from edgebit.errors import SchemaError
from edgebit.runtime.json_schema import compile_schema, parse_schema


def check_response_schema(file: ModelFile) -> list[Check]:
    """Section SCHM compiled, as a device does when it opens the model; no check where there is none.

    Raises BundleError where the section cannot be read.
    """
    text, name = file.content("SCHM"), "response schema"
    if text is None:
        return []
    try:
        program = compile_schema(parse_schema(text))
    except SchemaError as error:
        return [Check(name, "failed", f"no answer can be held to it: {error}. Convert the checkpoint again")]
    return [Check(name, "passed", f"{len(text):,} bytes, a program of {len(program):,}")]
