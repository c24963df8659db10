"""A sequence on a session: however its tokens come, and wherever it goes back to, the logits are those of the text."""

import json

import numpy as np
import pytest

from edgebit.errors import OnnxError
from edgebit.onnx_engine.decoder import Decoder
from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.session import OnnxSession
from edgebit.runtime.eval_errors import Cancelled, ContextFullError

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

TOKENS = [int(each) for each in np.random.default_rng(3).integers(2, 512, 60)]
NEAR = {"rtol": 1e-5, "atol": 2e-4}  # of logits up to 100: sums in another order


@pytest.fixture(scope="module", params=["contrib", "standard"])
def session(request, hand_made):
    return OnnxSession.open(OnnxFolder.open(hand_made(ops=request.param, logits="all")), threads=1)


@pytest.fixture(scope="module")
def wanted(session):
    """Logits [len(TOKENS), vocab_size] of tokens that came one by one."""
    decoder = Decoder(session)
    return np.concatenate([decoder.append([token]) for token in TOKENS])


@pytest.mark.parametrize("batch_len", [1, 7, 16, 64])
def test_pieces_of_any_length_give_the_logits_of_single_tokens(session, wanted, batch_len):
    decoder = Decoder(session, batch_len=batch_len)
    np.testing.assert_allclose(decoder.append_all(TOKENS), wanted, **NEAR)
    assert decoder.length == len(TOKENS)


def test_append_gives_the_last_row_alone(session, wanted):
    decoder = Decoder(session, batch_len=7)
    for begin, end in ((0, 20), (20, 21), (21, 60)):
        logits = decoder.append(TOKENS[begin:end])
        assert logits.shape == (1, 512) and logits.dtype == np.float32
        np.testing.assert_allclose(logits[0], wanted[end - 1], **NEAR)


@pytest.mark.parametrize("length", [0, 1, 33])
def test_truncated_it_goes_on_from_there(session, wanted, length):
    decoder = Decoder(session)
    decoder.append([*TOKENS[:length], *TOKENS[::-1]][:60])
    decoder.truncate(length)
    assert decoder.length == length
    decoder.truncate(60)
    assert decoder.length == length
    np.testing.assert_allclose(decoder.append(TOKENS[length:50])[0], wanted[49], **NEAR)


def test_sequences_on_one_session_do_not_touch_each_other(session, wanted):
    """A copy goes its own way as well."""
    one, other = Decoder(session), Decoder(session)
    one.append(TOKENS[:30])
    other.append(TOKENS[::-1])
    copy = Decoder(session)
    copy.copy_from(one, 20)
    other.truncate(0)
    other.append(TOKENS[5:9])
    for decoder, begin in ((one, 30), (copy, 20)):
        np.testing.assert_allclose(decoder.append(TOKENS[begin:40])[0], wanted[39], **NEAR)


def test_memory_is_that_of_the_kind_of_cache(session):
    decoder = Decoder(session)
    decoder.append(TOKENS)
    a_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, head_dim, float32
    assert decoder.keeps_memory == (session.folder.ops == "contrib")
    assert decoder.held_bytes == a_token * (96 if decoder.keeps_memory else len(TOKENS))


def test_appending_in_place_and_growing_give_the_same_bits(hand_made):
    session = OnnxSession.open(OnnxFolder.open(hand_made()), threads=1)
    in_place, grown = Decoder(session), Decoder(session, in_place=False)
    assert in_place.keeps_memory and not grown.keeps_memory
    for begin, end in ((0, 17), (17, 18), (18, 40)):
        assert (in_place.append(TOKENS[begin:end]) == grown.append(TOKENS[begin:end])).all()


def test_what_does_not_fit_changes_nothing(session, wanted):
    decoder = Decoder(session, ctx_len=30)
    decoder.append(TOKENS[:25])
    with pytest.raises(ContextFullError, match="6 tokens do not fit: the context has 30, and 25 are there"):
        decoder.append(TOKENS[25:31])
    np.testing.assert_allclose(decoder.append(TOKENS[25:30])[0], wanted[29], **NEAR)


def test_a_run_that_fails_halfway_leaves_the_sequence_as_it_was(session, wanted):
    """A token outside the vocabulary is a fault of the graph's own."""
    decoder = Decoder(session, batch_len=4)
    decoder.append(TOKENS[:10])
    with pytest.raises(OnnxError, match=r"model\.onnx"):
        decoder.append([*TOKENS[10:16], 999_999])
    assert decoder.length == 10
    np.testing.assert_allclose(decoder.append(TOKENS[10:20])[0], wanted[19], **NEAR)


def test_logits_of_another_size_than_the_folder_says_are_refused(hand_made):
    """Nothing reads a row of them that is too short."""
    conf = json.loads(OnnxFolder.open(hand_made()).onnx.metadata["edgebit.conf"])
    vocab_size = conf["vocab_size"]
    conf["vocab_size"] += 1
    folder = OnnxFolder.open(hand_made(properties={"edgebit.conf": json.dumps(conf)}))
    decoder = Decoder(OnnxSession.open(folder, threads=1))
    with pytest.raises(OnnxError, match=rf"logits of tensor\(float\) \[1, 1, {vocab_size}\].*{vocab_size + 1} tokens"):
        decoder.append([1])
    assert decoder.length == 0


def test_cancel_ends_the_next_run_and_that_one_alone(session, wanted):
    decoder = Decoder(session)
    decoder.append(TOKENS[:10])
    decoder.cancel()
    with pytest.raises(Cancelled):
        decoder.append(TOKENS[10:20])
    assert decoder.length == 10
    decoder.cancel()
    decoder.cancel_reset()
    np.testing.assert_allclose(decoder.append(TOKENS[10:20])[0], wanted[19], **NEAR)


def test_wishes_that_cannot_be_are_refused(session, hand_made):
    with pytest.raises(OnnxError, match="a context of 97 tokens was asked for, the model's is 96"):
        Decoder(session, ctx_len=97)
    with pytest.raises(OnnxError, match="no tokens"):
        Decoder(session).append([])
    last_only = OnnxSession.open(OnnxFolder.open(hand_made(logits="last")), threads=1)
    with pytest.raises(OnnxError, match="--logits all"):
        Decoder(last_only).append_all(TOKENS)
