"""Several engines on the same prompts, each in a process of its own: what the report says, and what a fault does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from edgebit.compare import contestant as contestant_module
from edgebit.compare.comparison import Questions, run_comparison
from edgebit.compare.contestant import Contestant, Settings, choose_contestants
from edgebit.compare.making import make
from edgebit.compare.report import all_equal, all_succeeded, make_report
from edgebit.compare.worker import Worker
from edgebit.convert import convert
from edgebit.engines import choice as choice_module
from edgebit.errors import EngineError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "compare.json").read_text())
MODEL = "bitnet-packed"
QUESTIONS = Questions(prompts=("The edge of the", "Hello"), max_tokens=8)
ONE_THREAD = Settings(threads=1)


@pytest.fixture
def compare(tmp_path):
    """Runs a comparison; gives its report, which fits the schema."""

    def run(contestants: list[Contestant], questions: Questions = QUESTIONS) -> dict:
        folder = tmp_path / "made"
        folder.mkdir()
        report = make_report(run_comparison(contestants, questions, lambda what, done, total: None, folder), questions)
        Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(report)))
        return report

    return run


@pytest.fixture
def altered_model(reference_checkpoint, tmp_path) -> Path:
    """The model with other weights: the last norm's are turned over."""
    folder = tmp_path / "altered"
    shutil.copytree(reference_checkpoint(MODEL), folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    data = 8 + int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8:data])["model.norm.weight"]["data_offsets"]
    norm = slice(data + begin, data + end)
    content[norm] = np.frombuffer(content[norm], np.uint16)[::-1].tobytes()  # numpy has no bfloat16
    weights.write_bytes(content)
    return folder


def native(name: str, path: Path, **settings) -> Contestant:
    return Contestant(name=name, path=path, engine="native", settings=Settings(threads=1, **settings))


def test_equal_models_are_equal(compare, reference_model):
    """Every figure is there, and the answers have as many tokens as were asked for."""
    model = reference_model(MODEL)
    report = compare([native("a", model), native("b", model)])

    assert all_succeeded(report) and all_equal(report)
    assert report["compared_with"] == "a"
    first, second = report["engines"]
    assert first["agreement"] is None
    assert second["agreement"]["share"] == 1 and second["agreement"]["equal_tokens_least"] == 8
    for engine in (first, second):
        assert [len(answer["tokens"]) for answer in engine["answers"]] == [8, 8]
        assert min(engine["load_s"], engine["prefill_tok_s"], engine["decode_tok_s"], engine["peak_rss_bytes"]) > 0


