"""A program for any release of ONNX Runtime: runs folders in the ways it can optimize them, and prints what they give.

Its input, JSON: {"tokens": [...], "pieces": [...], "greedy": n, "arrays": path, "runs": {name: {"folder": ...,
"library": path or null, "levels": [...], "inlines": [...], "sequences": bool}}}.
Its output: {"version": ..., "results": [{"run", "level", "inlines", "greedy": [...]} or {..., "error": text}]}.
In the file "arrays", for the result of number n: n.first, logits of the first token alone, and n.logits, of all tokens;
with "sequences" also n.pieces, of the tokens given in pieces, and n.batch, how far a sequence's last logits are at
most from those of it alone, where a batch is filled up at the left, and at the right.
"""

import json
import sys

import numpy as np
import onnxruntime


class Run:
    """Sequences of one length over a session."""

    def __init__(self, session, batch=1):
        self._session, self._mask = session, np.zeros((batch, 0), np.int64)
        self._outputs = [output.name for output in session.get_outputs()]
        self._cache = {
            value.name: np.zeros((batch, value.shape[1], 0, value.shape[3]), np.float32)
            for value in session.get_inputs()
            if value.name.startswith("past")
        }

    def step(self, tokens, mask=None):
        """Logits of tokens that follow, [batch, tokens or 1, vocabulary]."""
        ids = np.asarray(tokens, np.int64).reshape(len(self._mask), -1)
        self._mask = np.concatenate([self._mask, np.ones_like(ids) if mask is None else mask], axis=1)
        feed = {"input_ids": ids, "attention_mask": self._mask, **self._cache}
        given = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
        self._cache = {name: given["present" + name.removeprefix("past_key_values")] for name in self._cache}
        return given["logits"]


def answer(session, tokens, count):
    """Logits of the first token alone, of the tokens given at once, and the greedy tokens that follow one by one."""
    first = Run(session).step(tokens[:1])[0, 0]
    run, greedy = Run(session), []
    logits = step = run.step(tokens)[0]
    for _ in range(count):
        greedy.append(int(step[-1].argmax()))
        step = run.step(greedy[-1:])[0]
    return greedy, {"first": first, "logits": logits}


def batch_error(session, tokens, side):
    """Of three sequences that are filled up at one side, and a token that follows each."""
    lengths = (9, 4, 1)
    sequences = [tokens[at : at + n] for at, n in enumerate(lengths)]
    ids, mask = np.zeros((3, 9), np.int64), np.zeros((3, 9), np.int64)
    for row, (sequence, n) in enumerate(zip(sequences, lengths, strict=True)):
        where = slice(9 - n, 9) if side == "left" else slice(0, n)
        ids[row, where], mask[row, where] = sequence, 1
    batch = Run(session, 3)
    together, later = batch.step(ids, mask), batch.step(tokens[-3:])
    worst = 0.0
    for row, sequence in enumerate(sequences):
        alone = Run(session)
        last = together[row, -1 if together.shape[1] == 1 or side == "left" else lengths[row] - 1]
        worst = max(worst, np.abs(last - alone.step(sequence)[0, -1]).max())
        worst = max(worst, np.abs(later[row, -1] - alone.step(tokens[-3:][row : row + 1])[0, -1]).max())
    return float(worst)


def sequences(session, tokens, pieces):
    """In pieces, and in a batch."""
    run, logits = Run(session), []
    for begin, end in zip([0, *pieces], [*pieces, len(tokens)], strict=True):
        logits.append(run.step(tokens[begin:end])[0])
    return {
        "pieces": np.concatenate(logits),
        "batch": [batch_error(session, tokens, side) for side in ("left", "right")],
    }


def results_of(run, job):
    """Of one folder, in each way."""
    for level in run["levels"]:
        for inlines in run["inlines"]:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
            options.add_session_config_entry("session.disable_aot_function_inlining", "0" if inlines else "1")
            if run["library"]:
                options.register_custom_ops_library(run["library"])
            result, arrays = {"level": level, "inlines": inlines}, {}
            try:
                session = onnxruntime.InferenceSession(run["folder"] + "/model.onnx", options)
                result["greedy"], arrays = answer(session, job["tokens"], job["greedy"])
                arrays |= sequences(session, job["tokens"], job["pieces"]) if run["sequences"] else {}
            except Exception as error:  # noqa: BLE001 - what a release refuses is a result
                result["error"] = str(error)
            yield result, arrays


def main() -> None:
    """Read the job from standard input."""
    job = json.load(sys.stdin)
    onnxruntime.set_default_logger_severity(4)
    results, arrays = [], {}
    for name, run in job["runs"].items():
        for result, found in results_of(run, job):
            arrays |= {f"{len(results)}.{key}": value for key, value in found.items()}
            results.append({"run": name, **result})
    np.savez(job["arrays"], **arrays)
    json.dump({"version": onnxruntime.__version__, "results": results}, sys.stdout)


if __name__ == "__main__":
    main()
