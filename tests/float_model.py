"""A model in numpy, from what a Checkpoint gives: float32 everywhere, one token's position a row.

Independent of the engine and of transformers: it takes codes, scales and norms apart from the roles of the model file,
and multiplies them out. Activations are rounded to int8 where the model was trained so, and left as they are elsewhere.
"""

import numpy as np

from edgebit.bundle.model_format import NO_LAYER, Activation, ActivationQuantisation, Granularity, Norms, Role
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.ternary.absmean import absmax_int8


class FloatModel:
    """All weights of a small checkpoint, and its forward pass layer by layer."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.conf = checkpoint.config.conf
        self.inv_freq = checkpoint.config.rope_inv_freq
        self.matrices = {
            (role, layer): self._matrix(checkpoint, role, layer)
            for role, layer in self.conf.roles()
            if role.is_projection
        }
        skipped = {Role.TOKEN_EMBEDDING, Role.HEAD, Role.ROPE_INV_FREQ}
        self.norms = {
            (role, layer): checkpoint.vector(role, layer)
            for role, layer in self.conf.roles()
            if not role.is_projection and role not in skipped
        }
        self.embedding, self.head = (
            np.concatenate([values for _, values in checkpoint.rows(role)])
            for role in (Role.TOKEN_EMBEDDING, Role.HEAD)
        )

    def _matrix(self, checkpoint: Checkpoint, role: Role, layer: int) -> np.ndarray:
        scaling, projection = checkpoint.scaling(role, layer), checkpoint.projection(role, layer)
        rows, columns = self.conf.shape_of(role)
        assert projection.weights.shape == (rows, columns)
        assert len(projection.scales) == scaling.count(rows, columns)
        if scaling.granularity == Granularity.TENSOR:
            return projection.weights * projection.scales[0]
        by_group = projection.scales.reshape(-1, rows, 1)  # one group where scales are by row
        return np.concatenate(
            [
                part * scale
                for part, scale in zip(np.split(projection.weights, len(by_group), 1), by_group, strict=True)
            ],
            axis=1,
        )

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Of the last layer's hidden states, [tokens, vocabulary]."""
        return self._norm(hidden, Role.FINAL_NORM, NO_LAYER, self.conf.rms_norm_eps) @ self.head.T

    def layer(self, hidden: np.ndarray, layer: int) -> np.ndarray:
        """The hidden states after a layer, of those before it, [tokens, hidden]."""
        eps = self.conf.rms_norm_eps
        x = self._norm(hidden, Role.INPUT_NORM, layer, eps)
        attended = self._attention(x, layer)
        if Norms.ATTN_SUB_NORM in self.conf.norms:
            attended = self._norm(attended, Role.ATTN_SUB_NORM, layer, eps)
        hidden = hidden + self._project(attended, Role.O_PROJ, layer)
        x = self._norm(hidden, Role.POST_ATTENTION_NORM, layer, eps)
        gate, up = self._project(x, Role.GATE_PROJ, layer), self._project(x, Role.UP_PROJ, layer)
        act = np.maximum(gate, 0) ** 2 if self.conf.activation == Activation.RELU2 else gate / (1 + np.exp(-gate))
        inner = act * up
        if Norms.FFN_SUB_NORM in self.conf.norms:
            inner = self._norm(inner, Role.FFN_SUB_NORM, layer, eps)
        return hidden + self._project(inner, Role.DOWN_PROJ, layer)

    def _norm(self, x: np.ndarray, role: Role, layer: int, eps: float) -> np.ndarray:
        mean = np.mean(x**2, axis=-1, keepdims=True, dtype=np.float32)
        return (x / np.sqrt(mean + np.float32(eps)) * self.norms[role, layer]).astype(np.float32)

    def _project(self, x: np.ndarray, role: Role, layer: int) -> np.ndarray:
        if Norms.PROJECTION_NORM in self.conf.norms:
            x = self._norm(x, role.norm_of, layer, self.conf.projection_norm_eps)
        if self.conf.activation_quantisation == ActivationQuantisation.INT8:
            codes, factor = absmax_int8(x)
            x = codes / factor
        return (x @ self.matrices[role, layer].T).astype(np.float32)

    def _attention(self, x: np.ndarray, layer: int) -> np.ndarray:
        conf, tokens = self.conf, len(x)
        q = self._project(x, Role.Q_PROJ, layer).reshape(tokens, conf.n_heads, conf.head_dim)
        k = self._project(x, Role.K_PROJ, layer).reshape(tokens, conf.n_kv_heads, conf.head_dim)
        v = self._project(x, Role.V_PROJ, layer).reshape(tokens, conf.n_kv_heads, conf.head_dim)
        if Norms.QK_NORM in conf.norms:
            q = self._norm(q, Role.Q_NORM, layer, conf.rms_norm_eps)
            k = self._norm(k, Role.K_NORM, layer, conf.rms_norm_eps)
        q, k = self._rotate(q), self._rotate(k)
        shared = conf.n_heads // conf.n_kv_heads
        scores = np.einsum("qhd,khd->hqk", q, np.repeat(k, shared, 1)) / np.float32(conf.head_dim**0.5)
        scores += np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.einsum("hqk,khd->qhd", weights, np.repeat(v, shared, 1)).reshape(tokens, -1)

    def _rotate(self, x: np.ndarray) -> np.ndarray:
        angles = (np.arange(len(x), dtype=np.float32)[:, None] * self.inv_freq)[:, None]
        cos, sin = (part * np.float32(self.conf.rope_attention_factor) for part in (np.cos(angles), np.sin(angles)))
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(np.float32)
