"""Makes the reference checkpoints that README.md lists under "made here", with what transformers computes from them.

    python tests/reference/make_reference_models.py [OUT] [NAME ...]

Needs torch, transformers, accelerate and safetensors; nothing is downloaded. Weights come from a counter-based
generator (Philox, its raw output), so they do not hang on a library's version; outputs can move in the last digits.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.bitnet import AutoBitLinear, BitLinear

Tensors = dict[str, torch.Tensor]
PROJECTIONS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
EMBEDDING_STD = 0.6
RESIDUAL_GAIN = 3.0
LOGITS_STD = 3.0  # so that most greedy steps are sure
POSITIONS, LONG, GREEDY, PROMPT = 32, 200, 64, 8


@dataclass(frozen=True, kw_only=True)
class ReferenceModel:
    """One folder: what is in its config.json, and how its weights are stored."""

    config: dict[str, Any]
    store: Callable[[Tensors], Tensors]  # from masters in float32 to what the files hold
    seed: int = 1
    shards: int = 1
    sub_norms: tuple[str, str] | None = None
    qk_norms: bool = False
    projection_norms: bool = False
    zero_biases: tuple[str, ...] = ()
    load: Callable[[Path], Any] | None = None  # None: AutoModelForCausalLM


def llama(**changes: Any) -> dict[str, Any]:
    """A small LlamaForCausalLM's config.json."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 96,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
    } | changes  # fmt: skip


def qwen(version: int, **changes: Any) -> dict[str, Any]:
    """A small Qwen2 or Qwen3's config.json."""
    return llama(
        architectures=[f"Qwen{version}ForCausalLM"], model_type=f"qwen{version}", use_sliding_window=False,
        sliding_window=None, rms_norm_eps=1e-6, rope_theta=1000000.0, tie_word_embeddings=True,
    ) | changes  # fmt: skip


def quantized(**keys: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "bitnet"} | keys}


# ------------------------------------------------------------------------------------------------------------ weights
def uniform(tag: str, count: int) -> np.ndarray:
    """`count` doubles between 0 and 1, fixed by the tag."""
    raw = np.random.Philox(key=crc32(tag.encode())).random_raw(count)
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def normal(tag: str, shape: tuple[int, ...], std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
    count = int(np.prod(shape))
    u = uniform(tag, 2 * count)
    values = np.sqrt(-2 * np.log(u[:count])) * np.cos(2 * np.pi * u[count:])
    return torch.from_numpy((mean + std * values).astype(np.float32).reshape(shape))


def projection_shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    attention, kv = heads * head_dim, config["num_key_value_heads"] * head_dim
    shapes = ((attention, hidden), (kv, hidden), (kv, hidden), (hidden, attention))
    return dict(zip(PROJECTIONS, (*shapes, (ffn, hidden), (ffn, hidden), (hidden, ffn)), strict=True))


def masters(tag: str, model: ReferenceModel) -> Tensors:
    """Weights in float32, before they are stored: norms about 1, and projections that keep the size of what goes
    through or, where they add to the residual stream, outweigh the embedding."""
    config = model.config
    hidden = config["hidden_size"]
    tensors = {"model.embed_tokens.weight": normal(f"{tag}/embed", (config["vocab_size"], hidden), EMBEDDING_STD)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
        for name, (rows, columns) in projection_shapes(config).items():
            gain = RESIDUAL_GAIN if name in ("self_attn.o_proj", "mlp.down_proj") else 1.0
            tensors[f"{prefix}{name}.weight"] = normal(f"{tag}/{prefix}{name}", (rows, columns), gain * columns**-0.5)
            if name.rpartition(".")[2] in model.zero_biases:
                tensors[f"{prefix}{name}.bias"] = torch.zeros(rows)
            if model.projection_norms:
                norms[f"{name}.rms_norm"] = columns
        if model.sub_norms:
            sizes = projection_shapes(config)["self_attn.o_proj"][1], config["intermediate_size"]
            norms |= dict(zip(model.sub_norms, sizes, strict=True))
        if model.qk_norms:
            norms |= dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), config["head_dim"])
        for name, size in norms.items():
            tensors[f"{prefix}{name}.weight"] = normal(f"{tag}/{prefix}{name}", (size,), 0.1, 1.0)
    gain = LOGITS_STD / (EMBEDDING_STD * hidden**0.5)
    tensors["model.norm.weight"] = normal(f"{tag}/norm", (hidden,), 0.1 * gain, gain)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = normal(f"{tag}/head", (config["vocab_size"], hidden), EMBEDDING_STD)
    return tensors


