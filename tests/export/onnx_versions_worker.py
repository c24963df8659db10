"""A program for any release of ONNX Runtime: runs folders in every way it can optimize them, and prints what they give.

Its input, JSON: {"tokens": [...], "greedy": n, "runs": {name: {"folder": ..., "library": path or null}}}. Its output:
[{"run", "level", "inlines", "logits": [[...]], "greedy": [...]} or {..., "error": text}].
"""

import json
import sys

import numpy as np
import onnxruntime

LEVELS = (0, 1, 2, 99)


def answer(session, tokens, count):
    """Logits of the tokens, given at once, and the greedy tokens that follow one by one."""
    outputs = [output.name for output in session.get_outputs()]
    cache = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    ids, length, found, first = tokens, 0, [], None
    for _ in range(count + 1):
        length += len(ids)
        mask = np.ones((1, length), np.int64)
        given = dict(
            zip(outputs, session.run(None, {"input_ids": [ids], "attention_mask": mask, **cache}), strict=True)
        )
        cache = {name: given["present" + name.removeprefix("past_key_values")] for name in cache}
        first = given["logits"][0] if first is None else first
        ids = [int(given["logits"][0, -1].argmax())]
        found += ids
    return first, found[:count]


def main() -> None:
    """Read the job from standard input."""
    job = json.load(sys.stdin)
    onnxruntime.set_default_logger_severity(4)
    results = []
    for name, run in job["runs"].items():
        for level in LEVELS:
            for inlines in (True, False):
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = 1
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
                options.add_session_config_entry("session.disable_aot_function_inlining", "0" if inlines else "1")
                if run["library"]:
                    options.register_custom_ops_library(run["library"])
                result = {"run": name, "level": level, "inlines": inlines}
                try:
                    session = onnxruntime.InferenceSession(run["folder"] + "/model.onnx", options)
                    logits, greedy = answer(session, job["tokens"], job["greedy"])
                    result |= {"logits": logits.tolist(), "greedy": greedy}
                except Exception as error:  # noqa: BLE001 - what a release refuses is a result
                    result["error"] = str(error)
                results.append(result)
    json.dump({"version": onnxruntime.__version__, "results": results}, sys.stdout)


if __name__ == "__main__":
    main()
