"""Every case of cases/, for both versions of MQTT, at a broker that fails as the case says; and those in which nothing
fails at a real mosquitto too."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from protocol_cases import VERSIONS, Case, difference, read_cases
from protocol_player import Player
from protocol_world import MosquittoSide, StubSide, World

CASES = read_cases()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., World]]:
    """Gives the world of a case; cases with the same settings share one."""
    shared: dict[str, World] = {}
    opened: list[World] = []
    lock = threading.Lock()

    def world(case: Case, mosquitto: str | None = None) -> World:
        key = json.dumps([mosquitto, case.version, case.settings, case.broker], sort_keys=True)
        if key in shared and shared[key].usable:
            return shared[key]
        with lock:
            folder = tmp_path_factory.mktemp("world")
        mqtt5 = case.version == "5"
        side = MosquittoSide(mqtt5, mosquitto, folder, case.broker) if mosquitto else StubSide(case.broker)
        opened.append(World(side, folder / "device", case.version, case.settings))
        shared[key] = opened[-1]
        return shared[key]

    yield world
    for each in opened:
        each.close()


def played(cases: list[Case], worlds: Callable[..., World], mosquitto: str | None = None) -> list[str]:
    """What went wrong; the versions side by side, since most of the time is waiting."""

    def play(version: str) -> list[str]:
        failed = []
        for case in [case for case in cases if case.version == version]:
            world = worlds(case, mosquitto)
            try:
                Player(world, case).play()
            except AssertionError as error:
                world.usable = False
                failed.append(str(error))
        return failed

    with ThreadPoolExecutor(len(VERSIONS)) as threads:
        return [fault for faults in threads.map(play, VERSIONS) for fault in faults]


@pytest.mark.parametrize("name", sorted({case.name_in_file for case in CASES}))
def test_case(name: str, worlds: Callable[..., World]) -> None:
    failed = played([case for case in CASES if case.name_in_file == name], worlds)
    assert not failed, "\n".join(failed)


def test_the_same_at_a_mosquitto(worlds, require_tool) -> None:
    """In one test, since nothing but the broker is different."""
    program = require_tool("mosquitto")
    without_faults = [case for case in CASES if not case.has_faults and "stub" not in case.needs]
    failed = played(without_faults, worlds, program)
    assert not failed, "\n".join(failed)


def test_the_cases_are_many_and_whole() -> None:
    names = {(case.file, case.name) for case in CASES}
    assert len(names) >= 60
    assert {path.stem for path in Path(__file__).with_name("cases").glob("*.yaml")} == {case.file for case in CASES}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": True}, {"a": 1}),
        ([1, 2], [1]),
        ("x", {"a": 1}),
        (5, {"~between": [6, 7]}),
        ("ab", {"~like": "a"}),
        ("a b", {"~words": 3}),
        ({"a": [{"b": None}]}, {"a": [{"b": 0}]}),
    ],
)
def test_a_difference_is_seen(given, wanted) -> None:
    assert difference(given, wanted) is not None
    assert difference(given, given) is None
