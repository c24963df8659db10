"""One decoder layer step by step in numpy, from what the model file holds, each fed with the reference's own input.

So the first step whose output differs is the one at fault, and none inherits the fault of the one before. Steps are in
the order of the forward pass; their mathematics is that of docs/model-format.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebit.bundle.model_format import Activation, ActivationQuantisation, Granularity, Norms, Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.evaluate.parity.agreement import RowAgreement, compare_rows
from edgebit.evaluate.parity.reference import Captured
from edgebit.ternary.absmean import absmax_int8

Rows = NDArray[np.float32]
_ROWS_AT_ONCE = 1024  # of a projection's weights that are float64 at once
_MODULES = {
    Role.INPUT_NORM: "input_layernorm", Role.Q_PROJ: "self_attn.q_proj", Role.K_PROJ: "self_attn.k_proj",
    Role.V_PROJ: "self_attn.v_proj", Role.Q_NORM: "self_attn.q_norm", Role.K_NORM: "self_attn.k_norm",
    Role.ATTN_SUB_NORM: "self_attn.attn_sub_norm", Role.O_PROJ: "self_attn.o_proj",
    Role.POST_ATTENTION_NORM: "post_attention_layernorm", Role.GATE_PROJ: "mlp.gate_proj",
    Role.UP_PROJ: "mlp.up_proj", Role.FFN_SUB_NORM: "mlp.ffn_sub_norm", Role.DOWN_PROJ: "mlp.down_proj",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a layer: the file's result beside the reference's, both of the reference's own input."""

    name: str
    role: Role | None  # the tensor it takes; None: attention itself, the activation
    agreement: RowAgreement


