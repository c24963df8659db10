"""How much of a schema a device bears: a request that asks for more is refused, and never slow or large."""

MOST_SOURCE = 1 << 18  # bytes of its JSON text
MOST_NODES = 4_096  # schemas within one
MOST_DEPTH = 64  # of schemas within schemas
MOST_LENGTH = 1_000_000  # minLength, maxLength
MOST_ITEMS = 1_024  # minItems, maxItems: each takes states of its own
MOST_DIGITS = 40  # of a bound of numbers, before or after the point
MOST_STATES = 32_768  # of the program
MOST_EDGES = 131_072
MOST_NETWORK_STATES = 65_536  # before their choices are settled
MOST_NETWORK_EDGES = 131_072
MOST_WORK = 250_000  # steps of settling them: about a third of a second
MOST_COMPARED = 200_000  # steps of comparing the branches of all oneOf: about half a second
MOST_TEXT = 1 << 18  # bytes of all literals and names
MOST_UNROLLED = 512  # characters of a counted string that has to be told apart from another
MOST_NESTED = 32  # values within values that have to be told apart from others at once
ANY_DEPTH = 16  # arrays and objects within another where any JSON may stand
INTEGER_DIGITS = 15  # of a number without bounds: a double holds them exactly
FRACTION_DIGITS = 15
EXPONENT_DIGITS = 2
