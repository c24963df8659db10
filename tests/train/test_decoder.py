"""The decoder: documents of a row see nothing of each other, and twins differ in rounding alone."""

import pytest
from sorting_task import SHAPE, sorting_documents

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from greedy_decoding import greedy  # noqa: E402

from edgebit.train.batch import batch_of, cross_entropy  # noqa: E402
from edgebit.train.bit_linear import BitLinear, FloatLinear  # noqa: E402
from edgebit.train.decoder import Decoder  # noqa: E402
from edgebit.train.rows import row_of  # noqa: E402

pytestmark = pytest.mark.reference


@pytest.fixture
def decoder():
    torch.manual_seed(1)
    return Decoder(SHAPE)


def test_documents_of_a_row_do_not_see_each_other(decoder):
    """The logits of each are those that it has alone."""
    documents = sorting_documents(4)
    packed = batch_of([row_of(documents, 64)])
    with torch.no_grad():
        together = decoder(packed.ids, packed.positions, packed.documents)[0]
        start = 0
        for document in documents:
            alone = batch_of([row_of([document], len(document.ids))])
            expected = decoder(alone.ids, alone.positions, alone.documents)[0]
            torch.testing.assert_close(together[start : start + len(document.ids)], expected, rtol=1e-4, atol=1e-5)
            start += len(document.ids)


def test_no_token_sees_a_later_one(decoder):
    """Another last token changes no logits before it."""
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    other = torch.tensor([[3, 1, 4, 1, 9]])
    positions, documents = torch.arange(5)[None], torch.zeros(1, 5, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(decoder(ids, positions, documents)[:, :4], decoder(other, positions, documents)[:, :4])


def test_the_loss_of_learnt_places_is_that_of_all_logits(decoder):
    """Though logits are computed nowhere else."""
    batch = batch_of([row_of(sorting_documents(4), 64), row_of(sorting_documents(3, seed=2), 64)])
    with torch.no_grad():
        hidden = decoder.model(batch.ids, batch.positions, batch.documents).flatten(0, 1)[batch.learnt]
        logits = decoder(batch.ids, batch.positions, batch.documents)
        every = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100, reduction="sum"
        )

        torch.testing.assert_close(cross_entropy(decoder, hidden, batch), every)


def test_the_float_twin_begins_with_the_same_weights(decoder):
    """And has a linear layer wherever the other has a BitLinear."""
    torch.manual_seed(1)
    twin = Decoder(SHAPE, ternary=False)

    for name, value in decoder.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name])
    kinds = {type(module) for module in decoder.modules()} ^ {type(module) for module in twin.modules()}
    assert kinds == {BitLinear, FloatLinear}


def test_greedy_answers_are_the_most_likely_tokens(decoder):
    """Prompts of several lengths, in their order, each as when it is asked alone."""
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8]]
    answers = greedy(decoder, prompts, stop={-1}, limit=5)

    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            logits = decoder(ids, torch.arange(ids.shape[1])[None], torch.zeros_like(ids))[0]
        assert logits.argmax(dim=-1).tolist()[len(prompt) - 1 : -1] == answer
    first = answers[0][2]
    cut = greedy(decoder, prompts[:1], stop={first}, limit=5)[0]
    assert cut == answers[0][: answers[0].index(first)]
