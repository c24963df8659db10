"""The model behind the daemon: out of a bundle's folder or file, with the bundle's own library."""

import shutil

import pytest

from edgebit.bundle.archive import hash_file, open_bundle, write_archive
from edgebit.bundle.manifest import BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.prompt_program import Message
from edgebit.convert import convert
from edgebit.daemon.config.sections import EngineConfig
from edgebit.daemon.contract.messages import GenerateRequest, Refusal, ResponseSchema
from edgebit.daemon.serving.engine import LEFT_BYTES, LoadedModel
from edgebit.errors import BundleError, EngineError
from edgebit.runtime.engine import Engine
from edgebit.runtime.generation import Answer
from edgebit.runtime.model import Model
from tests.kernels.random_adapter import random_adapter


def request(**named):
    given = {
        "prompt": "hi",
        "messages": (Message("user", "hi"),),
        "sampling": {"temperature": 0.0},
        "seed": 1,
        "max_tokens": 8,
        "stop": (),
        "stream": False,
        "format": "json",
    }
    return GenerateRequest(**{**given, **named})


def answer_of(model, asked):
    """The answer, made alone."""
    ids = model.request_ids(asked)
    generation = model.begin(asked, ids, Answer(prompt_tokens=len(ids)), "")
    text = ""
    while not generation.done:
        text += "".join(piece for _, pieces in model.step([generation]) for piece in pieces)
    model.end(generation)
    assert text == generation.answer.text
    return generation.answer


@pytest.fixture(scope="module")
def bundle_file(native, reference_model, tmp_path_factory):
    """A bundle of this machine's library and a reference model."""
    folder = tmp_path_factory.mktemp("bundle")
    sources = {"model.ebm": reference_model("bitnet-packed"), "lib/libedgebit.so": native.path}
    manifest = Manifest(
        name="tiny",
        edgebit="0.1.0",
        abi=1,
        target=TargetInfo(name="host", triple="x86_64-linux-gnu"),
        model=ModelInfo(name="tiny-bitnet"),
        build=BuildInfo(),
        files={name: hash_file(path) for name, path in sources.items()},
    )
    write_archive(folder / "tiny.bundle", manifest, sources)
    return folder / "tiny.bundle"


