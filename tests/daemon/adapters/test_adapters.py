"""Adapters of a device: loaded while it runs, kept over restarts, and closed when nobody uses them."""

import hashlib

import pytest
from admission_fixtures import Model

from edgebit.daemon.adapters.adapters import Adapters
from edgebit.daemon.adapters.shelf import AdapterShelf
from edgebit.daemon.config.safeguards import AdaptersConfig
from edgebit.daemon.contract.messages import Refusal
from edgebit.errors import EngineError

GARAGE, LAMP, OTHERS = b"adapter of fake\ngarage", b"adapter of fake\nlamp", b"adapter of another\n"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def start(folder, model=None, **config):
    adapters = Adapters(AdaptersConfig(**config), folder)
    adapters.attach(model or Model())
    return adapters


def load(adapters, name, data):
    return adapters.load(name, sha256(data), data)


def refusal(act, *arguments):
    with pytest.raises(Refusal) as refused:
        act(*arguments)
    return refused.value.status, refused.value.code


def test_loaded_and_unloaded(tmp_path):
    """What info says of it, and what answers can have."""
    model = Model()
    adapters = start(tmp_path, model)
    assert load(adapters, "garage", GARAGE)
    assert not load(adapters, "garage", GARAGE), "the same again changes nothing"
    assert adapters.describe() == [{"name": "garage", "sha256": sha256(GARAGE), "bytes": len(GARAGE), "loaded": True}]
    assert model.adapters.sha256("garage") == sha256(GARAGE)
    assert adapters.unload("garage") and not adapters.unload("garage")
    assert adapters.describe() == [] and refusal(model.adapters.sha256, "garage") == (404, "adapter_not_found")
    assert start(tmp_path).describe() == []


def test_they_survive_a_restart_and_another_bundle(tmp_path):
    """One that does not fit the new model is kept, said, not loaded, and loaded again when its model is back."""
    load(start(tmp_path), "garage", GARAGE)

    class Another(Model):
        def open_adapter(self, data):
            raise Refusal(409, "adapter_unfit", "made for fake, this model is another")

    another = Another()
    (about,) = start(tmp_path, another).describe()
    assert (about["loaded"], about["fault"]) == (False, "made for fake, this model is another")
    assert refusal(another.adapters.sha256, "garage") == (404, "adapter_not_found")
    back = Model()
    assert start(tmp_path, back).describe()[0]["loaded"] and back.adapters.sha256("garage")


def test_what_is_not_taken(tmp_path):
    """A damaged file, one of another model, one too many, and any before there is a model."""
    adapters = start(tmp_path, max_count=1)
    assert refusal(load, adapters, "bad", b"nonsense") == (400, "bad_adapter")
    assert refusal(load, adapters, "others", OTHERS) == (409, "adapter_unfit")
    load(adapters, "garage", GARAGE)
    assert refusal(load, adapters, "lamp", LAMP) == (409, "too_many_adapters")
    assert load(adapters, "garage", LAMP), "one of the same name is no more than before"
    assert refusal(load, Adapters(AdaptersConfig(), tmp_path), "garage", GARAGE) == (503, "not_ready")
    assert [about["name"] for about in start(tmp_path).describe()] == ["garage"]


def test_an_adapter_that_the_disk_does_not_take(tmp_path, monkeypatch):
    """It is closed again, and the one before is there."""
    model, opened = Model(), []
    open_adapter = model.open_adapter
    monkeypatch.setattr(model, "open_adapter", lambda data: opened.append(open_adapter(data)) or opened[-1])
    adapters = start(tmp_path, model)
    load(adapters, "garage", GARAGE)
    monkeypatch.setattr("edgebit.daemon.adapters.store.PartFile", lambda *_: (_ for _ in ()).throw(EngineError("full")))
    assert refusal(load, adapters, "garage", LAMP) == (503, "storage_fault")
    assert [each.closed for each in opened] == [False, True]
    assert model.adapters.sha256("garage") == sha256(GARAGE)


def test_the_shelf_waits_for_answers():
    """What is used goes when its last answer ends, once, whether it was removed or replaced."""
    shelf, first, second = AdapterShelf(), object(), object()
    shelf.put("garage", "1", first)
    taken = [shelf.take("garage", "1") for _ in range(2)]
    shelf.put("garage", "2", second)
    assert shelf.take("garage", "2") is second
    assert shelf.remove("garage") and not shelf.remove("garage")
    for adapter in taken:
        assert shelf.take_retired() == []
        shelf.give_back(adapter)
    assert (shelf.take_retired(), shelf.take_retired()) == ([first], [])
    shelf.give_back(second)
    shelf.put("lamp", "3", first)
    shelf.clear()
    assert (shelf.take_retired(), shelf.take_retired()) == ([second, first], [])


def test_what_no_answer_had_is_closed_at_once():
    """Loading again and again while nothing is asked fills no memory; what an answer had is the engine's to close."""
    shelf, used, unused = AdapterShelf(), object(), object()
    shelf.put("garage", "1", used)
    shelf.give_back(shelf.take("garage", "1"))
    shelf.put("garage", "2", unused)
    assert shelf.take_unused() == []
    shelf.remove("garage")
    assert (shelf.take_unused(), shelf.take_unused()) == ([unused], [])
    assert shelf.take_retired() == [used]


def test_an_adapter_that_is_replaced_unused_is_closed(tmp_path):
    """By whoever replaces or unloads it: the engine would not look before it computes something."""
    model = Model()
    adapters = start(tmp_path, model)
    load(adapters, "garage", GARAGE)
    load(adapters, "garage", LAMP)
    adapters.unload("garage")
    assert model.adapters.take_retired() == []


def test_the_shelf_knows_which_one_was_meant():
    """One that was replaced while a request waited is not the one that it was checked with."""
    shelf = AdapterShelf()
    shelf.put("garage", "1", object())
    shelf.put("garage", "2", object())
    with pytest.raises(Refusal) as refused:
        shelf.take("garage", "1")
    assert (refused.value.code, refused.value.retryable) == ("adapter_not_found", True)
    with pytest.raises(Refusal, match=r"'lamp' is not loaded on this device; there are: 'garage'$"):
        shelf.sha256("lamp")
