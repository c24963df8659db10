"""Records of a history as rows, each over a step of time: gauges as mean, least and greatest, counts as sums."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from edgebit.daemon.monitoring.history import Record
from edgebit.daemon.monitoring.quantities import QUANTITIES, rounded

Row = list[float | int | None]
_KINDS = {quantity.name: quantity.kind for quantity in QUANTITIES}


def columns_of(names: Sequence[str], step_s: float) -> list[str]:
    """The names of the table's columns: time and number of records first."""
    columns = ["t", "n"]
    for name in names:
        columns.append(name)
        if step_s > 0 and _KINDS[name] == "gauge":
            columns += [f"{name}_min", f"{name}_max"]
    return columns


def rows(timed: Iterable[tuple[float, Record]], names: Sequence[str], step_s: float) -> Iterator[Row]:
    """Rows, oldest first, from records with their times, oldest first; step_s 0 gives a row a record.

    A row begins at a whole multiple of the step, and there is none for a time without records.
    """
    if step_s <= 0:
        for t, record in timed:
            yield [rounded(t), 1, *(rounded(record.values.get(name)) for name in names)]
        return
    bucket: _Bucket | None = None
    for t, record in timed:
        begin = t // step_s * step_s
        if bucket is not None and begin > bucket.begin:
            yield bucket.row(names)
            bucket = None
        bucket = bucket or _Bucket(begin)
        bucket.add(record, names)
    if bucket is not None:
        yield bucket.row(names)


@dataclass(slots=True)
class _Bucket:
    """The records of one step."""

    begin: float
    count: int = 0
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, record: Record, names: Sequence[str]) -> None:
        self.count += 1
        for name in names:
            value = record.values.get(name)
            if value is not None:
                self.values.setdefault(name, []).append(value)

    def row(self, names: Sequence[str]) -> Row:
        row: Row = [rounded(self.begin), self.count]
        for name in names:
            values = self.values.get(name)
            if _KINDS[name] == "count":
                row.append(rounded(sum(values)) if values else None)
            elif values:
                row += [rounded(sum(values) / len(values)), rounded(min(values)), rounded(max(values))]
            else:
                row += [None, None, None]
        return row
