"""Section CONF of a model file: what its sizes can be, and how it is read. Standard library only."""

import math
from collections.abc import Mapping

from edgebit.bundle.model_format import (
    CONF,
    MAX_STOP_TOKENS,
    Activation,
    ActivationQuantisation,
    Conf,
    Norms,
)
from edgebit.errors import BundleError

SIZE_MAX: Mapping[str, int] = {  # of the fields of Conf that the section begins with, in its order; each is 1 at least
    "hidden_size": 65_536,
    "ffn_size": 262_144,
    "n_layers": 1024,
    "n_heads": 1024,
    "n_kv_heads": 1024,
    "head_dim": 1024,
    "vocab_size": 2_097_152,
    "context_max": 16_777_216,
}
ATTENTION_WIDTH_MAX = 262_144  # n_heads x head_dim
ROPE_ATTENTION_FACTOR_MAX = 16.0


def read_conf(content: bytes) -> Conf:
    """The configuration in the bytes of section CONF. Raises BundleError saying what in it cannot be."""
    if len(content) != CONF.size:
        raise BundleError(f"section CONF has {len(content)} bytes; {CONF.size} are needed")
    values = CONF.unpack(content)
    sizes = dict(zip(SIZE_MAX, values[:8], strict=True))
    eps, activation, norms, quantisation, rope_style, tied, bos, n_stops = values[8:16]
    stops, projection_norm_eps, rope_factor, reserved = values[16:24], *values[24:27]
    _check_sizes(sizes)
    if not math.isfinite(eps) or eps <= 0:
        raise BundleError(f"CONF: rms_norm_eps is {eps}")
    _check_kinds(activation, norms, quantisation, rope_style, tied)
    _check_factors(Norms(norms), projection_norm_eps, rope_factor)
    _check_tokens(sizes["vocab_size"], bos, n_stops, stops)
    if any(reserved):
        raise BundleError("CONF: the reserved bytes must be zero")
    return Conf(
        **sizes,
        rms_norm_eps=eps,
        activation=Activation(activation),
        norms=Norms(norms),
        head_tied=bool(tied),
        bos_token=bos,
        stop_tokens=tuple(stops[:n_stops]),
        activation_quantisation=ActivationQuantisation(quantisation),
        projection_norm_eps=projection_norm_eps,
        rope_attention_factor=rope_factor or 1.0,
    )


def _check_sizes(sizes: Mapping[str, int]) -> None:
    for name, value in sizes.items():
        if not 1 <= value <= SIZE_MAX[name]:
            raise BundleError(f"CONF: {name} is {value}; 1 to {SIZE_MAX[name]} are possible")
    n_heads, n_kv_heads, head_dim = sizes["n_heads"], sizes["n_kv_heads"], sizes["head_dim"]
    if n_heads % n_kv_heads:
        raise BundleError(f"CONF: n_heads, {n_heads}, is no multiple of n_kv_heads, {n_kv_heads}")
    if head_dim % 2:
        raise BundleError(f"CONF: head_dim is {head_dim}; an even number is needed")
    if n_heads * head_dim > ATTENTION_WIDTH_MAX:
        raise BundleError(f"CONF: n_heads x head_dim is {n_heads * head_dim}; {ATTENTION_WIDTH_MAX} is the most")


def _check_kinds(activation: int, norms: int, quantisation: int, rope_style: int, tied: int) -> None:
    for name, value, known in (
        ("activation", activation, (1, 2)), ("norms", norms, range(16)),
        ("activation quantisation", quantisation, (1, 2)), ("RoPE style", rope_style, (1,)),
        ("head tied", tied, (0, 1)),
    ):  # fmt: skip
        if value not in known:
            raise BundleError(f"CONF: {name} is {value}; known are {tuple(known)}. Use a newer edgebit.")


def _check_factors(norms: Norms, projection_norm_eps: float, rope_factor: float) -> None:
    has_projection_norms = Norms.PROJECTION_NORM in norms
    eps_fits = projection_norm_eps > 0 if has_projection_norms else projection_norm_eps == 0
    if not math.isfinite(projection_norm_eps) or not eps_fits:
        raise BundleError(f"CONF: projection_norm_eps is {projection_norm_eps}, the set of norms {norms.value}")
    if not 0 <= rope_factor <= ROPE_ATTENTION_FACTOR_MAX:  # NaN is not either
        most = f"{ROPE_ATTENTION_FACTOR_MAX:g}"
        raise BundleError(f"CONF: rope_attention_factor is {rope_factor}; 0 (for 1) to {most} are possible")


def _check_tokens(vocab_size: int, bos: int, n_stops: int, stops: tuple[int, ...]) -> None:
    if not -1 <= bos < vocab_size:
        raise BundleError(f"CONF: the begin-of-text token {bos} is outside the vocabulary of {vocab_size}")
    if n_stops > MAX_STOP_TOKENS:
        raise BundleError(f"CONF: {n_stops} stop tokens; {MAX_STOP_TOKENS} are possible")
    if any(not 0 <= stop < vocab_size for stop in stops[:n_stops]) or any(stop != -1 for stop in stops[n_stops:]):
        raise BundleError(f"CONF: the stop tokens {stops} are not {n_stops} of the vocabulary, and -1 for the rest")