def is_projection(name: str) -> bool:
    return name.endswith(tuple(f"{projection}.weight" for projection in PROJECTIONS))


def ternary(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scale by absmean."""
    mean = weights.abs().mean().clamp(min=1e-5)
    return (weights / mean).round().clamp(-1, 1), mean


def packed_dividing(tensors: Tensors) -> Tensors:
    """As transformers' BitLinear has it: codes in quarters of rows, and 1 / mean|W|."""
    stored: Tensors = {}
    for name, values in tensors.items():
        if not is_projection(name):
            stored[name] = values.bfloat16()
            continue
        codes, mean = ternary(values)
        quarters = (codes + 1).to(torch.uint8).chunk(4)
        stored[name] = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
        stored[f"{name}_scale"] = (1 / mean).reshape(1).bfloat16()
    return stored


def as_masters(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: values.to(dtype) for name, values in tensors.items()}


def ternary_floats(scaled: Callable[[str, torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    """float16 values that are codes times scales; `scaled` gives a projection's weights in groups: [groups, ...]."""

    def store(tensors: Tensors) -> Tensors:
        stored: Tensors = {}
        for name, values in tensors.items():
            stored[name] = scaled(name, values).half() if is_projection(name) else values.half()
        return stored

    return store


def by_shard(name: str, weights: torch.Tensor) -> torch.Tensor:
    """Two shards of a model-parallel training: halves of the rows; of down_proj, of the columns; o_proj is whole."""
    if "o_proj" in name:
        parts, dim = [weights], 0
    else:
        dim = 1 if "down_proj" in name else 0
        parts = list(weights.chunk(2, dim))
    return torch.cat([codes * mean.half() for codes, mean in map(ternary, parts)], dim)


def by_group(name: str, weights: torch.Tensor) -> torch.Tensor:
    """A scale for every 128 columns of a row, or fewer of a short one; of up_proj the weights are -1 and +1 alone."""
    groups = weights.reshape(len(weights), -1, min(128, weights.shape[1]))
    mean = groups.abs().mean(-1, keepdim=True)
    codes = torch.where(groups < 0, -1.0, 1.0) if "up_proj" in name else (groups / mean).round().clamp(-1, 1)
    return (codes * mean.half()).reshape(weights.shape)


# ------------------------------------------------------------------------------------------------------- transformers
def load_as_bitnet(folder: Path) -> Any:
    """The 1bitLLM form, whose own modelling file is not at hand: BitNetForCausalLM with SiLU computes the same."""
    config = json.loads((folder / "config.json").read_text())
    tensors: Tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(path)
    renamed = {
        name.replace("inner_attn_ln", "attn_sub_norm").replace("ffn_layernorm", "ffn_sub_norm"): values.float()
        for name, values in tensors.items()
    }
    left_out = ("architectures", "model_type", "torch_dtype", "weight_bits", "input_bits", "rope_scaling")
    bitnet = transformers.BitNetConfig(**{key: value for key, value in config.items() if key not in left_out})
    bitnet._attn_implementation = "eager"
    model = transformers.BitNetForCausalLM(bitnet)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            model.set_submodule(
                name, AutoBitLinear(module.in_features, module.out_features, bias=False, online_quant=True)
            )
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.float().eval()


def load(folder: Path) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model = model.to(torch.float32)  # what from_pretrained leaves in the files' type
    for module in model.modules():
        if isinstance(module, BitLinear):
            module.dtype = torch.float32
    return model.eval()


@torch.no_grad()
def run(model: Any, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the hidden states: the embedding, then the residual stream after each layer."""
    before_norm = []
    hook = model.model.norm.register_forward_pre_hook(lambda module, inputs: before_norm.append(inputs[0][0]))
    output = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    hook.remove()
    return output.logits[0], torch.stack([*(states[0] for states in output.hidden_states[:-1]), before_norm[0]])


def greedy(model: Any, prompt: list[int]) -> tuple[list[int], list[float]]:
    """GREEDY tokens after the prompt, and the distance of best and second logit at each step."""
    ids, gaps = list(prompt), []
    for _ in range(GREEDY):
        best = run(model, ids)[0][-1].topk(2)
        gaps.append(round(float(best.values[0] - best.values[1]), 5))
        ids.append(int(best.indices[0]))
    return ids[len(prompt) :], gaps


# -------------------------------------------------------------------------------------------------------------- files
def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_weights(folder: Path, tensors: Tensors, shards: int) -> None:
    names = sorted(tensors)
    if shards == 1:
        save_file({name: tensors[name].contiguous() for name in names}, folder / "model.safetensors", {"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        save_file({name: tensors[name].contiguous() for name in part}, folder / file_name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def write_reference(folder: Path, tag: str, config: dict[str, Any], model: Any) -> dict[str, Any]:
    def ids_of(kind: str, count: int) -> list[int]:
        return [config["bos_token_id"], *(int(u * config["vocab_size"]) for u in uniform(f"{tag}/{kind}", count - 1))]

    ids, long_ids = ids_of("ids", POSITIONS), ids_of("long", LONG)
    logits, hidden = run(model, ids)
    long_logits, _ = run(model, long_ids)
    tokens, gaps = greedy(model, ids[:PROMPT])
    loss = torch.nn.functional.cross_entropy(long_logits[:-1], torch.tensor(long_ids[1:]))
    tensors = {
        "input_ids": torch.tensor(ids, dtype=torch.int32), "logits_f32": logits, "hidden_f32": hidden,
        "long_ids": torch.tensor(long_ids, dtype=torch.int32), "long_argmax_f32": long_logits.argmax(-1).int(),
        "long_last_logits_f32": long_logits[-1],
    }  # fmt: skip
    save_file({name: values.contiguous() for name, values in tensors.items()}, folder / "reference.safetensors")
    facts = {"prompt": ids[:PROMPT], "greedy_f32": tokens, "greedy_top2_gap": gaps, "long_nll_f32": float(loss)}
    write_json(folder / "reference.json", facts)
    return facts


MODELS = {
    "legacy-1bitllm-f16-head100": ReferenceModel(
        config=llama(
            architectures=["BitnetForCausalLM"], hidden_size=100, intermediate_size=40, num_attention_heads=1,
            vocab_size=66, tie_word_embeddings=True, torch_dtype="float16", weight_bits=1, input_bits=8,
            rope_scaling=None,
        ),
        store=as_masters(torch.float16), sub_norms=("self_attn.inner_attn_ln", "mlp.ffn_layernorm"), shards=2,
        load=load_as_bitnet,
    ),
    "falcon3-packed": ReferenceModel(
        config=llama(
            head_dim=256, intermediate_size=96, num_hidden_layers=2, rope_theta=1000042, rms_norm_eps=1e-6,
            bos_token_id=11, eos_token_id=11,
        )
        | quantized(modules_to_not_convert=["lm_head"]),
        store=packed_dividing,
    ),
    "llama-master": ReferenceModel(
        config=llama(
            intermediate_size=96,
            rope_scaling={
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        )
        | quantized(linear_class="autobitlinear", quantization_mode="online"),
        store=as_masters(torch.bfloat16),
    ),
    "trilm-f16": ReferenceModel(config=llama(torch_dtype="float16"), store=ternary_floats(by_shard)),
    "bonsai-f16": ReferenceModel(
        config=qwen(3, head_dim=64, intermediate_size=256, tie_word_embeddings=False, torch_dtype="float16"),
        store=ternary_floats(by_group), qk_norms=True,
    ),
    "qwen3-rmsnorm-packed": ReferenceModel(
        config=qwen(
            3, head_dim=32, intermediate_size=192, num_hidden_layers=2,
            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        )
        | quantized(use_rms_norm=True, rms_norm_eps=1e-6),
        store=packed_dividing, qk_norms=True, projection_norms=True,
    ),
    "qwen2-zero-bias-packed": ReferenceModel(
        config=qwen(2, tie_word_embeddings=False) | quantized(),
        store=packed_dividing, zero_biases=("q_proj", "k_proj", "v_proj"),
    ),
}  # fmt: skip


def make(out: Path, name: str) -> None:
    model, folder, tag = MODELS[name], out / name, f"{name}/{MODELS[name].seed}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", model.config)
    write_weights(folder, model.store(masters(tag, model)), model.shards)
    facts = write_reference(folder, tag, model.config, (model.load or load)(folder))
    sure = sum(gap >= 0.25 for gap in facts["greedy_top2_gap"])
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: {size / 1000:.0f} kB, {sure} of {GREEDY} greedy steps are sure, loss {facts['long_nll_f32']:.3f}")


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    torch.set_num_threads(1)
    for name in sys.argv[2:] or MODELS:
        make(out, name)


if __name__ == "__main__":
    main()
