"""Trains the small BitNet of this folder to know its text by heart, so that a greedy answer hangs on no near tie.

python make_model.py OUT            about two minutes of one core; needs torch, transformers, accelerate
edgebit export hf OUT --out PACKED    packs its weights: config.json and model.safetensors are copied here

Token ids are characters' codes less 32. Quantisation while training is transformers' own (AutoBitLinear, online).
"""

import argparse
from pathlib import Path

import torch
from transformers import BitNetConfig, BitNetForCausalLM
from transformers.integrations.bitnet import replace_with_bitnet_linear
from transformers.utils.quantization_config import BitNetQuantConfig

TEXT = (Path(__file__).parent / "text.txt").read_text(encoding="ascii").strip()
STEPS, BATCH, CONTEXT = 360, 4, 112


def build() -> BitNetForCausalLM:
    """SiLU, as 1bitLLM's BitNets have it: llama.cpp's arch bitnet computes that."""
    quantization = BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online")
    config = BitNetConfig(
        hidden_act="silu",
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=512,
        vocab_size=96,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=94,
        eos_token_id=95,
        quantization_config=quantization.to_dict(),
    )
    model = BitNetForCausalLM(config)
    return replace_with_bitnet_linear(model, modules_to_not_convert=["lm_head"], quantization_config=quantization)


def train(model: BitNetForCausalLM) -> float:
    """The last losses' mean, in nats a character."""
    ids = torch.tensor([ord(char) - 32 for char in TEXT])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    losses = []
    for step in range(STEPS):
        starts = torch.randint(0, len(ids) - CONTEXT, (BATCH,))
        batch = torch.stack([ids[start : start + CONTEXT] for start in starts.tolist()])
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 40 == 0:
            print(f"step {step}: {loss.item():.3f}", flush=True)
    return sum(losses[-20:]) / 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the model of this folder.")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch._dynamo.config.disable = True
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = build()
    print(f"loss {train(model):.4f}")
    model.to(torch.bfloat16).save_pretrained(args.out)


if __name__ == "__main__":
    main()
