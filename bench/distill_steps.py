"""How much of a float Llama comes back by steps of distillation: the table of docs/training.md.

    python bench/distill_steps.py

A teacher of 0.4 M parameters learns The Winter's Tale; what is told are losses on the lines that it has not seen.
"""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from edgebit.train.data.preparation import DataSettings
from edgebit.train.decoder import Decoder
from edgebit.train.distill import distill
from edgebit.train.from_data import Plan
from edgebit.train.prepared_rows import prepared_rows
from edgebit.train.schedule import Schedule
from edgebit.train.shape import ModelShape
from edgebit.train.teacher import remove_sub_norms
from edgebit.train.trainer import Settings, train

TEXT = Path(__file__).parents[1] / "edgebit" / "evaluate" / "corpus" / "winters_tale.txt"
ROW = 64
SHAPE = ModelShape(
    vocab_size=1024, hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=6,
    num_key_value_heads=2, max_position_embeddings=128, hidden_act="silu",
)  # fmt: skip
DATA = DataSettings(vocab_size=SHAPE.vocab_size, template="none", eval_share=0.1)


def settings(steps: int) -> Settings:
    schedule = Schedule(steps=steps, learning_rate=3e-3)
    return Settings(schedule=schedule, batch_rows=8, compile=False, threads=1, save_every=steps)


def make_teacher(folder: Path, steps: int) -> None:
    """Write a float LlamaForCausalLM that has learnt the text."""
    torch.manual_seed(1)
    decoder = Decoder(SHAPE, ternary=False)
    remove_sub_norms(decoder)
    with prepared_rows([TEXT], folder, DATA, row_length=ROW, seed=1) as rows:
        train(decoder, rows.source, settings(steps))
    save_file(decoder.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(SHAPE)}
    (folder / "config.json").write_text(json.dumps(config))


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        teacher = Path(work) / "teacher"
        teacher.mkdir()
        make_teacher(teacher, 300)
        print("| student | the teacher's share | steps | loss | tokens predicted |\n|---|---|---|---|---|")
        runs = [("bitnet", 0.9, 50), ("bitnet", 0.9, 200), ("bitnet", 0.0, 200),
                ("llama", 0.9, 200)]  # fmt: skip
        for number, (form, share, steps) in enumerate(runs):
            plan = Plan(paths=[TEXT], data=DATA, shape=SHAPE, settings=settings(steps), row_length=ROW)
            done = distill(plan, teacher, Path(work) / str(number), form=form, share=share)
            if number == 0:
                for name, found in (("teacher", done.teacher), ("rounded alone", done.rounded)):
                    print(f"| {name} | | | {found.loss:.3f} | {found.accuracy:.1%} |", flush=True)
            found = done.student
            print(f"| {form} | {share:g} | {steps} | {found.loss:.3f} | {found.accuracy:.1%} |", flush=True)


if __name__ == "__main__":
    main()
