"""Answers a prompt with a folder that `edgebit export onnx` wrote: greedy decoding with a KV cache.

Needs onnxruntime >= 1.19.2 (>= 1.24 for `--ops standard`), numpy and tokenizers, and jinja2 for chat templates; edgebit
itself is not used.

    pip install numpy onnxruntime tokenizers jinja2
    python answer.py model-onnx "Why is the sky blue?"
"""

import argparse
import ctypes
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

LIBRARY = "libedgebit_ort.so"
MACHINES = {3: "x86", 40: "arm", 62: "x86-64", 183: "aarch64", 243: "riscv"}  # as ELF numbers them


def open_session(folder: Path, library: Path | None, threads: int = 0) -> ort.InferenceSession:
    """The model of `folder` with edgebit's operators from `library`, or with those that the model carries for None."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads  # 0: one for each core
    options.log_severity_level = 4  # what goes wrong comes as an exception too
    if library is not None:
        options.register_custom_ops_library(str(library))
    # By path: ONNX Runtime maps the weights in model.onnx.data and the kernel reads them where they lie.
    return ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def is_bound(library: Path | None) -> bool:
    """Whether edgebit's kernel runs: the library counts those that it has made in this process."""
    if library is None:
        return False
    count = ctypes.CDLL(str(library)).edgebit_ort_kernels
    count.restype = ctypes.c_uint64
    return count() > 0


def machine_of(path: str | Path) -> str | None:
    """The kind of machine that a program or library is for; None for what is no ELF file."""
    with Path(path).open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        return None
    number = int.from_bytes(head[18:20], "little")
    return MACHINES.get(number, f"machine {number}")


def check_library(library: Path) -> None:
    """Ends the program where the library is for another machine, of which the loader says that it is not there."""
    theirs, ours = machine_of(library), machine_of(sys.executable)
    if theirs and ours and theirs != ours:
        sys.exit(
            f"error: {library} is for {theirs}, this machine is {ours}. "
            "Export for this one (edgebit export onnx --target), or give --no-library"
        )


def hint_without_library(error: Exception) -> str:
    """What mends it where a model does not open without the library."""
    if "ai.edgebit" in str(error):
        return f". {LIBRARY} is missing in the folder, and the model carries nothing in its place (--fallback none)"
    if tuple(int(number) for number in ort.__version__.split(".")[:2]) < (1, 24):
        return ". Without the library it takes ONNX Runtime 1.24 (fast from 1.28 on), or --fallback exact"
    return ""


def read_conf(session: ort.InferenceSession) -> dict[str, Any]:
    """What the exporter knew of the model: stop tokens, context, ..."""
    return json.loads(session.get_modelmeta().custom_metadata_map["edgebit.conf"])


def encode(tokenizer: Tokenizer, folder: Path, text: str, *, raw: bool) -> list[int]:
    """The prompt's tokens: `text` as a user's message in the model's chat template if it has one, or as it is."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = config.get("chat_template")
    if template and not raw:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        messages = [{"role": "user", "content": text}]
        text = environment.from_string(template).render(messages=messages, add_generation_prompt=True, **config)
    # Some templates write the begin-of-text token themselves.
    has_bos = bool(config.get("bos_token")) and text.startswith(config["bos_token"])
    return tokenizer.encode(text, add_special_tokens=not has_bos).ids


def empty_cache(session: ort.InferenceSession) -> dict[str, np.ndarray]:
    """A KV cache of no tokens: [1, kv heads, 0, head size] for each input named past_key_values.N.key or .value."""
    past = [node for node in session.get_inputs() if node.name.startswith("past_key_values.")]
    return {node.name: np.zeros((1, node.shape[1], 0, node.shape[3]), np.float32) for node in past}


def generate(session: ort.InferenceSession, prompt: list[int], stop: set[int], limit: int) -> Iterator[int]:
    """Yields the tokens after `prompt`, the likeliest at each step, up to one of `stop` (not yielded) or to `limit`."""
    cache = empty_cache(session)
    outputs = ["logits", *(name.replace("past_key_values", "present") for name in cache)]
    new, n_tokens = prompt, 0
    for _ in range(limit):
        n_tokens += len(new)
        feeds = {"input_ids": np.array([new], np.int64), "attention_mask": np.ones((1, n_tokens), np.int64)}
        logits, *present = session.run(outputs, feeds | cache)
        cache = dict(zip(cache, present, strict=True))  # what is present now is past at the next step
        token = int(logits[0, -1].argmax())
        if token in stop:
            return
        yield token
        new = [token]


def show(tokenizer: Tokenizer, tokens: Iterator[int]) -> None:
    """Print the text as it grows."""
    answer: list[int] = []
    text = shown = ""
    for token in tokens:
        answer.append(token)
        text = tokenizer.decode(answer)
        if not text.endswith("\ufffd"):  # the beginning of a character that later tokens complete
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print(text[len(shown) :])


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Answers a prompt with a folder that `edgebit export onnx` wrote.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=64, help="at most so many new tokens (default: 64)")
    parser.add_argument("--threads", type=int, default=0, help="default: one for each core")
    parser.add_argument("--raw", action="store_true", help="the prompt as it is, without the model's chat template")
    parser.add_argument("--no-library", action="store_true", help="run the function that the model carries instead")
    arguments = parser.parse_args()
    for name in ("model.onnx", "tokenizer.json"):
        if not (arguments.folder / name).is_file():
            sys.exit(f"error: {arguments.folder} has no {name}. Give the folder that `edgebit export onnx` wrote.")
    return arguments


def main() -> None:
    arguments = read_arguments()
    folder: Path = arguments.folder
    library = (folder / LIBRARY).resolve()
    used = None if arguments.no_library or not library.is_file() else library
    if used:
        check_library(used)
    try:
        session = open_session(folder, used, arguments.threads)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime gives its exceptions no class of their own
        hint = "" if used else hint_without_library(error)
        sys.exit(f"error: {folder}: {' '.join(str(error).split())}{hint}")
    bound = "edgebit's kernel is bound" if is_bound(used) else "without edgebit's kernel"
    print(f"ONNX Runtime {ort.__version__}, {bound}", file=sys.stderr)

    conf = read_conf(session)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = encode(tokenizer, folder, arguments.prompt, raw=arguments.raw)
    room = conf["context_max"] - len(prompt)
    if not prompt or room < 1:
        sys.exit(f"error: the prompt has {len(prompt)} tokens, the model takes 1 to {conf['context_max'] - 1}")
    show(tokenizer, generate(session, prompt, set(conf["stop_tokens"]), min(arguments.tokens, room)))


if __name__ == "__main__":
    main()
