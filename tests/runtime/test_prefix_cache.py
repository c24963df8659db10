"""Beginnings of prompts are computed once: found again in memory and on disk; no answer changes."""

import itertools
import logging

import pytest

from edgebit.errors import BundleError, EngineError
from edgebit.runtime import prefix_cache
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from edgebit.runtime.prefix_cache import BLOCK, PrefixCache
from edgebit.runtime.session import Session


class FakeEngine:
    """One sequence, whose state is its tokens and some bytes for each. `watch` is called at each save and load."""

    def __init__(self, kind=b"model a", padding=0, watch=lambda: None):
        self.kind = kind
        self.padding = padding
        self.watch = watch
        self.held = []
        self.saves = 0

    def state_kind(self, sequence=0):
        return self.kind

    def length(self, sequence=0):
        return len(self.held)

    def truncate(self, sequence=0, length=0):
        assert length <= len(self.held)
        del self.held[length:]

    def state_size(self, sequence, begin, end):
        return len(self._state(begin, end))

    def save(self, sequence, begin, end):
        self.saves += 1
        self.watch()
        return self._state(begin, end)

    def _state(self, begin, end):
        assert begin < end <= len(self.held)
        return repr((self.kind, begin, self.held[begin:end])).encode() + b" " * self.padding * (end - begin)

    def load(self, sequence, state, tokens):
        try:
            kind, begin, held = eval(state)
        except SyntaxError as error:
            raise BundleError("damaged") from error
        if kind != self.kind or begin != len(self.held):
            raise BundleError("of another place or model")
        assert 0 < tokens <= len(held)
        self.held += held[:tokens]
        self.watch()


def text(*parts):
    """Tokens: each part a first token and how many follow it."""
    return list(itertools.chain.from_iterable(range(first, first + count) for first, count in parts))


def store(cache, tokens, **options):
    """How many blocks are saved."""
    engine = FakeEngine(**options)
    engine.held = list(tokens)
    cache.store(engine, 0, tokens)
    return engine.saves


def restored(cache, tokens, held=0, **options):
    """How many of `tokens` a sequence holds that held some before; they must be the right ones."""
    engine = FakeEngine(**options)
    engine.held = tokens[:held]
    count = cache.restore(engine, 0, tokens)
    assert engine.held == tokens[:count]
    return count


def check_sums(cache, folder=None):
    """What the cache believes to hold is what it holds."""
    assert cache._in_memory == sum(len(block.state or b"") for block in cache._blocks.values())
    assert cache._on_disk == sum(block.file_size for block in cache._blocks.values())
    if folder is not None:
        assert cache._on_disk == sum(path.stat().st_size for path in folder.iterdir())


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
    root = prefix_cache._root(FakeEngine(), 0)
    assert all(block.before in cache._blocks or block.before == root for block in cache._blocks.values())


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_text_longer_than_the_bound_is_saved_once_as_far_as_there_is_room(kind, tmp_path):
    """Its beginning is kept; the rest is not saved to be thrown away, at this answer or the next. Never is it more."""
    limit = 200_000  # three blocks of 64 x 1,000 bytes, and not four
    memory, disk = (limit, 0) if kind == "memory" else (0, limit)
    cache = PrefixCache(memory_bytes=memory, folder=tmp_path, disk_bytes=disk)
    held = []

    def watch():
        size = cache._in_memory if kind == "memory" else sum(path.stat().st_size for path in tmp_path.iterdir())
        held.append(size + 64_000)  # what is saved comes on top

    conversation = text((0, 20 * BLOCK))
    assert store(cache, text((50_000, 3 * BLOCK)), padding=1000) == 3
    assert store(cache, conversation, padding=1000, watch=watch) == 3
    for turn in range(3):
        conversation += text((60_000 + 1_000 * turn, 100))
        assert store(cache, conversation, padding=1000, watch=watch) == 0
        assert restored(cache, conversation, padding=1000) == 3 * BLOCK
    assert len(held) == 3 and max(held) <= limit
    check_sums(cache, tmp_path)