@pytest.fixture(scope="module")
def bundle_folder(bundle_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slot")
    shutil.unpack_archive(bundle_file, folder, "tar")
    return folder


def test_a_file_and_a_folder_answer_alike(bundle_file, bundle_folder, reference_model, monkeypatch):
    """Both with the library inside: none of this machine is looked for."""
    monkeypatch.setattr("edgebit.runtime.library.native_library", lambda: pytest.fail("the bundle has a library"))
    answers = []
    for path in (bundle_file, bundle_folder):
        model = LoadedModel.open(path, EngineConfig(threads=1))
        assert model.names == {"tiny-bitnet", open_bundle(path).manifest.files["model.ebm"].sha256}
        body = model.describe()
        assert (body["bundle"], body["model"]["name"]) == (open_bundle(path).id, "tiny-bitnet")
        assert (body["engine"]["threads"], body["engine"]["ctx_len"] > 0) == (1, True)
        answers.append(answer_of(model, request()).tokens)
        model.close()
    assert answers[0] == answers[1] and len(answers[0]) > 0


def test_a_bare_model_file(reference_model, native):
    """With this machine's library, and the name that the file gives itself."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=32))
    assert model.describe()["engine"]["ctx_len"] == 32
    assert model.describe()["bundle"] is None and len(model.names) == 1
    assert model.describe()["model"]["system_messages"]
    assert model.encode("hi") == model.encode("hi") != []
    model.close()


def test_raw_chat_and_plain(reference_model, native):
    """A prompt goes into the model's template, unless it is raw; a base model takes it as it stands."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1))
    chat, raw = model.request_ids(request()), model.request_ids(request(messages=()))
    assert len(chat) > len(raw) > 0
    assert model.request_ids(request(prompt=None)) == chat
    model.close()


def test_a_seed_gives_the_same_answer_again(reference_model, native):
    """Sampling hangs on the request alone, not on what was asked before."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1))
    warm = request(sampling={"temperature": 1.0}, seed=3)
    first = answer_of(model, warm).tokens
    other = answer_of(model, request(sampling={"temperature": 1.0}, seed=4)).tokens
    assert first == answer_of(model, warm).tokens != other
    model.close()


def test_prompts_known_from_before_a_restart_are_not_computed_again(reference_model, native, tmp_path):
    """Between two requests memory is enough; the folder is made when asked for, and answers are the same."""
    asked, between = (request(prompt=text, messages=()) for text in ("one two three four five", "six seven eight nine"))
    answers = []
    for disk, state in [(0, tmp_path), (0, tmp_path), (8, tmp_path), (8, tmp_path), (8, None)]:
        config = EngineConfig(threads=1, prefix_disk_mib=disk, prefix_memory_mib=0 if disk else 8, sequences=1)
        model = LoadedModel.open(reference_model("bitnet-packed"), config, state)
        ids, reused = model.request_ids(asked), []
        for each in (asked, between, asked):
            answer = answer_of(model, each)
            model.keep()
            reused.append(answer.reused_tokens)
        answers.append(answer.tokens)
        kept = disk and state is not None
        restarted = kept and len(answers) == 4
        assert (tmp_path / "prefixes").exists() == (len(answers) > 2)
        assert (reused[0] == len(ids) - 1) == restarted
        assert (reused[2] == len(ids) - 1) == (kept or not disk)
        model.close()
    assert all(tokens == answers[0] for tokens in answers)


def test_sequences_are_as_many_as_memory_allows(reference_model, native, monkeypatch):
    """Four, unless the configuration says otherwise; a quarter of the memory is for their KV caches."""
    found = []
    for memory, asked in ((None, 0), (1 << 30, 0), (1, 0), (1, 3), (4 * 150_000, 0)):
        monkeypatch.setattr("edgebit.daemon.serving.session_opening.total_memory_bytes", lambda memory=memory: memory)
        model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=64, sequences=asked))
        found.append((model.sequences, model.describe()["engine"]["kv_bytes"]))
        model.close()
    one = found[0][1]
    assert [sequences for sequences, _ in found[:4]] == [1, 4, 1, 3]
    assert [size for _, size in found[:4]] == [one, 4 * one, one, 3 * one]
    assert 1 <= found[4][0] <= 4 and found[4][0] == max(1, min(4, 150_000 // one))


def test_threads_are_at_most_those_it_was_opened_with(reference_model, native):
    """0 is all of them; no answer changes."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=2))
    answers = []
    for threads, used in ((0, 2), (1, 1), (9, 2)):
        model.set_threads(threads)
        assert model._session.engine.stats().n_threads == used
        answers.append(answer_of(model, request()).tokens)
    assert answers[0] == answers[1] == answers[2]
    model.close()


def test_a_closed_model_still_says_what_it_was(reference_model, native):
    """Info may be told while the daemon ends, if the broker comes back just then."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=2))
    before = model.describe()
    model.set_threads(1)
    model.close()
    assert model.describe() == before
    assert before["engine"]["threads"] == 2 and before["engine"]["arena_bytes"] > 0


def test_the_warm_up_leaves_nothing_behind(reference_model, native):
    """Neither in a sequence nor in the prefix cache."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=24))
    asked, ids = model.warm_up()
    for _ in range(2):
        generation = model.begin(asked, ids, Answer(prompt_tokens=len(ids)), "")
        assert generation.answer.reused_tokens == 0
        while not generation.done:
            model.step([generation])
        model.forget(generation)
        model.keep()
    model.close()


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    """The bundle, and not the library that it would have brought."""
    monkeypatch.setattr("edgebit.runtime.library.native_library", lambda: pytest.fail("the bundle comes first"))
    with pytest.raises(BundleError, match="active cannot be read: No such file"):
        LoadedModel.open(tmp_path / "active", EngineConfig())


def test_a_model_without_a_tokenizer(reference_checkpoint, native, tmp_path):
    """In words that fit a device, without a full stop: other sentences go on from them."""
    convert(reference_checkpoint("legacy-1bitllm-f32"), tmp_path / "model.ebm", probes=False)
    with pytest.raises(EngineError, match=r"cannot take text: .* Build it from one that has$"):
        LoadedModel.open(tmp_path / "model.ebm", EngineConfig(threads=1))


def test_damage_is_refused(bundle_file, tmp_path, native):
    """A bundle cut short, and a file that is none."""
    (tmp_path / "cut.bundle").write_bytes(bundle_file.read_bytes()[:-70_000])
    (tmp_path / "none.ebm").write_bytes(b"not a model" * 100)
    for name in ("cut.bundle", "none.ebm"):
        with pytest.raises(BundleError):
            LoadedModel.open(tmp_path / name, EngineConfig())


def test_a_request_is_refused_where_its_kv_cache_finds_no_memory(reference_model, native, monkeypatch):
    """By what it would take anew: a sequence that has been used has its memory. 507 where no device has so much."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=1024, sequences=1))
    a_token = model.describe()["engine"]["kv_bytes"] // 1024
    asked = request(messages=(), max_tokens=40)
    ids = model.request_ids(asked)
    needed = (len(ids) + 40) * a_token
    for free, total, status in ((needed - 1, 1 << 40, 503), (needed - 1, needed - 1, 507)):
        monkeypatch.setattr("edgebit.daemon.serving.engine.available_memory_bytes", lambda free=free: LEFT_BYTES + free)
        monkeypatch.setattr("edgebit.daemon.serving.engine.total_memory_bytes", lambda total=total: LEFT_BYTES + total)
        with pytest.raises(Refusal, match="needs up to") as refused:
            answer_of(model, asked)
        assert (refused.value.status, refused.value.retryable) == (status, status == 503)
    monkeypatch.setattr("edgebit.daemon.serving.engine.available_memory_bytes", lambda: LEFT_BYTES + needed)
    length = len(answer_of(model, asked).tokens)
    monkeypatch.setattr("edgebit.daemon.serving.engine.available_memory_bytes", lambda: LEFT_BYTES)
    assert len(answer_of(model, request(messages=(), max_tokens=length - 1)).tokens) == length - 1
    with pytest.raises(Refusal):
        answer_of(model, request(messages=(), max_tokens=60))
    model.close()


def test_memory_that_an_engine_gives_back_is_taken_anew(reference_model, native, monkeypatch):
    """A sequence that has been used has no memory left then, but for what its tokens hold."""
    monkeypatch.setattr(Engine, "keeps_memory", False)
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=1024, sequences=1))
    asked = request(messages=(), max_tokens=40)
    other = request(prompt="another thing", messages=(), max_tokens=40)
    answer_of(model, asked)
    monkeypatch.setattr("edgebit.daemon.serving.engine.available_memory_bytes", lambda: LEFT_BYTES)
    with pytest.raises(Refusal):
        answer_of(model, other)
    monkeypatch.setattr(Engine, "keeps_memory", True)
    assert answer_of(model, request(prompt="another", messages=(), max_tokens=4)).tokens
    model.close()


def test_answers_that_begin_together_do_not_count_on_the_same_memory(reference_model, native, monkeypatch):
    """What the first may still come to is not free, though nothing of it is taken yet; once it has ended it is."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(threads=1, ctx_len=512, sequences=2))
    a_token = model.describe()["engine"]["kv_bytes"] // 1024
    asked = request(messages=(), max_tokens=40)
    ids = model.request_ids(asked)
    free = LEFT_BYTES + 2 * (len(ids) + 40) * a_token - 1
    monkeypatch.setattr("edgebit.daemon.serving.engine.available_memory_bytes", lambda: free)
    first = model.begin(asked, ids, Answer(prompt_tokens=len(ids)), "a")
    for _ in range(2):
        with pytest.raises(Refusal) as refused:
            model.begin(asked, ids, Answer(prompt_tokens=len(ids)), "b")
        assert refused.value.code == "memory_short"
    model.end(first)
    model.end(model.begin(asked, ids, Answer(prompt_tokens=len(ids)), "b"))
    model.close()


def test_an_adapter_that_is_unloaded_within_an_answer(native, reference_model):
    """The answer goes on with it to its end; then it is closed, and what was computed with it serves nobody."""
    path = reference_model("bitnet-packed")
    model = LoadedModel.open(path, EngineConfig(ctx_len=64, sequences=2, threads=1))
    with Model.open(native, path) as weights, ModelFile(path) as file:
        data = random_adapter(weights, file.conf, seed=3).pack()
    plain = answer_of(model, request())
    adapter = model.open_adapter(data)
    model.adapters.put("garage", "a", adapter)
    asked = model.fitting(request(adapter="garage"))
    keys = {
        model.answer_key(each, [1]) for each in (asked, request(), model.fitting(request(adapter="garage", seed=2)))
    }
    assert len(keys) == 2, "a seed means nothing where nothing is drawn, an adapter does"
    wanted = answer_of(model, asked)
    assert wanted.text != plain.text

    ids = model.request_ids(asked)
    generation = model.begin(asked, ids, Answer(prompt_tokens=len(ids)), "")
    model.step([generation])
    model.adapters.remove("garage")
    with pytest.raises(Refusal, match="not loaded"):
        model.begin(asked, ids, Answer(prompt_tokens=len(ids)), "")
    while not generation.done:
        model.step([generation])
    model.end(generation)
    assert generation.answer.text == wanted.text
    with pytest.raises(EngineError, match="in use"):
        adapter.close()
    model.keep()
    adapter.close()
    again = answer_of(model, request())
    assert again.text == plain.text
    model.close()


def test_a_model_without_a_schema_of_its_own(reference_model):
    """Is no assistant, and says so."""
    model = LoadedModel.open(reference_model("bitnet-packed"), EngineConfig(ctx_len=64, threads=1))
    with pytest.raises(Refusal, match="has no schema of its own") as refused:
        model.fitting(request(response_schema=ResponseSchema(None)))
    assert (refused.value.status, refused.value.code) == (400, "not_supported_by_model")
    assert model.describe()["model"]["response_schema"] is False
    model.close()
