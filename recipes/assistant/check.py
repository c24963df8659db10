"""Asks a packed checkpoint through Hugging Face transformers, the reference implementation, and counts right answers.

python check.py ../../edgebit/assistant_model --every 6
python check.py ../../edgebit/assistant_model --ask "is the back door locked?"
"""

import argparse
import json
from pathlib import Path

import torch
from data import answer_line, held_out_examples, render
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder: Path) -> tuple[AutoTokenizer, AutoModelForCausalLM]:
    """The tokenizer and the model, in float32."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # from_pretrained leaves norms and embeddings in bfloat16, whatever dtype it is given.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(torch.float32).eval()
    return tokenizer, model


@torch.no_grad()
def ask(tokenizer: AutoTokenizer, model: AutoModelForCausalLM, text: str, system: str = "") -> str:
    """The greedy answer to one user line."""
    prefix = [("system", system)] if system else []
    ids = tokenizer(render([*prefix, ("user", text)]), return_tensors="pt")
    out = model.generate(**ids, do_sample=False, max_new_tokens=48, pad_token_id=model.config.eos_token_id)
    answer: str = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer


def main() -> None:
    """Answer the given lines, or measure on the held-out wordings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ask", nargs="+", default=[], metavar="TEXT", help="print the answers to these lines")
    parser.add_argument("--system", default="", help="system message for --ask")
    parser.add_argument("--every", type=int, default=1, help="measure on every n-th held-out example only")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, model = load(args.folder)
    if args.ask:
        for text in args.ask:
            print(json.dumps({"user": text, "assistant": ask(tokenizer, model, text, args.system)}))
        return
    examples = held_out_examples(args.seed)[:: args.every]
    right = 0
    for example in examples:
        answer = ask(tokenizer, model, example.text)
        right += answer == answer_line(example)
        if answer != answer_line(example):
            print(f"{example.text!r}: {answer!r}, not {answer_line(example)!r}")
    print(f"{right} of {len(examples)} right")


if __name__ == "__main__":
    main()
