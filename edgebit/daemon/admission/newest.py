"""The newest request of each series: for callers that know one id only (id_mode latest)."""

from collections import OrderedDict

SERIES_KEPT = 1024


class Newest:
    """Which job a series' id stands for now. Bounded: the series that was silent longest is forgotten first."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], str] = OrderedDict()

    def replace(self, principal: str, series: str, job_id: str) -> str | None:
        """From now on the series means this job; gives the one before it."""
        before = self._jobs.pop((principal, series), None)
        self._jobs[principal, series] = job_id
        if len(self._jobs) > SERIES_KEPT:
            self._jobs.popitem(last=False)
        return before

    def resolve(self, principal: str, name: str) -> str:
        """The job that a given id means: the newest of the series of that name, or the id itself."""
        return self._jobs.get((principal, name), name)
