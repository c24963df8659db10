"""Trains one form of the assistant: the ternary model that ships, or the float twin that it is compared with.

    python -m recipes.assistant.training ternary --out DIR

A run that was stopped goes on at the exact step. make.py runs both forms side by side.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from edgebit.train.data.tokenizer_training import train_tokenizer
from edgebit.train.decoder import Decoder
from edgebit.train.master import write_master
from edgebit.train.rows import PackedRows
from edgebit.train.schedule import Schedule
from edgebit.train.shape import ModelShape
from edgebit.train.trainer import Listener, Record, Settings, train
from recipes.assistant.documents import conversation, documents
from recipes.assistant.intents import response_schema
from recipes.assistant.packing import pack_master

SEED = 1
VOCABULARY = 1024
TOKENIZER_EXAMPLES = 40_000
ROW = 128  # tokens; no chat is longer
SHAPE = ModelShape(
    vocab_size=VOCABULARY, hidden_size=256, intermediate_size=640, num_hidden_layers=4, num_attention_heads=8,
    num_key_value_heads=2, max_position_embeddings=512,
)  # fmt: skip
SCHEDULE = Schedule(steps=18_000, learning_rate=2.2e-3, weight_decay=0.1, warmup=200)
SETTINGS = Settings(schedule=SCHEDULE, batch_rows=16, threads=1, save_every=500, bf16_products=True)
FORMS = ("ternary", "float")


def make_tokenizer(folder: Path) -> None:
    """Learn the tokenizer from the first training examples of another seed; what is there already stays."""
    if (folder / "tokenizer.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    examples = (conversation(SEED + 1, number) for number in range(TOKENIZER_EXAMPLES))
    train_tokenizer(examples, folder, vocab_size=VOCABULARY)


def write(out: Path, form: str, decoder: Decoder) -> None:
    """Write the checkpoint of a form, and of the ternary one the packed checkpoint too, as they are now."""
    files = {name: (out / "tokenizer" / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    schema = json.dumps(response_schema(), indent=1, ensure_ascii=False) + "\n"
    special = json.loads(files["tokenizer_config.json"])["added_tokens_decoder"]
    ids = {row["content"]: int(number) for number, row in special.items()}
    write_master(
        out / form, decoder, {**files, "response_schema.json": schema.encode()},
        bos=ids["<|begin_of_text|>"], eos=ids["<|end_of_text|>"], stop=(ids["<|eot_id|>"],),
    )  # fmt: skip
    if form == "ternary":
        pack_master(out / form, out / "packed")


def train_form(out: Path, form: str) -> None:
    """Train a form in `out` from random weights, with one line of progress each 50 steps.

    The checkpoint is written each time the state is saved.
    """
    torch.manual_seed(SEED)
    decoder = Decoder(SHAPE, ternary=form == "ternary")
    rows = PackedRows(documents(out / "tokenizer", SEED, ROW), ROW)
    started, mean = time.monotonic(), 0.0

    def stepped(record: Record) -> None:
        nonlocal mean
        mean = 0.98 * mean + 0.02 * record.loss if mean else record.loss
        if record.step % 50 == 0 or record.step == 1:
            minutes = (time.monotonic() - started) / 60
            print(f"{form}: step {record.step}, loss {mean:.4f}, {minutes:.1f} min", flush=True)
        if record.step % SETTINGS.save_every == 0:
            write(out, form, decoder)

    listener = Listener(stepped=stepped, noted=lambda words: print(words, flush=True))
    train(decoder, rows, SETTINGS, state_folder=out / f"{form}-state", listener=listener)
    write(out, form, decoder)


def main() -> None:
    """Train the form that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made")
    args = parser.parse_args()
    make_tokenizer(args.out / "tokenizer")
    train_form(args.out, args.form)


if __name__ == "__main__":
    main()
