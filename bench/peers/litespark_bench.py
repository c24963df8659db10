"""The Python package litespark-inference (torchless, int4 embedding) as a llama-bench, for edgebit bench --against.

    python bench/peers/litespark_bench.py -m CHECKPOINT -p 128 -n 32 -t 2 -r 1 -o json [--chunk 64]

CHECKPOINT is a folder with a packed BitNet checkpoint (config.json, model.safetensors), such as `edgebit synthesize`
writes. A prompt is given to it in pieces of --chunk tokens, or whole. Each prompt is also computed in pieces of 16 and
the logits are compared: a row whose logits differ carries a `doubt`, and edgebit does not count it.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_SURE_CHUNK = 16
_SAME = 0.999  # cosine of logits: the package's float sums may differ a little with the pieces


def main() -> None:
    """Measure what was asked for and print llama-bench's JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-p", "--n-prompt", default="128", help="prompt lengths, with commas between them; 0: none")
    parser.add_argument("-n", "--n-gen", type=int, default=32)
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("-r", "--repetitions", type=int, default=1)
    parser.add_argument("-o", "--output", choices=["json"], default="json")
    parser.add_argument("--chunk", type=int, default=0, help="tokens given at once; 0: the whole prompt")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "OPENBLAS_NUM_THREADS": str(options.threads)}
    if importlib.util.find_spec("litespark_inference") is None:
        sys.exit("litespark_inference is not installed here: pip install litespark-inference")
    engine = Engine(options.model)
    rows = [
        engine.prompt_row(int(length), options.chunk or int(length), options.repetitions)
        for length in options.n_prompt.split(",")
        if length != "0"
    ]
    if options.n_gen:
        rows.append(engine.decode_row(options.n_gen, options.repetitions))
    print(json.dumps([{"model_type": "litespark-inference", "n_threads": options.threads, **row} for row in rows]))


class Engine:
    """The package's own runtime over a model packed by its own code."""

    def __init__(self, checkpoint: Path) -> None:
        from litespark_inference.torchless import loader, model, pack, runtime, safetensors_io

        self._runtime = runtime
        config = json.loads((checkpoint / "config.json").read_text())
        file = safetensors_io.open_safetensors(str(checkpoint / "model.safetensors"))

        def vector(name: str) -> Any:
            return file.get(name)[0].copy()

        def projection(name: str) -> Any:
            codes = loader._unpack_hf_packed_bitnet(*_rows(file.get(name)[0]))
            scale = (file.get(name + "_scale")[0].astype(np.uint32) << 16).view(np.float32)
            return model.PackedProjection(
                w_packed=pack.pack_ternary_4_per_byte(codes), w_sum=None, scale=float(scale.reshape(-1)[0]),
                in_features=codes.shape[1], out_features=codes.shape[0],
            )  # fmt: skip

        def layer(number: int) -> Any:
            prefix = f"model.layers.{number}."
            attention = [projection(f"{prefix}self_attn.{name}_proj.weight") for name in "qkvo"]
            ffn = [projection(f"{prefix}mlp.{name}_proj.weight") for name in ("gate", "up", "down")]
            norms = ("input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm", "mlp.ffn_sub_norm")
            return model.PackedLayer(*attention, *ffn, *(vector(f"{prefix}{name}.weight") for name in norms))

        embedding, scale = loader._quantize_embedding_int4(file.get("model.embed_tokens.weight")[0])
        self._vocab_size = config["vocab_size"]
        self._model = model.PackedBitNetModel(
            config=model.BitNetConfig(
                config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"],
                config["num_key_value_heads"], config["intermediate_size"], config["vocab_size"],
                config["max_position_embeddings"], config["rms_norm_eps"], config["rope_theta"],
            ),
            embed_tokens=None, final_norm=vector("model.norm.weight"), embed_int4=embedding, embed_scale=scale,
            layers=[layer(number) for number in range(config["num_hidden_layers"])],
        )  # fmt: skip

    def prompt_row(self, length: int, chunk: int, repetitions: int) -> dict[str, Any]:
        """Speed of a prompt, and a doubt where it gives other logits than in small pieces."""
        right = self._prompt(length, _SURE_CHUNK)
        found, seconds = right, []
        for _ in range(repetitions):
            began = time.perf_counter()
            found = self._prompt(length, chunk)
            seconds.append(time.perf_counter() - began)
        row = _row(length, 0, [length / second for second in seconds])
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            cosine = float(found @ right / np.linalg.norm(found) / np.linalg.norm(right))
        if not cosine > _SAME:
            row["doubt"] = (
                f"a prompt of {length} tokens in pieces of {chunk} gives other logits than in pieces of "
                f"{_SURE_CHUNK} (cosine {cosine:.3f}): it is not computed"
            )
        return row

    def decode_row(self, count: int, repetitions: int) -> dict[str, Any]:
        """Speed of greedy decode."""
        speeds = []
        for _ in range(repetitions):
            state = self._runtime.init_state(self._model, count + 2)
            logits = self._runtime.forward_one(self._model, state, 1)
            began = time.perf_counter()
            for _ in range(count):
                logits = self._runtime.forward_one(self._model, state, int(np.argmax(logits)))
            speeds.append(count / (time.perf_counter() - began))
        return _row(0, count, speeds)

    def _prompt(self, length: int, chunk: int) -> Any:
        state = self._runtime.init_state(self._model, length + 1)
        tokens = [(7919 * i + 104729) % self._vocab_size for i in range(length)]
        for first in range(0, length, chunk):
            logits = self._runtime.forward_prefill(self._model, state, tokens[first : first + chunk])
        return logits.astype(np.float64).copy()


def _rows(packed: Any) -> tuple[Any, int]:
    return packed, 4 * packed.shape[0]


def _row(n_prompt: int, n_gen: int, speeds: Sequence[float]) -> dict[str, Any]:
    return {"n_prompt": n_prompt, "n_gen": n_gen, "avg_ts": sum(speeds) / len(speeds), "samples_ts": list(speeds)}


if __name__ == "__main__":
    main()
