"""JSON Schema to a program that holds answers to it: docs/json-schema.md. Needs the standard library alone."""

import codecs
import json
from decimal import localcontext
from typing import Any

from edgebit.errors import SchemaError
from edgebit.runtime.json_schema.anything import ANY_OBJECT
from edgebit.runtime.json_schema.determinise import Determiniser
from edgebit.runtime.json_schema.limits import MOST_DIGITS, MOST_SOURCE
from edgebit.runtime.json_schema.network import Network
from edgebit.runtime.json_schema.nodes import Node, Reference
from edgebit.runtime.json_schema.program import pack
from edgebit.runtime.json_schema.reader import SchemaReader
from edgebit.runtime.json_schema.shrink import shrink
from edgebit.runtime.json_schema.values import Values

__all__ = ["any_object", "compile_schema", "parse_schema", "schema_section"]


def parse_schema(text: str | bytes) -> object:
    """A schema from its JSON text, in UTF-8 if it is bytes, with or without a byte order mark.

    Raises SchemaError where it is none, too long, or a key stands twice in an object: one of the two would be ignored.
    """
    if len(text) > MOST_SOURCE:
        raise SchemaError(f"the schema has more than {MOST_SOURCE} bytes")
    text = _decoded(text) if isinstance(text, bytes) else text
    if not text.strip():
        raise SchemaError("the schema is empty. Where anything may be answered, it is {}")
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"the schema is no JSON: {error}") from error


def _decoded(text: bytes) -> str:
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in text[:4]:
        raise SchemaError("the schema is in UTF-16 or UTF-32. Save it as UTF-8")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SchemaError(f"the schema is no UTF-8 at byte {error.start}. Save it as UTF-8") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaError(f"the key {json.dumps(twice)} stands twice in one object of the schema. Leave one")
    return content


def schema_section(text: str | bytes) -> bytes:
    """Section SCHM of a model file: the schema in one spelling, its properties in their order.

    Raises SchemaError where answers cannot be held to it.
    """
    schema = parse_schema(text)
    compile_schema(schema)
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode()


def compile_schema(schema: object) -> bytes:
    """The program for a schema as json.loads() gives it.

    Raises SchemaError that names a keyword and its JSON pointer where something is not supported, or too much for a
    device: the work is bounded, docs/json-schema.md says by what.
    """
    reader = SchemaReader(schema)
    return _compile(reader, Reference("#"))


def any_object() -> bytes:
    """The program for any JSON object: mode "json_object"."""
    return _compile(SchemaReader(True), ANY_OBJECT)


def _compile(reader: SchemaReader, node: Node) -> bytes:
    with localcontext(prec=4 * MOST_DIGITS):
        network = Network()
        values = Values(reader, network)
        start, end = network.state(), network.state()
        values.add(start, end, node)
        determiniser = Determiniser(values, network)
        root = determiniser.run(start, end)
        reader.check()
        return pack(shrink(determiniser.states, root))
