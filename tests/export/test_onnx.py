"""`edgebit export onnx`: the graph computes what the native engine computes, with the library and without it."""

from contextlib import closing
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from export.onnx_run import NativeRun, OnnxRun, open_session

from edgebit.bundle.model_format import ActivationQuantisation, Role
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.convert import convert
from edgebit.export.onnx_model.packing import int8_bytes, pack_n2
from edgebit.export.to_onnx import FLAVOURS, OnnxForm, export_onnx

onnx = pytest.importorskip("onnx")

NAMES = sorted(path.name for path in (Path(__file__).parents[1] / "reference").iterdir() if path.is_dir())
MEMORISED = Path(__file__).with_name("memorised")
N_TOKENS, N_GREEDY = 40, 64
PIECES = (0, 17, 18, 33, 40)


def tokens_of(engine: NativeRun, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, engine.model.info.vocab_size, N_TOKENS)


def head_steps(states: np.ndarray, path: Path) -> np.ndarray:
    """How much a logit changes at most where the head's input is rounded to a neighbouring integer, [tokens]."""
    with closing(open_checkpoint(path)) as checkpoint:
        largest = max(np.abs(values).max() for _, values in checkpoint.rows(Role.HEAD))
    return np.abs(states).max(axis=1) / 16256 * largest


def is_int15(path: Path) -> bool:
    with closing(open_checkpoint(path)) as checkpoint:
        return checkpoint.config.conf.activation_quantisation == ActivationQuantisation.INT15


def in_one_pass(run: OnnxRun, tokens: np.ndarray) -> np.ndarray:
    return run.step(tokens)[0]


def in_pieces(run: OnnxRun, tokens: np.ndarray) -> np.ndarray:
    return np.concatenate([run.step(tokens[a:b])[0] for a, b in pairwise(PIECES)])


def one_by_one(run: OnnxRun, tokens: np.ndarray) -> np.ndarray:
    return np.concatenate([run.step([token])[0] for token in tokens])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("computes", ["library", "exact body"])
def test_logits_are_the_engines(name, computes, request, native, quick_model, reference_checkpoint, exported):
    """Of three sequences, one in one pass, one in pieces, one token by token; then 64 greedy tokens.

    Attention and SiLU differ by 1e-7. Where that puts a value to the other side of a tie of the head's 15 bits, each
    logit changes by a step: a few steps are allowed (of projections that read 15 bits, more), or 1e-4. A tie of int8
    shows as the noise of the whole quantiser from there on (docs/decisions/onnx-graph.md counts them, none to 4 in 12
    sequences): so most tokens fit, and the others do but for noise.
    """
    path = reference_checkpoint(name)
    kernels = request.getfixturevalue("ort_library") if computes == "library" else None
    session = open_session(exported(name, fallback="exact" if kernels is None else "none"), kernels)
    fit = []
    for seed, way in enumerate((in_one_pass, in_pieces, one_by_one)):
        with NativeRun(native, quick_model(name)) as engine:
            tokens, run = tokens_of(engine, seed), OnnxRun(session)
            steps = head_steps(engine.states(tokens), path)
            engine.forget()
            wanted, found = engine.step(tokens), way(run, tokens)
            errors = np.abs(found - wanted)
            assert errors.mean() < 0.03 * wanted.std(), way.__name__
            fit.append(errors.max(axis=1) <= np.maximum(1e-4, (20 if is_int15(path) else 4) * steps))
            assert_same_greedy(run, engine, found[-1], wanted[-1])
    assert np.mean(fit) > 0.6, f"tokens that fit: {[int(each.sum()) for each in fit]} of {N_TOKENS} each"


def assert_same_greedy(run: OnnxRun, engine: NativeRun, found: np.ndarray, wanted: np.ndarray) -> None:
    """The same token 64 times, wherever the engine's second best is not a hair away."""
    for i in range(N_GREEDY):
        token = int(wanted.argmax())
        assert wanted.max() - wanted[found.argmax()] < 0.25, f"greedy token {i}"
        found, wanted = run.step([token])[0, -1], engine.step([token])[-1]


