"""The activation of the feed-forward network, long a constant of each architecture in bitnet.cpp and llama.cpp.

Converters wrote bitnet-b1.58-2B-4T as architecture bitnet too, whose constant was SiLU: a perplexity of 100 where
squared ReLU gives 17. Since August 2026 a key says which. Sources: microsoft/BitNet, issues 588 and 602; llama.cpp,
pull request 26751.
"""

from edgebit.bundle.model_format import Activation, Norms
from edgebit.checkpoint.gguf_file.architectures import Architecture
from edgebit.checkpoint.gguf_file.keys import Keys

_KEY = "hidden_activation"
_BY_NAME = {"silu": Activation.SILU, "relu2": Activation.RELU2}
_LLAMA3_VOCABULARY = 128256  # of 2B-4T; 1bitLLM's models have 32002 tokens


def find_ffn_activation(keys: Keys, architecture: Architecture, vocab_size: int) -> tuple[Activation, str | None]:
    """The activation, and a note where it is not what the architecture says.

    Raises CheckpointError where the key names one that this architecture does not have.
    """
    named = keys.get(_KEY)
    if named is None:
        if architecture.name == "bitnet" and vocab_size == _LLAMA3_VOCABULARY:
            note = (
                "the vocabulary is that of bitnet-b1.58-2B-4T, which has squared ReLU: architecture bitnet alone would "
                f"mean SiLU. If the model has SiLU, {architecture.name}.{_KEY} must say silu"
            )
            return Activation.RELU2, note
        return architecture.activation, None
    known = list(_BY_NAME) if Norms.FFN_SUB_NORM in architecture.norms else [architecture.activation.name.lower()]
    if not isinstance(named, str) or named not in known:
        raise keys.fault(_KEY, f"is {named!r}; known with architecture {architecture.name}: {', '.join(known)}")
    return _BY_NAME[named], None
