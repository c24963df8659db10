"""Beginnings of prompts are computed once: found again in memory and on disk; no answer changes."""

import itertools
import logging

import pytest

from edgebit.errors import BundleError, EngineError
from edgebit.runtime.native import Model
from edgebit.runtime.prefix_cache import BLOCK, PrefixCache
from edgebit.runtime.session import Answer, Session


class FakeEngine:
    """One sequence, whose state is its tokens; counts what is loaded."""

    def __init__(self, kind=b"model a"):
        self.kind = kind
        self.held = []
        self.loaded = 0

    def state_kind(self):
        return self.kind

    def length(self, sequence=0):
        return len(self.held)

    def truncate(self, sequence=0, length=0):
        assert length <= len(self.held)
        del self.held[length:]

    def save(self, sequence, begin, end):
        assert begin < end <= len(self.held)
        return repr((self.kind, begin, self.held[begin:end])).encode()

    def load(self, sequence, state, tokens):
        try:
            kind, begin, held = eval(state)
        except SyntaxError as error:
            raise BundleError("damaged") from error
        if kind != self.kind or begin != len(self.held):
            raise BundleError("of another place or model")
        assert 0 < tokens <= len(held)
        self.held += held[:tokens]
        self.loaded += tokens


def text(*parts):
    """Tokens: each part a first token and how many follow it."""
    return list(itertools.chain.from_iterable(range(first, first + count) for first, count in parts))


def store(cache, tokens, kind=b"model a"):
    engine = FakeEngine(kind)
    engine.held = list(tokens)
    cache.store(engine, 0, tokens)


def restored(cache, tokens, held=0, kind=b"model a"):
    """How many of `tokens` a sequence holds that held some before; they must be the right ones."""
    engine = FakeEngine(kind)
    engine.held = tokens[:held]
    count = cache.restore(engine, 0, tokens)
    assert engine.held == tokens[:count]
    return count


SYSTEM = text((1000, 100))


@pytest.fixture(params=["memory", "disk", "both"])
def cache(request, tmp_path):
    """Of each kind."""
    memory = 0 if request.param == "disk" else 1 << 20
    folder = None if request.param == "memory" else tmp_path / "prefixes"
    return PrefixCache(memory_bytes=memory, folder=folder, disk_bytes=1 << 20)


def test_the_longest_common_prefix_is_found_to_the_token(cache):
    """Whole blocks, a part of one, and nothing at all; for the model that computed it alone."""
    store(cache, SYSTEM + text((1, 70)))
    store(cache, SYSTEM + text((200, 20)))
    assert restored(cache, SYSTEM + text((1, 70), (5000, 9))) == 170
    assert restored(cache, SYSTEM + text((1, 33), (5000, 9))) == 133
    assert restored(cache, SYSTEM + text((200, 25))) == 120
    assert restored(cache, SYSTEM[:40]) == 40
    assert restored(cache, text((7, 10))) == 0
    assert restored(cache, SYSTEM, kind=b"model b") == 0
    assert restored(cache, []) == 0


def test_what_the_sequence_holds_is_kept_where_it_is_more(cache):
    """Blocks are loaded from where they begin; never is anything shortened for nothing."""
    store(cache, SYSTEM)
    longer = SYSTEM + text((1, 50))
    assert restored(cache, longer, held=120) == 120
    assert restored(cache, longer, held=100) == 100
    assert restored(cache, longer, held=70) == 100
    assert restored(cache, longer, held=3) == 100


def test_a_conversation_that_grows_stores_what_is_new(cache):
    """Turn by turn, in blocks as long as the turns; a text that began another is not stored twice."""
    conversation = []
    for turn in range(12):
        conversation += text((turn * 100, 7 + turn * 11))
        store(cache, conversation)
        store(cache, conversation[: len(conversation) // 2])
        assert restored(cache, conversation) == len(conversation)
    sizes = [len(block.tokens) for block in cache._blocks.values()]
    assert sum(sizes) == len(conversation)
    assert max(sizes) == BLOCK


def test_memory_and_disk_stay_within_their_bounds_and_the_oldest_goes_first(tmp_path):
    """What was just used stays, with all that it follows on."""
    cache = PrefixCache(memory_bytes=4_000, folder=tmp_path, disk_bytes=20_000)
    for first in range(0, 100_000, 1_000):
        store(cache, SYSTEM + text((first, 90)))
        held = sum(len(block.state or b"") for block in cache._blocks.values())
        on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert held == cache._in_memory <= 4_000
        assert on_disk == cache._on_disk <= 20_000
    assert restored(cache, SYSTEM + text((99_000, 90))) == 190
    assert restored(cache, SYSTEM + text((98_000, 90))) == 190
    assert restored(cache, SYSTEM + text((1_000, 90))) == 100
    assert all(block.before in cache._blocks or block.before in cache._roots for block in cache._blocks.values())


def test_no_bytes_at_all_keep_nothing():
    """A cache of size 0 is none."""
    cache = PrefixCache(memory_bytes=0)
    store(cache, SYSTEM)
    assert restored(cache, SYSTEM) == 0
    assert not cache._blocks


def test_files_outlive_the_process_and_keep_their_age(tmp_path):
    """Another cache on the same folder finds them, and forgets those used longest ago when there is less room."""
    first = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 20)
    for start in (1, 2_000, 4_000):
        store(first, text((start, 60)))
    restored(first, text((1, 60)))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert [restored(PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=size), text((n, 60)))
            for n in (1, 2_000, 4_000)] == [60, 60, 60]  # fmt: skip
    restored(first, text((1, 60)))
    smaller = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=size // 2)
    assert restored(smaller, text((1, 60))) == 60
    assert restored(smaller, text((2_000, 60))) == 0
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