@pytest.mark.parametrize("level", [0, 1, 2, 99])
def test_a_first_token_has_the_same_bits(level, native, quick_model, exported):
    """Without attention's sums, all is integers and norms: at every level of optimization."""
    session = open_session(exported("bitnet-packed", fallback="exact"), level=level)
    for token in range(0, 200, 9):
        with NativeRun(native, quick_model("bitnet-packed")) as engine:
            assert np.array_equal(OnnxRun(session).step([token])[0], engine.step([token]))


@pytest.mark.parametrize(
    "name", ["bitnet-packed", "legacy-1bitllm-f16-head100"]
)  # GroupQueryAttention, plain operators
@pytest.mark.parametrize("ops", FLAVOURS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_sequences_of_a_batch_are_as_alone(name, ops, side, exported):
    """Filled up at either side, one of them nothing else; three tokens follow, one at a time."""
    session, random = open_session(exported(name, ops=ops, fallback="exact")), np.random.default_rng(3)
    sequences = [random.integers(0, 60, n) for n in (9, 4, 1, 0)]
    ids, mask = np.zeros((4, 9), np.int64), np.zeros((4, 9), np.int64)
    for row, sequence in enumerate(sequences):
        where = slice(9 - len(sequence), 9) if side == "left" else slice(0, len(sequence))
        ids[row, where], mask[row, where] = sequence, 1
    following = random.integers(0, 60, (4, 3))
    batch = OnnxRun(session, batch=4)
    found = batch.step(ids, mask)
    later = np.concatenate([batch.step(following[:, i]) for i in range(3)], axis=1)
    for row, sequence in enumerate(sequences):
        alone = OnnxRun(session)
        if len(sequence):
            assert np.abs(found[row][mask[row] == 1] - alone.step(sequence)[0]).max() < 1e-3
        assert np.abs(later[row] - np.concatenate([alone.step([token])[0] for token in following[row]])).max() < 1e-3


@pytest.mark.parametrize("name", ["bitnet-packed", "legacy-1bitllm-f16-head100"])
@pytest.mark.parametrize("ops", FLAVOURS)
def test_last_logits_are_those_of_the_last_token_that_is_there(name, ops, exported):
    everything, last = (
        OnnxRun(open_session(exported(name, ops=ops, fallback="exact", logits=kind)), batch=2)
        for kind in ("all", "last")
    )
    ids = np.random.default_rng(5).integers(0, 60, (2, 6))
    mask = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]])
    found, wanted = last.step(ids, mask), everything.step(ids, mask)
    assert found.shape == (2, 1, wanted.shape[2])
    assert np.abs(found[:, 0] - wanted[[0, 1], [3, 5]]).max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0, 99])
def test_the_compact_body_is_near(name, level, native, quick_model, exported):
    """Another rule of rounding than the model's: off by a twentieth of the logits' deviation in the mean (measured).

    At level 0 weights are no constants to MatMulNBits, which then rounds no activations.
    """
    with NativeRun(native, quick_model(name)) as engine:
        tokens = tokens_of(engine, 0)
        wanted = engine.step(tokens)
    found = OnnxRun(open_session(exported(name, fallback="compact"), level=level)).step(tokens)[0]
    assert 0 < np.abs(found - wanted).mean() < 0.06 * wanted.std()


@pytest.mark.parametrize(
    ("name", "fallback"),
    [*((name, "exact") for name in NAMES), *product(("bonsai-f16", "legacy-1bitllm-f16-head100"), ("compact", "none"))],
)
@pytest.mark.parametrize("ops", FLAVOURS)
def test_the_checker_takes_the_graph(name, fallback, ops, exported):
    onnx.checker.check_model(str(exported(name, ops=ops, fallback=fallback) / "model.onnx"), full_check=True)


