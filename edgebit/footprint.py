"""What a model takes: bytes that a decode step reads, and bytes of memory, from its sizes alone.

The sizes of tensors are exact. Scratch memory is the engine's own sum in short, and held to it by a test.
"""

import math
from dataclasses import dataclass

from edgebit.bundle.model_format import (
    NO_LAYER,
    PER_TENSOR,
    ActivationQuantisation,
    Conf,
    Encoding,
    Norms,
    Role,
    ScalingOf,
    head_parts,
    values_size,
)
from edgebit.bundle.tensor_plan import stored_as
from edgebit.roofline import Part
from edgebit.runtime.defaults import BATCH_LEN

LOW_PLANES = "head's low planes"  # in memory(): what greedy decoding does without
KV_TYPES = ("f16", "int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """A model's sizes in one choice of encodings."""

    conf: Conf
    layout: str  # of the projections: "t2", "t1"; those with scales by group are t2 always
    embedding: Encoding
    other_bytes: int  # of the model file beside the tensors: tokenizer, tables
    scaling: ScalingOf = lambda role, layer: PER_TENSOR

    def tensor_bytes(self, role: Role, layer: int = NO_LAYER) -> int:
        """Values and scales of one tensor."""
        rows, columns = self.conf.shape_of(role)
        layout = Encoding[self.layout.upper()]
        encoding, scaled = stored_as(role, layer, embedding=self.embedding, layout=layout, scaling=self.scaling)
        return values_size(encoding, rows, columns, scaled.group) + 4 * scaled.count(rows, columns)

    @property
    def ternary_bytes(self) -> int:
        return sum(self.tensor_bytes(role, layer) for role, layer in self.conf.roles() if role.is_projection)

    @property
    def ternary_weights(self) -> int:
        return sum(math.prod(self.conf.shape_of(role)) for role, _ in self.conf.roles() if role.is_projection)

    @property
    def _planes(self) -> int:
        """Vectors of int8 that the input of a projection is: each is multiplied with all weights."""
        return 2 if self.conf.activation_quantisation == ActivationQuantisation.INT15 else 1

    @property
    def head_high_bytes(self) -> int:
        """The head's high plane with its bounds, and scales: what a greedy decode step reads of all rows."""
        rows, columns = self.conf.shape_of(Role.HEAD)
        return head_parts(rows, columns)[0] + 4 * rows + 4 * rows

    @property
    def head_low_bytes(self) -> int:
        """The head's other planes: all of it where sampling needs the whole distribution, else a few rows."""
        return self.tensor_bytes(Role.HEAD) - self.head_high_bytes

    @property
    def vector_bytes(self) -> int:
        """Norms and RoPE's table."""
        return sum(self.tensor_bytes(role) for role, _ in self.conf.roles() if self.conf.shape_of(role)[0] == 1)

    def kv_bytes(self, kv: str, context: int) -> int:
        """KV cache of so many tokens, in groups of 16: keys and values of all layers (kernels/src/kv_cache.h)."""
        conf = self.conf
        key, value = conf.head_dim, _round_up(conf.head_dim, 16)
        of_head = {"f16": 2 * key + 2 * value, "int8": _round_up(key, 4) + value + 2 * 4}[kv]  # 4: a float scale
        return conf.n_layers * conf.n_kv_heads * of_head * _round_up(context, 16)

    def decode_parts(self, context: int, kv: str) -> list[Part]:
        """What one greedy decode step reads and computes after `context` tokens."""
        conf = self.conf
        return [
            self._projections(f"gemv_{self.layout}"),
            Part(name="head", n_bytes=self.head_high_bytes, weights=conf.vocab_size * conf.hidden_size, op="gemv_h4"),
            Part(name="norms", n_bytes=self.vector_bytes + self._embedding_row_bytes),
            Part(name="KV cache", n_bytes=self.kv_bytes(kv, context)),
        ]

    def prefill_parts(self) -> list[Part]:
        """What a prefill pass of BATCH_LEN tokens reads and computes; attention is left out."""
        return [self._projections("gemm_c8")]

    def _projections(self, op: str) -> Part:
        return Part(name="projections", n_bytes=self.ternary_bytes, weights=self._planes * self.ternary_weights, op=op)

    def memory(self, *, context: int, kv: str, threads: int, logits_rows: int, page_bytes: int) -> dict[str, int]:
        """Bytes of memory by what they are for, with `context` tokens in one sequence; the daemon's own aside.

        Weights are mapped: what is not read takes none. Of the embedding a row is read for each token, in pages.
        """
        touched = context * (self._embedding_row_bytes + page_bytes)
        return {
            "projections": self.ternary_bytes,
            "head": self.head_high_bytes,
            LOW_PLANES: self.head_low_bytes,
            "embedding": min(touched, self.tensor_bytes(Role.TOKEN_EMBEDDING)),
            "tokenizer and tables": self.other_bytes + self.vector_bytes,
            "KV cache": self.kv_bytes(kv, context),
            "scratch": self.scratch_bytes(context, threads, logits_rows),
        }

    def scratch_bytes(self, context: int, threads: int, logits_rows: int = 1, batch_len: int = BATCH_LEN) -> int:
        """The engine's buffers beside the KV cache (take_buffers in kernels/src/engine.c)."""
        conf = self.conf
        attention, kv = conf.n_heads * conf.head_dim, conf.n_kv_heads * conf.head_dim
        widest = max(conf.hidden_size, attention, conf.ffn_size)
        of_token = 4 * (conf.hidden_size + widest + 3 * attention + 2 * kv + conf.ffn_size) + self._input_bytes(widest)
        of_token += 4 * conf.head_dim + 2 * _round_up(conf.hidden_size, 256)
        has_values = self._most_groups > 1 or self._planes > 1 or Norms.PROJECTION_NORM in conf.norms
        of_thread = 4 * conf.n_heads // conf.n_kv_heads * (context + conf.head_dim)
        of_thread += 16 * ((16 if has_values else 8) * batch_len + widest)
        of_logits = (4 + 8) * logits_rows * conf.vocab_size  # floats, and the high plane's integers of up to 16 rows
        return batch_len * of_token + threads * of_thread + of_logits + 4 * 16 * 1024

    def _input_bytes(self, widest: int) -> int:
        """What a token's inputs of projections take (kernels/src/projection_input.c), by what the model has."""
        has_own_norms = Norms.PROJECTION_NORM in self.conf.norms
        n_bytes = (3 if has_own_norms else 1) * self._planes * widest + (4 * widest if has_own_norms else 0)
        if self._most_groups > 1 or self._planes > 1:
            n_bytes += 3 * self._planes * 4 * self._most_groups
        return n_bytes

    @property
    def _most_groups(self) -> int:
        """Of columns that share a scale, in a projection."""
        counts = [1]
        for role, layer in self.conf.roles():
            if role.is_projection and (group := self.scaling(role, layer).group):
                counts.append(self.conf.shape_of(role)[1] // group)
        return max(counts)

    @property
    def _embedding_row_bytes(self) -> int:
        return values_size(self.embedding, 1, self.conf.hidden_size)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