def test_damaged_and_foreign_files_are_removed_with_a_word(tmp_path, caplog):
    """Cut short, emptied, renamed, or with other content: what can be used is, and nothing wrong is loaded."""
    store(PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 20), text((1, 60), (9_000, 60), (70, 10)))
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 3
    (tmp_path / "notes.txt").write_text("not ours: stays")
    foreign = tmp_path / ("0" * 64 + ".kv")
    for path, content in files.items():
        for damaged in (b"", content[:20], content[:50], b"x" + content[1:], content[:60] + b"!" + content[61:],
                        content[:-3]):  # fmt: skip
            path.write_bytes(damaged)
            foreign.write_bytes(content)
            caplog.clear()
            with caplog.at_level(logging.WARNING, "edgebit.prefix_cache"):
                cache = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 20)
                assert restored(cache, text((1, 60), (9_000, 60), (70, 10))) <= 130
            assert "is removed" in caplog.text
            assert not foreign.exists()
            for each, whole in files.items():
                each.write_bytes(whole)
    assert (tmp_path / "notes.txt").exists()
    whole = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 20)
    assert restored(whole, text((1, 60), (9_000, 60), (70, 10))) == 130


def test_files_that_another_process_has_taken_away_are_no_harm(tmp_path):
    """They are computed again."""
    cache = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 20)
    store(cache, SYSTEM)
    for path in tmp_path.iterdir():
        path.unlink()
    assert restored(cache, SYSTEM) == 0
    store(cache, SYSTEM)
    assert restored(cache, SYSTEM) == 100


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="file"):
        PrefixCache(memory_bytes=0, folder=tmp_path / "file", disk_bytes=1)


# ---- with a model ----


@pytest.fixture(scope="module")
def model(native, reference_model):
    with Model.open(native, reference_model("bitnet-packed")) as model:
        yield model


def generate(session, ids, **arguments):
    answer = Answer(prompt_tokens=len(ids))
    list(session.generate(ids, answer, **arguments))
    session.keep()
    return answer


@pytest.mark.parametrize("speculate", [0, 4])
def test_answers_are_the_same_with_and_without(speculate, model, tmp_path):
    """Conversations taken in turns, in one session and after a restart."""
    system = [500, *range(1, 90)]
    prompts = [system + list(range(first, first + 30)) for first in (100, 200, 300)]
    prompts += [prompt + list(range(400, 410)) for prompt in prompts]
    plain = Session(model, ctx_len=256, speculate=0)
    wanted = []
    for prompt in prompts:
        plain.engine.truncate()
        plain._cached[0].clear()
        wanted.append(generate(plain, prompt, max_tokens=12).tokens)
    plain.close()

    for restart in range(2):
        cache = PrefixCache(memory_bytes=1 << 24, folder=tmp_path, disk_bytes=1 << 24)
        session = Session(model, ctx_len=256, speculate=speculate, prefix_cache=cache)
        answers = [generate(session, prompt, max_tokens=12) for prompt in prompts]
        session.close()
        assert [answer.tokens for answer in answers] == wanted
        reused = [answer.reused_tokens for answer in answers]
        assert reused == ([0, 90, 90, 120, 120, 120] if not restart else [119, 119, 119, 129, 129, 129])


def test_nothing_is_kept_before_the_answer_is_out(model):
    """Only keep() takes the time for it."""
    cache = PrefixCache(memory_bytes=1 << 24)
    session = Session(model, ctx_len=256, prefix_cache=cache)
    list(session.generate([500, *range(1, 90)], Answer(prompt_tokens=90), max_tokens=8))
    assert not cache._blocks
    session.keep()
    assert sum(len(block.tokens) for block in cache._blocks.values()) == session.engine.length() > 90
    session.close()


def test_a_damaged_state_is_computed_again(model, tmp_path, caplog):
    """The engine refuses it; the answer is right all the same."""
    ids, answers = [500, *range(1, 100)], []
    for damage in range(3):
        cache = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 24)
        session = Session(model, ctx_len=256, prefix_cache=cache)
        answers.append(generate(session, ids, max_tokens=8).tokens)
        session.close()
        assert answers[-1] == answers[0]
        assert ("is removed: the state has a wrong sum" in caplog.text) == (damage > 0)
        for path in tmp_path.iterdir():
            content = bytearray(path.read_bytes())
            content[-100] ^= 1
            path.write_bytes(content)