def test_a_model_file_gives_the_same_weights(reference_model, exported, tmp_path):
    """The head's int8 rows are those that the engine computes with."""
    export_onnx(reference_model("bitnet-packed-odd-untied"), tmp_path / "out", form=OnnxForm(logits="all"))
    wanted = exported("bitnet-packed-odd-untied") / "model.onnx.data"
    assert (tmp_path / "out" / "model.onnx.data").read_bytes() == wanted.read_bytes()


def test_a_tied_int8_embedding_is_the_heads(exported):
    """One tensor for both; its rows times their scales are the embedding, to half a step."""
    folder = exported("bitnet-packed", int8_embedding=True)
    model = onnx.load(str(folder / "model.onnx"))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert "embedding.weight" not in tensors
    readers = [node.op_type for node in model.graph.node if "head.weight" in node.input]
    assert readers == ["Gather", "Int8MatMul"]
    rows = (tensors["head.weight"].astype(np.float32) - 128) * tensors["head.scale"][:, None]
    exact = onnx.load(str(exported("bitnet-packed") / "model.onnx"))
    (embedding,) = (tensor for tensor in exact.graph.initializer if tensor.name == "embedding.weight")
    error = np.abs(rows - onnx.numpy_helper.to_array(embedding).astype(np.float32))
    assert (error <= tensors["head.scale"][:, None] * 0.501).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_int8_embedding_has_the_engines_bits(name, native, reference_checkpoint, exported, tmp_path):
    """Tied or not, rows filled up or not: what a model file of `edgebit convert --embedding int8` computes."""
    convert(reference_checkpoint(name), tmp_path / "m.ebm", embedding="int8", probes=False)
    session = open_session(exported(name, fallback="exact", int8_embedding=True))
    for token in range(0, 60, 9):
        with NativeRun(native, tmp_path / "m.ebm") as engine:
            assert np.array_equal(OnnxRun(session).step([token])[0], engine.step([token]))


def test_layout_n2():
    """Byte p of 16 has columns 4p to 4p + 3 of 64, as weight + 2; four rows lie together, filled up with zeros."""
    rows, columns = 6, 100
    weights = np.random.default_rng(2).integers(-1, 2, (rows, columns)).astype(np.int8)
    packed = pack_n2(weights).reshape(-1)
    assert packed.size == 2 * 2 * 4 * 16
    for row in range(8):
        for column in range(128):
            tile = (row // 4 * 2 + column // 64) * 64
            byte = int(packed[tile + row % 4 * 16 + column % 64 // 4])
            wanted = weights[row, column] if row < rows and column < columns else 0
            assert (byte >> column % 4 * 2 & 3) - 2 == wanted


def test_int8_rows_are_codes_and_128():
    found = int8_bytes(np.array([[-127, 0, 127]], np.int8))
    assert found.tolist() == [[1, 128, 255] + [128] * 13]


@pytest.mark.parametrize(("asked", "has"), [(32, 32), (None, 4096)])
def test_context_bounds_the_tables(asked, has, exported):
    """They have the positions asked for, or as many as the model was made for."""
    model = onnx.load(str(exported("bitnet-packed", context=asked) / "model.onnx"), load_external_data=False)
    (cos,) = (tensor for tensor in model.graph.initializer if tensor.name == "rope.cos")
    assert cos.dims[0] == has


@pytest.mark.parametrize("fallback", ["compact", "exact"])
def test_the_text_that_a_model_knows_by_heart(fallback, tmp_path):
    """64 greedy tokens, each going on from its own, from three places of the text."""
    export_onnx(MEMORISED, tmp_path / "out", form=OnnxForm(fallback=fallback, logits="all"))
    text = [ord(char) - 32 for char in (MEMORISED / "text.txt").read_text(encoding="ascii").strip()]
    session = open_session(tmp_path / "out")
    for first in (0, 64, 192):
        run, answer = OnnxRun(session), []
        logits = run.step(text[first : first + 32])
        for _ in range(N_GREEDY):
            answer.append(int(logits[0, -1].argmax()))
            logits = run.step(answer[-1:])
        assert answer == text[first + 32 : first + 96]
