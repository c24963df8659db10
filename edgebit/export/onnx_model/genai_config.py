"""genai_config.json: what onnxruntime-genai needs to know of a decoder.

Source: onnxruntime-genai 0.18, src/config.cpp (the keys it knows; it refuses others).
"""

from typing import Any

from edgebit.bundle.model_format import Conf

KV_MOST = 2048  # tokens: genai takes memory for max_length at once, for which a model's whole context may be too long
_SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")


def genai_config(
    conf: Conf, generation: dict[str, float], *, model: str, library: str | None, shares_cache: bool
) -> dict[str, Any]:
    """The content of genai_config.json.

    conf: with the graph's context and the tokenizer's begin-of-text and stop tokens; generation: what the makers advise
    model, library: names of files in the folder; None: no library of operators is there, the functions' bodies run
    shares_cache: whether present keys and values may be written where the past ones lie
    """
    options: dict[str, Any] = {"provider_options": []}
    if library is not None:
        options["custom_ops_library"] = library
    return {
        "model": {
            "type": "decoder",
            "context_length": conf.context_max,
            "vocab_size": conf.vocab_size,
            **_tokens(conf),
            "decoder": {"filename": model, "session_options": options, **_sizes(conf), **_INTERFACE},
        },
        "search": {
            "max_length": min(conf.context_max, KV_MOST),
            "past_present_share_buffer": shares_cache,
            "do_sample": generation.get("temperature", 1.0 if generation else 0.0) > 0,
            **{name: generation[name] for name in _SAMPLING if name in generation},
        },
    }


_INTERFACE = {
    "inputs": {
        "input_ids": "input_ids",
        "attention_mask": "attention_mask",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    },
    "outputs": {
        "logits": "logits",
        "present_key_names": "present.%d.key",
        "present_value_names": "present.%d.value",
    },
}


def _tokens(conf: Conf) -> dict[str, Any]:
    """Begin-of-text, stop and padding tokens, as far as there are any."""
    found: dict[str, Any] = {"bos_token_id": conf.bos_token} if conf.bos_token >= 0 else {}
    if conf.stop_tokens:
        found |= {"eos_token_id": list(conf.stop_tokens), "pad_token_id": conf.stop_tokens[0]}
    return found


def _sizes(conf: Conf) -> dict[str, int]:
    return {
        "hidden_size": conf.hidden_size,
        "num_hidden_layers": conf.n_layers,
        "num_attention_heads": conf.n_heads,
        "num_key_value_heads": conf.n_kv_heads,
        "head_size": conf.head_dim,
    }
