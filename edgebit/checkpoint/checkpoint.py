"""A checkpoint, whatever its format: the model's configuration, and its tensors in the form the model file wants."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Conf, Encoding, Role, Scaling
from edgebit.checkpoint.tokenizer import CheckpointTokenizer

RESPONSE_SCHEMA = "response_schema.json"  # in a checkpoint's folder
CHUNK_BYTES = 16 << 20  # of stored weights read at once
Format = Literal["safetensors", "gguf", "pytorch", "edgebit"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A checkpoint's configuration: what to compute, and what its makers say about it."""

    name: str
    conf: Conf
    rope_inv_freq: NDArray[np.float32]  # [head_dim / 2]
    generation: dict[str, float]  # what the makers advise for sampling: temperature, top_p, top_k ...
    licence: str | None


@dataclass(frozen=True, slots=True)
class Projection:
    """The ternary weights of one linear layer: weights[row, column] x the scale it falls under."""

    weights: NDArray[np.int8]  # {-1, 0, +1}, [rows, columns]
    scales: NDArray[np.float32]  # as many as its Scaling counts, in that order


class Checkpoint(Protocol):
    """An open checkpoint, all of whose tensors are there in the right shape and type.

    Tensors are asked for by role and layer (NO_LAYER where it has none) and read from the files each time; every read
    raises CheckpointError naming file and tensor where a value cannot be: NaN, infinity, a code that is not ternary.
    """

    path: Path  # the folder or file that was opened
    format: Format
    family: str
    config: ModelConfig
    notes: list[str]  # what was repaired or guessed, for the user to read

    def close(self) -> None: ...

    def weight_files(self) -> list[Path]:
        """The files that the weights come from."""
        ...

    def embedding_encoding(self) -> Encoding:
        """How the token embedding is kept exactly: F32, F16 or BF16."""
        ...

    def vector(self, role: Role, layer: int) -> NDArray[np.float32]:
        """A norm's weights, [features]."""
        ...

    def rows(self, role: Role) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """The token embedding or the head in chunks of rows: in embedding_encoding() (bf16 as its bits), as float32.

        A tied head is the embedding.
        """
        ...

    def scaling(self, role: Role, layer: int) -> Scaling:
        """Which weights of a projection share a scale."""
        ...

    def projection(self, role: Role, layer: int) -> Projection: ...

    def tokenizer(self) -> CheckpointTokenizer | None:
        """The tokenizer; None: there is none. Raises TokenizerError where it cannot be carried over exactly."""
        ...

    def response_schema(self) -> bytes | None:
        """The JSON Schema that the model's answers follow, as its text; None: there is none."""
        ...