class LayerSteps:
    """The steps of one layer of a model file."""

    def __init__(self, file: Checkpoint, layer: int, captured: Mapping[str, Captured]) -> None:
        self._file, self._layer, self._conf = file, layer, file.config.conf
        self._at = {role: captured[name] for role, name in _MODULES.items() if name in captured}

    def compare(self) -> Iterator[Step]:
        """Each step in order. Raises KeyError where the reference has no such module."""
        yield self._of_tensor(Role.INPUT_NORM, self._norm)
        for role in (Role.Q_PROJ, Role.K_PROJ, Role.V_PROJ):
            yield self._of_tensor(role, self._project)
        if Norms.QK_NORM in self._conf.norms:
            for role in (Role.Q_NORM, Role.K_NORM):
                yield self._of_tensor(role, self._norm_heads)
        after = Role.ATTN_SUB_NORM if Norms.ATTN_SUB_NORM in self._conf.norms else Role.O_PROJ
        yield Step("attention", None, compare_rows(self._attend(), self._at[after].given))
        if Norms.ATTN_SUB_NORM in self._conf.norms:
            yield self._of_tensor(Role.ATTN_SUB_NORM, self._norm)
        yield self._of_tensor(Role.O_PROJ, self._project)
        yield self._of_tensor(Role.POST_ATTENTION_NORM, self._norm)
        for role in (Role.GATE_PROJ, Role.UP_PROJ):
            yield self._of_tensor(role, self._project)
        after = Role.FFN_SUB_NORM if Norms.FFN_SUB_NORM in self._conf.norms else Role.DOWN_PROJ
        yield Step("activation", None, compare_rows(self._activate(), self._at[after].given))
        if Norms.FFN_SUB_NORM in self._conf.norms:
            yield self._of_tensor(Role.FFN_SUB_NORM, self._norm)
        yield self._of_tensor(Role.DOWN_PROJ, self._project)

    def _of_tensor(self, role: Role, compute: Callable[[Role, Rows], Rows]) -> Step:
        captured = self._at[role]
        return Step(role.name.lower(), role, compare_rows(compute(role, captured.given), captured.made))

    def _norm(self, role: Role, x: Rows, eps: float | None = None) -> Rows:
        return rms_norm(x, self._file.vector(role, self._layer), eps or self._conf.rms_norm_eps)

    def _norm_heads(self, role: Role, x: Rows) -> Rows:
        heads = x.reshape(len(x), -1, self._conf.head_dim)
        return self._norm(role, heads).reshape(x.shape)

    def _project(self, role: Role, x: Rows) -> Rows:
        if Norms.PROJECTION_NORM in self._conf.norms:
            x = self._norm(role.norm_of, x, self._conf.projection_norm_eps)
        quantised, factor = x.astype(np.float64), np.ones((len(x), 1))
        if self._conf.activation_quantisation == ActivationQuantisation.INT8:
            codes, by = absmax_int8(x)
            quantised, factor = codes.astype(np.float64), by.astype(np.float64)
        scaling, stored = self._file.scaling(role, self._layer), self._file.projection(role, self._layer)
        rows, columns = stored.weights.shape
        group = scaling.group if scaling.granularity == Granularity.GROUP else columns
        scales = stored.scales.reshape(columns // group, -1)  # [groups, rows or 1]
        made = np.zeros((len(x), rows))
        for first in range(0, rows, _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            for number, begin in enumerate(range(0, columns, group)):
                weights = stored.weights[part, begin : begin + group].astype(np.float64)
                by_row = scales[number] if scales.shape[1] == 1 else scales[number, part]
                made[:, part] += quantised[:, begin : begin + group] @ weights.T * by_row
        result: Rows = (made / factor).astype(np.float32)
        return result

    def _attend(self) -> Rows:
        """Causal attention of the reference's queries, keys and values."""
        conf, dim = self._conf, self._conf.head_dim
        queries, keys = (
            self._rotate(self._at[norm if norm in self._at else projection].made.reshape(-1, heads, dim))
            for norm, projection, heads in (
                (Role.Q_NORM, Role.Q_PROJ, conf.n_heads),
                (Role.K_NORM, Role.K_PROJ, conf.n_kv_heads),
            )
        )
        values = self._at[Role.V_PROJ].made.reshape(-1, conf.n_kv_heads, dim).astype(np.float64)
        tokens, shared = len(values), conf.n_heads // conf.n_kv_heads
        mask = np.triu(np.full((tokens, tokens), -np.inf), 1)
        made = np.empty((tokens, conf.n_heads, dim))
        for head in range(conf.n_heads):
            scores = queries[:, head] @ keys[:, head // shared].T * dim**-0.5 + mask
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            made[:, head] = weights / weights.sum(axis=1, keepdims=True) @ values[:, head // shared]
        result: Rows = made.reshape(tokens, -1).astype(np.float32)
        return result

    def _rotate(self, x: Rows) -> NDArray[np.float64]:
        """RoPE, the first half of a head with the second, [tokens, heads, head_dim]."""
        angles = np.arange(len(x))[:, None] * self._file.config.rope_inv_freq.astype(np.float64)
        factor = self._conf.rope_attention_factor
        cosine, sine = (np.tile(part(angles), 2)[:, None] * factor for part in (np.cos, np.sin))
        first, second = np.split(x.astype(np.float64), 2, axis=-1)
        rotated: NDArray[np.float64] = x * cosine + np.concatenate([-second, first], axis=-1) * sine
        return rotated

    def _activate(self) -> Rows:
        gate, up = self._at[Role.GATE_PROJ].made, self._at[Role.UP_PROJ].made
        if self._conf.activation == Activation.RELU2:
            active = np.maximum(gate, 0) ** 2
        else:
            active = gate * (0.5 * (1 + np.tanh(gate / 2)))  # gate x sigmoid(gate), without overflow
        made: Rows = (active * up).astype(np.float32)
        return made


def rms_norm(x: Rows, weights: Rows, eps: float) -> Rows:
    """RMSNorm over the last axis."""
    wide = x.astype(np.float64)
    normed: Rows = (wide / np.sqrt((wide**2).mean(axis=-1, keepdims=True) + eps) * weights).astype(np.float32)
    return normed