@pytest.mark.parametrize("memory", [0, 150_000, 1 << 20])
def test_what_is_read_from_disk_stays_in_memory_only_where_there_is_room(memory, tmp_path):
    """`run` has none for it: each state goes once it is loaded."""
    tokens, held = text((0, 8 * BLOCK)), []
    store(PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 20), tokens, padding=1000)
    cache = PrefixCache(memory_bytes=memory, folder=tmp_path, disk_bytes=1 << 20)
    assert restored(cache, tokens, padding=1000, watch=lambda: held.append(cache._in_memory)) == len(tokens)
    assert max(held) <= memory
    assert sum(block.state is not None for block in cache._blocks.values()) == min(8, memory // 65_000)
    check_sums(cache, tmp_path)


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


def test_faults_of_memory_and_disk_are_logged_and_fail_nothing(tmp_path, monkeypatch, caplog):
    """Neither a state that cannot be made, nor files that can be neither written, read nor removed."""

    def fails(error):
        def fail(*arguments, **options):
            raise error

        return fail

    cache = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=20_000)
    store(cache, SYSTEM)
    longer = SYSTEM + text((1, 150))
    for target, name, error, tells in (
        (FakeEngine, "save", MemoryError(), "memory is short"),
        (prefix_cache.os, "open", OSError(28, "No space left on device"), "No space left"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, fails(error))
            caplog.clear()
            store(cache, longer)
        assert tells in caplog.text
        check_sums(cache, tmp_path)
        assert restored(cache, longer) == 100
    with monkeypatch.context() as patched:
        patched.setattr(PrefixCache, "_read", fails(MemoryError()))
        assert restored(cache, longer) == 0
    assert restored(cache, longer) == 100
    with monkeypatch.context() as patched:
        patched.setattr(prefix_cache.Path, "unlink", fails(PermissionError(13, "Permission denied")))
        for first in range(0, 100_000, 1_000):
            store(cache, text((first, 60)))
        assert "cannot be removed: Permission denied" in caplog.text
        patched.setattr(PrefixCache, "_read", fails(OSError(5, "Input/output error")))
        assert restored(cache, text((99_000, 60))) == 0
    check_sums(cache)


def test_blocks_whose_first_was_lost_are_found_again_when_it_is_stored(tmp_path):
    """They count once, and are not saved anew."""
    tokens = text((0, 3 * BLOCK))
    writer = PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 20)
    store(writer, tokens)
    first = next(block for block in writer._blocks.values() if block.before == prefix_cache._root(FakeEngine(), 0))
    writer._path(first).unlink()

    cache = PrefixCache(memory_bytes=1 << 20, folder=tmp_path, disk_bytes=1 << 20)
    assert restored(cache, tokens) == 0
    assert store(cache, tokens) == 1
    check_sums(cache, tmp_path)
    assert restored(cache, tokens) == 3 * BLOCK
    check_sums(cache, tmp_path)


def test_files_that_a_power_cut_left_unfinished_go_and_those_of_others_stay(tmp_path, caplog):
    """Ours are known by their name, or by how they begin."""
    ours = [tmp_path / f"{'a' * 64}.4711.new", tmp_path / f"{'a' * 64}.kv", tmp_path / "renamed.kv"]
    others = [tmp_path / name for name in ("draft.new", "recipes.kv", "notes.4711.new", "empty.kv")]
    for path in ours[:2] + others:
        path.write_bytes(b"text of another program, longer than the header of a block" if path.stem != "empty" else b"")
    ours[2].write_bytes(prefix_cache._MAGIC + bytes(500))
    (tmp_path / "folder.kv").mkdir()
    PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1 << 20)
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "folder.kv"])


def test_a_long_text_is_forgotten_from_its_beginning():
    """A block takes all after it along, however many they are."""
    cache, tokens = PrefixCache(memory_bytes=1 << 30), text((0, 1_200 * BLOCK))
    assert store(cache, tokens) == 1_200
    first = next(block for block in cache._blocks.values() if block.before == prefix_cache._root(FakeEngine(), 0))
    cache._in_memory -= len(first.state) - 1
    first.state = b"("
    assert restored(cache, tokens) == 0
    assert not cache._blocks and not cache._after and cache._in_memory == 0


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="file"):
        PrefixCache(memory_bytes=0, folder=tmp_path / "file", disk_bytes=1)


def test_a_folder_where_others_could_put_states_is_refused(tmp_path, monkeypatch):
    """Answers are made from them."""
    for mode in (0o770, 0o707):
        tmp_path.chmod(mode)
        with pytest.raises(EngineError, match=r"others may write there.*chmod go-w"):
            PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1)
    tmp_path.chmod(0o755)
    PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1)
    monkeypatch.setattr(prefix_cache.os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(EngineError, match="belongs to another user"):
        PrefixCache(memory_bytes=0, folder=tmp_path, disk_bytes=1)


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
        plain.pool[0].tokens.clear()
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