def test_an_exported_folder_gives_the_native_engines_answers(compare, reference_checkpoint):
    """Both are made of the checkpoint here: a model file for ours, a folder for ONNX Runtime; and its fallback."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is one of the engines (pip install onnxruntime)")
    contestants = choose_contestants(
        [reference_checkpoint(MODEL)], ["native", "onnx"], ONE_THREAD, also_fallback=True
    )  # fmt: skip
    report = compare(contestants)

    assert [engine["name"] for engine in report["engines"]] == ["native", "onnx", "onnx, without library"]
    assert all_succeeded(report), [engine["error"] for engine in report["engines"]]
    _, ours, fallback = report["engines"]
    assert ours["figures"]["kernel"] == "bound" and ours["notes"] == []
    assert ours["agreement"]["share"] == 1
    assert fallback["figures"]["kernel"] == "fallback" and "fallback" in fallback["notes"][0]


@pytest.mark.reference
def test_transformers_stands_beside_the_native_engine(compare, reference_checkpoint):
    """With a checkpoint as it is; tokens of prompts are the same."""
    pytest.importorskip("transformers", reason="transformers is one of the engines")
    report = compare(choose_contestants([reference_checkpoint(MODEL)], ["native", "transformers"], ONE_THREAD))

    assert all_succeeded(report), [engine["error"] for engine in report["engines"]]
    assert all(prompt["same_prompt_tokens"] for prompt in report["engines"][1]["agreement"]["prompts"])


@pytest.mark.parametrize("engine", ["native", "onnx"])
def test_every_prompt_is_computed_as_a_whole(engine, reference_model, tmp_path):
    """Though it begins as the one before, which engines have in their KV cache: but for begin-of-text."""
    if engine == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    asked = Contestant(name=engine, path=reference_model(MODEL), engine=engine, settings=ONE_THREAD)
    worker = Worker(make(asked, tmp_path, lambda what, done, total: None))
    answers = [worker.answer("Hello", None, raw=False, max_tokens=2) for _ in range(2)]

    assert answers[0]["tokens"] == answers[1]["tokens"] and len(answers[0]["prompt_ids"]) > 8
    assert [answer["reused_tokens"] for answer in answers] == [1, 1]


def test_a_planted_difference_is_found(compare, reference_model, altered_model):
    """And the place is the first at which the tokens differ."""
    report = compare([native("ours", reference_model(MODEL)), native("altered", altered_model)])

    assert all_succeeded(report) and not all_equal(report)
    ours, altered = report["engines"]
    for number, prompt in enumerate(altered["agreement"]["prompts"]):
        place = prompt["parts_at"]
        assert altered["answers"][number]["tokens"][:place] == ours["answers"][number]["tokens"][:place]
        assert altered["answers"][number]["tokens"][place] != ours["answers"][number]["tokens"][place]
    assert altered["agreement"]["share"] == 0


def test_what_is_made_of_models_with_the_same_name_is_apart(compare, reference_checkpoint, altered_model):
    """Or the second one would be compared as the first."""
    namesake = altered_model.rename(altered_model.parent / reference_checkpoint(MODEL).name)
    report = compare([native("ours", reference_checkpoint(MODEL)), native("altered", namesake)])

    assert all_succeeded(report) and report["engines"][1]["agreement"]["share"] == 0


def test_one_that_cannot_be_opened_does_not_end_the_others(compare, reference_model, tmp_path):
    """Nor one that cannot be made; with the first gone, the next one is what the rest is compared with."""
    broken = tmp_path / "broken.ebm"
    broken.write_bytes(reference_model(MODEL).read_bytes()[:1000])
    (tmp_path / "config.json").write_text("{}")
    model = reference_model(MODEL)
    report = compare([native("broken", broken), native("a", model), native("none", tmp_path), native("b", model)])

    broken, a, none, b = report["engines"]
    assert "broken.ebm" in broken["error"] and "\n" not in broken["error"] and broken["answers"] == []
    assert none["error"]
    assert (a["error"], b["error"], report["compared_with"]) == (None, None, "a")
    assert broken["agreement"] is None and b["agreement"]["share"] == 1
    assert not all_succeeded(report) and all_equal(report)


def test_what_an_engine_does_not_run_is_told_in_its_row(compare, reference_model, tmp_path):
    """With what to do instead, and the other answers."""
    exported = tmp_path / "some-onnx"
    exported.mkdir()
    (exported / "model.onnx").write_bytes(b"")
    report = compare(choose_contestants([exported, reference_model(MODEL)], ["native"], ONE_THREAD))

    folder, model = report["engines"]
    assert "some-onnx is a folder exported for ONNX Runtime" in folder["error"] and "--engine native" in folder["error"]
    assert model["error"] is None


def test_one_that_fails_at_a_prompt_keeps_what_it_had(compare, reference_model):
    """Its context is too short for the second prompt."""
    model = reference_model(MODEL)
    questions = Questions(prompts=("a", "word " * 40), raw=True, max_tokens=4)
    report = compare([native("long", model), native("short", model, ctx_len=16)], questions)

    _, short = report["engines"]
    assert "16" in short["error"] and len(short["answers"]) == 1
    assert short["peak_rss_bytes"] is None
    assert len(short["agreement"]["prompts"]) == 1


def test_a_system_message_that_would_go_unheard_is_refused(compare, reference_checkpoint, reference_model, tmp_path):
    """One of the models has no template to put it into."""
    plain = tmp_path / "plain.ebm"
    convert(reference_checkpoint(MODEL), plain, template="none", probes=False)
    questions = Questions(prompts=("Hello",), system="Be kind.", max_tokens=2)
    report = compare([native("a", reference_model(MODEL)), native("plain", plain)], questions)

    assert report["engines"][0]["error"] is None
    assert "plain.ebm has no chat template, which --system belongs to" in report["engines"][1]["error"]


def test_engines_of_a_single_model_are_all_there_are(reference_checkpoint, reference_model, monkeypatch):
    """Each once; of several models, each in its own."""
    monkeypatch.setattr(contestant_module.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(contestant_module, "has_transformers", lambda: True)
    checkpoint, model = reference_checkpoint(MODEL), reference_model(MODEL)

    alone = choose_contestants([checkpoint], [], ONE_THREAD)
    assert [one.name for one in alone] == ["native", "onnx", "transformers"]
    several = choose_contestants([model, model], [], ONE_THREAD)
    assert [(one.engine, one.name) for one in several] == [("native", str(model)), ("native", f"{model} (2)")]


def test_a_fallback_without_onnx_runtime_is_refused(reference_model):
    """It would be left out without a word."""
    with pytest.raises(EngineError, match="--also-fallback is ONNX Runtime's"):
        choose_contestants([reference_model(MODEL)] * 2, [], ONE_THREAD, also_fallback=True)


def test_a_stock_folder_has_no_fallback(reference_checkpoint, tmp_path):
    """It runs without the library as it is: a second row would be the same run by another name."""
    pytest.importorskip("onnx", reason="writes the folders (pip install 'edgebit[onnx]')")
    from edgebit.export.to_onnx import OnnxForm, export_onnx

    stock, own = tmp_path / "stock", tmp_path / "own"
    export_onnx(reference_checkpoint(MODEL), stock, form=OnnxForm(stock=True, fallback="none"))
    export_onnx(reference_checkpoint(MODEL), own)
    both = choose_contestants([stock, own], [], ONE_THREAD, also_fallback=True)
    assert [one.name for one in both] == [str(stock), str(own), f"{own}, without library"]
    with pytest.raises(EngineError, match="none of these has operators of edgebit's to leave out"):
        choose_contestants([stock, stock], [], ONE_THREAD, also_fallback=True)


def test_one_alone_has_nothing_to_be_compared_with(reference_model, monkeypatch):
    """What would give it company is said."""
    monkeypatch.setattr(contestant_module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(contestant_module, "has_transformers", lambda: False)

    with pytest.raises(EngineError, match=r"pip install 'edgebit\[onnx\]'"):
        choose_contestants([reference_model(MODEL)], [], ONE_THREAD)


def test_an_exported_folder_alone_is_told_what_to_compare_it_with(reference_checkpoint, tmp_path):
    """Its engine is installed; what is missing is another run, which --also-fallback is."""
    pytest.importorskip("onnx", reason="writes the folders (pip install 'edgebit[onnx]')")
    from edgebit.export.to_onnx import OnnxForm, export_onnx

    for name, stock in (("own", False), ("stock", True)):
        export_onnx(reference_checkpoint(MODEL), tmp_path / name, form=OnnxForm(stock=stock))
        with pytest.raises(EngineError, match=r"Name a second MODEL, such as what it was made from") as refused:
            choose_contestants([tmp_path / name], [], ONE_THREAD)
        assert ("--also-fallback" in str(refused.value)) is not stock
        assert "pip install" not in str(refused.value)


def test_a_checkpoint_whose_engine_is_missing_is_told_how_it_runs(compare, reference_checkpoint, monkeypatch):
    """Alone it is converted; beside others its row says how."""
    monkeypatch.setattr(choice_module, "has_transformers", lambda: False)
    report = compare(choose_contestants([reference_checkpoint(MODEL)] * 2, [], ONE_THREAD))
    for engine in report["engines"]:
        assert "pip install 'edgebit[parity]'. Convert it: edgebit convert" in engine["error"]
