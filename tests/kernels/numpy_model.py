"""A decoder layer of a TinyModel in numpy, float64 and exact integers: what the engine is held to."""

from collections.abc import Mapping

import numpy as np

from edgebit.bundle.model_format import NO_LAYER, Activation, ActivationQuantisation, Conf, Norms, Role
from edgebit.checkpoint.hugging_face.peft_folder import LowRankPair, Place
from tests.kernels.tiny_model import TinyModel

_LEVELS = {ActivationQuantisation.INT8: (127, 128, 1e-5), ActivationQuantisation.INT15: (16256, 16256, 1e-20)}


def normed(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """RMSNorm over the last axis; weight [1, n]."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight[0]


def layer_of(
    model: TinyModel, layer: int, x: np.ndarray, pairs: Mapping[Place, LowRankPair] | None = None
) -> np.ndarray:
    """What decoder layer `layer` makes of x [tokens, hidden_size] at positions 0, 1, ...; `pairs`: of an adapter."""
    conf, eps = model.conf, model.conf.rms_norm_eps
    w = {role: values for (role, at), values in model.weights.items() if at == layer}

    def projected(role: Role, x: np.ndarray) -> np.ndarray:
        y = _projected(conf, w, role, x)
        pair = (pairs or {}).get((layer, role))
        return y if pair is None else y + pair.scale * (x @ pair.a.T.astype(np.float64) @ pair.b.T)

    h = normed(x, w[Role.INPUT_NORM], eps)
    q, k, v = (
        projected(role, h).reshape(len(x), -1, conf.head_dim) for role in (Role.Q_PROJ, Role.K_PROJ, Role.V_PROJ)
    )
    if Norms.QK_NORM in conf.norms:
        q, k = normed(q, w[Role.Q_NORM], eps), normed(k, w[Role.K_NORM], eps)
    inv_freq = model.weights[Role.ROPE_INV_FREQ, NO_LAYER]
    a = _attention(conf, _rotated(conf, q, inv_freq), _rotated(conf, k, inv_freq), v)
    if Norms.ATTN_SUB_NORM in conf.norms:
        a = normed(a, w[Role.ATTN_SUB_NORM], eps)
    x = x + projected(Role.O_PROJ, a)
    h = normed(x, w[Role.POST_ATTENTION_NORM], eps)
    gate, up = projected(Role.GATE_PROJ, h), projected(Role.UP_PROJ, h)
    f = (np.maximum(gate, 0) ** 2 if conf.activation == Activation.RELU2 else gate / (1 + np.exp(-gate))) * up
    if Norms.FFN_SUB_NORM in conf.norms:
        f = normed(f, w[Role.FFN_SUB_NORM], eps)
    return x + projected(Role.DOWN_PROJ, f)


def _projected(conf: Conf, w: dict[Role, np.ndarray], role: Role, x: np.ndarray) -> np.ndarray:
    """The input's own norm where the model has one, absmax per token, and integers times weights."""
    if Norms.PROJECTION_NORM in conf.norms:
        x = normed(x, w[role.norm_of], conf.projection_norm_eps)
    most, lowest, least = _LEVELS[conf.activation_quantisation]
    scale = np.maximum(np.abs(x).max(-1, keepdims=True), least) / most
    return np.clip(np.rint(x / scale), -lowest, most) @ w[role].T.astype(np.float64) * scale


def _rotated(conf: Conf, x: np.ndarray, inv_freq: np.ndarray) -> np.ndarray:
    """x [tokens, heads, head_dim] at positions 0, 1, ...; rotate-half."""
    angles = np.arange(len(x))[:, None, None] * inv_freq[0].astype(np.float64)
    first, second = np.split(x, 2, axis=-1)
    pairs = [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)]
    return np.concatenate(pairs, axis=-1) * conf.rope_attention_factor


def _attention(conf: Conf, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """[tokens, heads * head_dim] from q [tokens, heads, head_dim] and fewer heads of k and v."""
    group = conf.n_heads // conf.n_kv_heads
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(conf.head_dim)
    scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hts,shd->thd", weights / weights.sum(-1, keepdims=True), v)
    return mixed.reshape(len(q), -1)
