"""edgebit: ternary language models, from a checkpoint to a small device that answers over MQTT."""

__version__ = "0.1.0"
