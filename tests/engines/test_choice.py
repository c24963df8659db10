"""Which engine runs what; each combination that cannot be says what makes it one that can."""

import importlib.util

import pytest

from edgebit.engines import choice
from edgebit.engines.choice import ENGINES, choose_engine, kind_of
from edgebit.errors import EngineError


@pytest.fixture
def things(hand_made, reference_model, reference_checkpoint):
    return {
        "model": reference_model("bitnet-packed"),
        "exported": hand_made(),
        "checkpoint": reference_checkpoint("bitnet-packed"),
    }


@pytest.fixture(autouse=True)
def transformers_there(monkeypatch):
    """Whether it is installed is not what these tests are about; nothing here loads it."""
    monkeypatch.setattr(choice, "has_transformers", lambda: True)


@pytest.mark.parametrize(
    ("kind", "engine"), [("model", "native"), ("exported", "onnx"), ("checkpoint", "transformers")]
)
def test_auto_takes_the_one_that_can(things, kind, engine):
    assert kind_of(things[kind]) == kind
    assert choose_engine(things[kind]) == choose_engine(things[kind], engine) == engine


@pytest.mark.parametrize(
    ("kind", "asked", "way"),
    [
        ("model", "onnx", "edgebit export onnx {path} --out"),
        ("model", "transformers", "edgebit export hf {path} --out"),
        ("checkpoint", "native", "edgebit convert {path} --out"),
        ("checkpoint", "onnx", "edgebit export onnx {path} --out"),
        ("exported", "native", "It was made from tiny-by-hand"),
        ("exported", "transformers", "It was made from tiny-by-hand"),
    ],
)
def test_the_others_are_refused_with_the_way_out(things, kind, asked, way):
    with pytest.raises(EngineError, match=f"which the engine {asked} does not run") as refused:
        choose_engine(things[kind], asked)
    assert way.format(path=things[kind]) in str(refused.value)


def test_a_checkpoint_without_transformers_says_both_ways(things, monkeypatch):
    monkeypatch.setattr(choice, "has_transformers", lambda: False)
    for asked in ("auto", "transformers"):
        with pytest.raises(EngineError, match=r"pip install 'edgebit\[parity\]'.*edgebit convert"):
            choose_engine(things["checkpoint"], asked)


def test_weights_without_their_graph_are_a_folder_that_lacks_it(things):
    (things["exported"] / "model.onnx").unlink()
    assert kind_of(things["exported"]) == "exported"


@pytest.mark.parametrize("engine", ["onnx", "transformers"])
def test_what_is_nothing_is_not_called_a_model_for_the_others(tmp_path, engine):
    for place in (tmp_path, tmp_path / "README.md", tmp_path / "not-there"):
        if place.suffix:
            place.write_text("# no model\n")
        with pytest.raises(
            EngineError, match=r"is no model: neither a bundle or model file nor a Hugging Face"
        ) as refused:
            choose_engine(place, engine)
        assert str(refused.value).startswith(str(place)) and "Export it first" not in str(refused.value)


def test_a_gguf_is_called_one_and_can_be_exported(tmp_path):
    (tmp_path / "chat.gguf").write_bytes(b"GGUF and so on")
    for place in (tmp_path, tmp_path / "chat.gguf"):
        with pytest.raises(EngineError, match=rf"{place} is a GGUF checkpoint\..*edgebit export onnx {place} --out"):
            choose_engine(place, "onnx")


def test_what_is_nothing_goes_to_the_reader_of_models(tmp_path):
    """It knows best what to say of a GGUF or an empty folder."""
    assert kind_of(tmp_path) == "model"


@pytest.mark.parametrize("module", ENGINES.values())
def test_every_engine_has_its_module(module):
    assert importlib.util.find_spec(module) is not None
