"""A disk that fails and works again, as events."""

from edgebit.daemon.admission.storage_events import StorageEvents


def test_each_change_is_told_once():
    told, fault = [], [None]
    events = StorageEvents(lambda: fault[0], lambda event, **facts: told.append((event, facts)))
    for now in (None, "full", "full", "broken", None, None, "full"):
        fault[0] = now
        events.tick()
    full = ("storage_full", {"message": "full"})
    assert told == [full, ("storage_restored", {}), full]
