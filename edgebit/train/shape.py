"""The sizes of a model that is trained, under the names of its config.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from edgebit.errors import TrainError

ACTIVATIONS = ("relu2", "silu")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """What a decoder is made from. Raises TrainError where the sizes do not go together."""

    vocab_size: int = 768
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    hidden_act: str = "relu2"
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        """Check that every size is positive and that heads share the hidden size evenly."""
        for name, value in asdict(self).items():
            if name not in ("hidden_act", "tie_word_embeddings") and not value > 0:
                raise TrainError(f"{name} is {value}, and must be more than 0")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise TrainError(
                f"hidden_size {self.hidden_size} does not part into {self.num_attention_heads} heads of even width. "
                f"Take a multiple of {2 * self.num_attention_heads}, or other --heads and --kv-heads"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise TrainError(
                f"{self.num_attention_heads} heads do not share {self.num_key_value_heads} key-value heads evenly. "
                "Take a divisor of the heads as --kv-heads"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise TrainError(f"hidden_act is {self.hidden_act!r}, and must be one of {', '.join(ACTIVATIONS)}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def kv_size(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.num_key_value_heads * self.head_dim

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The shape that a config.json tells, whose rope_theta may lie in rope_parameters."""
        known = {**(config.get("rope_parameters") or {}), **config}
        return cls(**{field.name: known[field.name] for field in fields(cls) if field.name in known})
