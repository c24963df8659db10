"""Schemas at random, of all that is supported; each has an answer."""

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "ab", "b", "name", "na", 'q"x', "é", "intent"])
TEXTS = st.sampled_from(["", "a", "ab", "abc", 'x"y', "\n", "\x01", "é", "日本", "😀", "on", "off"])
CONSTANTS = st.one_of(TEXTS, st.integers(-20, 300), st.sampled_from([1.5, None, True, [], [1, "a"], {"k": "v"}]))


@st.composite
def ranges(draw, values):
    """minimum, exclusiveMaximum and so on, with something in between."""
    low, high = sorted(draw(st.tuples(values, values)))
    schema = {}
    lower = draw(st.sampled_from([None, "minimum", "exclusiveMinimum"]))
    upper = draw(st.sampled_from([None, "maximum", "exclusiveMaximum"]))
    if lower:
        schema[lower] = low - (lower != "minimum")
    if upper:
        schema[upper] = high + (upper != "maximum")
    return schema


INTEGERS = st.one_of(ranges(st.integers(-30, 30)), ranges(st.integers(-(10**18), 10**18)))
NUMBERS = ranges(st.decimals(-200, 200, places=2, allow_nan=False).map(float))


@st.composite
def strings(draw):
    least = draw(st.integers(0, 3))
    schema = {"type": "string"}
    if draw(st.booleans()):
        schema["minLength"] = least
    if draw(st.booleans()):
        schema["maxLength"] = least + draw(st.integers(0, 4))
    return schema


SCALARS = st.one_of(
    strings(),
    INTEGERS.map(lambda bounds: {"type": "integer", **bounds}),
    NUMBERS.map(lambda bounds: {"type": "number", **bounds}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"], "maxLength": 3}]),
    CONSTANTS.map(lambda value: {"const": value}),
    st.lists(CONSTANTS, min_size=1, max_size=4).map(lambda values: {"enum": values}),
)


@st.composite
def objects(draw, values):
    properties = draw(st.dictionaries(NAMES, values, max_size=4))
    schema = {"type": "object", "properties": properties}
    schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(st.one_of(st.booleans(), values))
    return schema


@st.composite
def arrays(draw, values):
    schema = {"type": "array", "items": draw(values)}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(values, min_size=1, max_size=2))
        schema["items"] = draw(st.one_of(st.just(False), values))
    least = draw(st.integers(0, len(schema.get("prefixItems", [])) or 2))
    if draw(st.booleans()):
        schema["minItems"] = least
    if draw(st.booleans()):
        schema["maxItems"] = least + draw(st.integers(0, 2))
    return schema


def _branches(values):
    return st.lists(values, min_size=1, max_size=4).map(lambda branches: {"anyOf": branches})


SCHEMAS = st.recursive(
    st.one_of(SCALARS, st.just(True)),
    lambda each: st.one_of(objects(each), arrays(each), _branches(each)),
    max_leaves=8,
)

# Lists and trees that refer to themselves.
RECURSIVE = st.tuples(SCALARS, SCALARS).map(
    lambda two: {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "leaf": two[0],
                    "more": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
                },
                "required": ["leaf"],
                "additionalProperties": False,
            },
            "list": {"anyOf": [{"type": "null"}, {"type": "array", "prefixItems": [two[1], {"$ref": "#/$defs/list"}],
                                                  "items": False, "minItems": 2}]},
        },
        "anyOf": [{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/list"}],
    }
)  # fmt: skip
