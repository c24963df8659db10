"""The shape of a checkpoint that edgebit reads, as the decoder takes it."""

from edgebit.bundle.model_format import Activation, Norms
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.errors import TrainError
from edgebit.export.rope_parameters import find_rope_parameters
from edgebit.train.shape import ModelShape

SUB_NORMS = Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM


def shape_of(checkpoint: Checkpoint, *, norms: Norms) -> ModelShape:
    """Raises TrainError where the decoder computes something else; norms: those it is to have besides the usual."""
    conf = checkpoint.config.conf
    rope = find_rope_parameters(checkpoint.config.rope_inv_freq)
    others = ", ".join(norm.name.lower() for norm in conf.norms ^ norms if norm.name)
    faults = {
        f"the norms differ in {others}": conf.norms == norms,
        f"its RoPE is of kind {rope.kind}": rope.kind == "default" and conf.rope_attention_factor == 1,
        "its heads do not make up the hidden size": conf.n_heads * conf.head_dim == conf.hidden_size,
    }
    wrong = [what for what, fits in faults.items() if not fits]
    if wrong:
        raise TrainError(f"{checkpoint.path} ({checkpoint.family}) is not trained on: {'; '.join(wrong)}")
    return ModelShape(
        vocab_size=conf.vocab_size,
        hidden_size=conf.hidden_size,
        intermediate_size=conf.ffn_size,
        num_hidden_layers=conf.n_layers,
        num_attention_heads=conf.n_heads,
        num_key_value_heads=conf.n_kv_heads,
        max_position_embeddings=conf.context_max,
        rope_theta=rope.theta,
        rms_norm_eps=conf.rms_norm_eps,
        hidden_act="relu2" if conf.activation == Activation.RELU2 else "silu",
        tie_word_embeddings=conf.head_tied,
    )
