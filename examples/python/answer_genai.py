"""Answers a prompt with onnxruntime-genai, which reads genai_config.json of the folder and loads the library itself.

pip install onnxruntime-genai
edgebit export onnx MODEL --out model-onnx        # --ops contrib, the default
python answer_genai.py model-onnx "Why is the sky blue?"
"""

import argparse
import json
import sys
from pathlib import Path

try:
    import onnxruntime_genai as genai
except ImportError as error:
    sys.exit(f"error: {error}. Install it: pip install onnxruntime-genai")


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers a prompt with onnxruntime-genai.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=64, help="at most so many new tokens (default: 64)")
    arguments = parser.parse_args()
    if not (arguments.folder / "genai_config.json").is_file():
        sys.exit(
            f"error: {arguments.folder} has no genai_config.json. "
            "Give a folder that `edgebit export onnx` wrote with --ops contrib, the default."
        )
    try:
        answer(arguments)
    except Exception as error:  # noqa: BLE001 - genai raises RuntimeError and classes of its own
        sys.exit(f"error: {arguments.folder}: {' '.join(str(error).split())}")


def answer(arguments: argparse.Namespace) -> None:
    model = genai.Model(str(arguments.folder))
    tokenizer = genai.Tokenizer(model)
    message = json.dumps([{"role": "user", "content": arguments.prompt}])
    prompt = tokenizer.encode(tokenizer.apply_chat_template(message, add_generation_prompt=True))
    settings = genai.GeneratorParams(model)
    settings.set_search_options(do_sample=False, max_length=len(prompt) + arguments.tokens)
    generator = genai.Generator(model, settings)
    generator.append_tokens(prompt)
    stream = tokenizer.create_stream()
    while not generator.is_done():
        generator.generate_next_token()
        print(stream.decode(generator.get_next_tokens()[0]), end="", flush=True)
    print()


if __name__ == "__main__":
    main()
