"""Keys of edgebit's own in a GGUF file's metadata: what the format has no key for. Other programs ignore them."""

ACTIVATIONS = "edgebit.activation_quantisation"  # "int8" or "float": what the model was trained with
I2S_DIALECT = "edgebit.i2s_dialect"  # of tensors in I2_S: "x86", "arm" or "rows4"
NORMALIZER = "edgebit.tokenizer.normalizer"  # the lower-case name of a Normalizer
IGNORE_MERGES = "edgebit.tokenizer.ignore_merges"  # a truth value: a piece that is a token is taken whole
SPACE_PREFIX = "edgebit.tokenizer.space_prefix"  # the lower-case name of a SpacePrefix
RESPONSE_SCHEMA = "edgebit.response_schema"  # JSON text: the JSON Schema that answers follow
STRIP_LEADING_SPACE = "edgebit.tokenizer.strip_leading_space"  # a truth value: of decoded text, one
