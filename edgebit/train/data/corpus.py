"""All examples of some files: read once in full and checked, and then read again one by one, by their number.

Held in memory are 32 bytes an example, and about 90 more while duplicates are counted; never the texts.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgebit.errors import TrainError
from edgebit.progress import Progress, unwatched
from edgebit.train.data.examples import Example, RecordError, Text, digest, is_held_out
from edgebit.train.data.fields import check_text
from edgebit.train.data.formats import Format, format_of, possible_formats, read_example, read_object
from edgebit.train.data.records import Parting, Record, cut, decoded
from edgebit.train.data.source_files import SourceFile, find_files

_EVERY = 1000  # records between two words of progress
_PART = "Files of mixed formats are not read: train on one format at a time"


@dataclass
class _Expected:
    """The format that every record is of: as asked for, or as the first one shows."""

    format: Format | None
    shown_by: str = "--format"

    def example(self, record: Record, file: SourceFile) -> Example:
        """What a record says. Raises RecordError where it is of another format, or cannot be learnt from."""
        text = decoded(record)
        if file.kind == "text":
            if self._settled("text", record, file) != "text":
                raise RecordError("of another format", f"plain text, and {self.shown_by} says {self.format}. {_PART}")
            return Text(check_text(text.replace("\r\n", "\n").rstrip("\n"), "the document"))
        value = read_object(text)
        if self.shown_by == "--format" and self.format is not None:
            if self.format not in possible_formats(value):
                keys = ", ".join(map(repr, value)) or "no keys"
                raise RecordError("of another format", f"has {keys[:200]}: that is not the format {self.format}")
            return read_example(value, self.format)
        found = format_of(value)
        example = read_example(value, found)
        if self._settled(found, record, file) != found:
            raise RecordError("of another format", f"{found}, and {self.shown_by} is {self.format}. {_PART}")
        return example

    def _settled(self, found: Format, record: Record, file: SourceFile) -> Format:
        if self.format is None:
            self.format, self.shown_by = found, f"{file.path}:{record.line}"
        return self.format


@dataclass(kw_only=True)
class Corpus:
    """Examples in the order of their files, by number."""

    files: list[SourceFile]
    ignored: list[Path]  # files of folders, of kinds that are not read
    parting: Parting
    skipped: Counter[str] = field(default_factory=Counter)  # records that cannot be learnt from, by reason
    duplicates: int = 0  # examples that an earlier one equals
    digests: "array[int]" = field(default_factory=lambda: array("Q"))
    _expected: _Expected
    _file: "array[int]" = field(default_factory=lambda: array("I"))
    _line: "array[int]" = field(default_factory=lambda: array("Q"))
    _offset: "array[int]" = field(default_factory=lambda: array("Q"))
    _size: "array[int]" = field(default_factory=lambda: array("I"))

    @property
    def format(self) -> Format:
        """Of every record."""
        assert self._expected.format is not None
        return self._expected.format

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, number: int) -> Example:
        """Raises TrainError where the file does not hold any more what was read from it first."""
        file = self.files[self._file[number]]
        try:
            with file.path.open("rb") as opened:
                opened.seek(self._offset[number])
                data = opened.read(self._size[number])
            example = self._expected.example(Record(self._line[number], 0, 0, data), file)
            if digest(example) == self.digests[number]:
                return example
        except OSError as error:
            raise TrainError(f"{file.path}: cannot be read any more: {error.strerror}") from error
        except RecordError:
            pass
        raise TrainError(f"{self.place(number)}: the file has changed since it was read first. Begin anew")

    def examples(self, held_out_share: float = 0.0) -> Iterator[Example]:
        """All in order, but for those that are held out for the evaluation."""
        for number, each in enumerate(self.digests):
            if not is_held_out(each, held_out_share):
                yield self[number]

    def place(self, number: int) -> str:
        """FILE:LINE of an example."""
        return f"{self.files[self._file[number]].path}:{self._line[number]}"

    def read(self, number: int, skip_invalid: bool, seen: set[int], tell: Callable[[int], None]) -> None:
        """Add what a file holds. seen: digests of what came before; tell: hears the bytes that are done."""
        file = self.files[number]
        for count, record in enumerate(cut(file, self.parting), 1):
            if count % _EVERY == 0:
                tell(record.offset)
            try:
                example = self._expected.example(record, file)
            except RecordError as error:
                if not skip_invalid:
                    raise error.at(f"{file.path}:{record.line}") from None
                self.skipped[error.reason] += 1
                continue
            self._file.append(number)
            self._line.append(record.line)
            self._offset.append(record.offset)
            self._size.append(record.size)
            self.digests.append(digest(example))
            self.duplicates += self.digests[-1] in seen
            seen.add(self.digests[-1])


def read_corpus(
    paths: Sequence[Path],
    *,
    format: Format | None = None,
    parting: Parting = "blank-lines",
    skip_invalid: bool = False,
    progress: Progress = unwatched,
) -> Corpus:
    """Read all of the files and folders `paths`, JSON Lines or plain text.

    format: of the records; None: told by the keys of the first one, and all must be of it
    parting: a plain text file is cut into documents at blank lines, or is one
    skip_invalid: leave out and count what cannot be learnt from, where otherwise TrainError names the first
    Raises TrainError where nothing is left, or a file cannot be read.
    """
    files, ignored = find_files(paths)
    corpus = Corpus(files=files, ignored=ignored, parting=parting, _expected=_Expected(format))
    done, total = 0, sum(file.size for file in files)
    seen: set[int] = set()
    for number, file in enumerate(files):

        def tell(within: int, before: int = done) -> None:
            progress("reading data", before + within, total)

        corpus.read(number, skip_invalid, seen, tell)
        done += file.size
    if not len(corpus):
        given = ", ".join(map(str, paths))
        reasons = ", ".join(f"{count} {reason}" for reason, count in corpus.skipped.most_common())
        raise TrainError(f"{given}: there is no record that can be learnt from: {reasons or 'the files are empty'}")
    return corpus
