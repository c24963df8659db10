"""What training data hold, for people and for scripts."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import printable, printable_json
from edgebit.train.data.dataset import Dataset, Documents
from edgebit.train.data.preparation import DataSettings, prepare, prepare_with
from edgebit.train.data.rendering import Encoder
from edgebit.train.rows import IGNORED, Document

_BAR = 30  # characters
_SHOWN = 2000  # characters of a document
_NAMED = 5  # files


def echo_dry_run(
    paths: Sequence[Path],
    data: DataSettings,
    *,
    evaluate_on: Sequence[Path] = (),
    replay: Sequence[Path] = (),
    row_length: int,
    batch_tokens: int,
    as_json: bool,
) -> None:
    """Read the data at `paths` as a training would, and print what they hold. Nothing stays.

    evaluate_on: data to evaluate on, instead of a share of these; replay: old data to rehearse
    """
    if evaluate_on:
        data = replace(data, eval_share=0.0)
    others = {"evaluated_on": (evaluate_on, data), "replay": (replay, replace(data, format=None))}
    with tempfile.TemporaryDirectory() as folder, progress_bar() as show:
        dataset, encoder = prepare(paths, Path(folder), data, length=row_length, progress=show)
        with encoder:
            figures = summary_as_dict(dataset, encoder)
            lines = list(summary_lines(dataset, encoder))
            for name, (more, settings) in others.items():
                if more:
                    other = prepare_with(encoder, more, settings, length=row_length, progress=show)
                    figures[name] = _other_as_dict(other)
                    lines += _other_lines(name, other)
    steps = max(1, round(dataset.train.tokens / batch_tokens))
    if as_json:
        click.echo(printable_json({**figures, "steps_an_epoch": steps}, indent=2))
        return
    click.echo("\n".join(lines))
    click.echo(f"steps      about {steps:,} of {batch_tokens:,} tokens go once through what is to learn")


def summary_as_dict(dataset: Dataset, encoder: Encoder) -> dict[str, Any]:
    """Every figure, and the first document as texts."""
    return {
        **_corpus_as_dict(dataset),
        "vocab_size": encoder.vocab_size,
        "train": _side(dataset.train),
        "held_out": _side(dataset.held_out),
        "fingerprint": dataset.fingerprint,
        "first": [{"text": text, "learnt": learnt} for text, learnt in spans(dataset.train[0], encoder)],
    }


def _corpus_as_dict(dataset: Dataset) -> dict[str, Any]:
    corpus = dataset.corpus
    return {
        "files": [str(file.path) for file in corpus.files],
        "bytes": sum(file.size for file in corpus.files),
        "ignored_files": [str(path) for path in corpus.ignored],
        "format": corpus.format,
        "examples": len(corpus),
        "duplicates": corpus.duplicates,
        "skipped": dict(corpus.skipped),
        "dropped": dict(dataset.dropped),
        "cut": dataset.cut,
    }


def _other_as_dict(other: Dataset) -> dict[str, Any]:
    return {
        **_corpus_as_dict(other), "documents": len(other.train), "tokens": other.train.tokens,
        "learnt_tokens": other.train.learnt,
    }  # fmt: skip


def _other_lines(name: str, other: Dataset) -> Iterator[str]:
    """Of data beside those to learn from."""
    head = {"evaluated_on": "evaluation", "replay": "rehearsal"}[name]
    yield f"{head:10} {_counted(len(other.corpus.files), 'file')}, format {other.corpus.format}: {_counts(other.train)}"
    for words in _losses(other):
        yield f"{'':10} {words}"


def summary_lines(dataset: Dataset, encoder: Encoder) -> Iterator[str]:
    """A line each; the first document has what is learnt between brackets."""
    corpus = dataset.corpus
    size = sum(file.size for file in corpus.files)
    yield f"data       {_counted(len(corpus.files), 'file')}, {size:,} bytes, format {corpus.format}"
    if corpus.ignored:
        names = ", ".join(path.name for path in corpus.ignored[:_NAMED])
        more = ", ..." if len(corpus.ignored) > _NAMED else ""
        yield f"not read   {_counted(len(corpus.ignored), 'file')}: {printable(names)}{more}"
    yield f"examples   {len(corpus):,}, of which {corpus.duplicates:,} equal an earlier one"
    yield from _losses(dataset)
    yield f"to learn   {_counts(dataset.train)}"
    yield f"held out   {_counts(dataset.held_out)}"
    yield f"vocabulary {encoder.vocab_size:,} tokens"
    yield from _histogram(dataset)
    yield f"first      {printable(dataset.train.place(0))}, learnt is what stands between [[ and ]]"
    text = "".join(f"[[{text}]]" if learnt else text for text, learnt in spans(dataset.train[0], encoder))
    yield from (f"  {line}" for line in printable(text[:_SHOWN]).split("\n"))


def _losses(dataset: Dataset) -> Iterator[str]:
    """What of the data is not used, a line each."""
    for what, counts in (("skipped", dataset.corpus.skipped), ("dropped", dataset.dropped)):
        for reason, count in counts.most_common():
            yield f"{what}    {count:,}: {printable(reason)}"
    if dataset.cut:
        yield f"cut        {_counted(dataset.cut, 'conversation')} after the last answer within {dataset.length} tokens"


def spans(document: Document, encoder: Encoder) -> list[tuple[str, bool]]:
    """The document's text in spans of tokens that are learnt, or are not."""
    found: list[tuple[list[int], bool]] = []
    for token, label in zip(document.ids, document.labels, strict=True):
        if not found or found[-1][1] != (label != IGNORED):
            found.append(([], label != IGNORED))
        found[-1][0].append(token)
    decode = encoder.tokenizer.decode
    return [(decode(ids, skip_special=False).decode(errors="replace"), learnt) for ids, learnt in found]


def _side(documents: Documents) -> dict[str, Any]:
    lengths = {str(1 << power): count for power, count in sorted(documents.lengths.items())}
    return {
        "documents": len(documents), "tokens": documents.tokens, "learnt_tokens": documents.learnt,
        "lengths_up_to": lengths,
    }  # fmt: skip


def _counts(documents: Documents) -> str:
    if not documents:
        return "nothing"
    share = documents.learnt / documents.tokens
    return (
        f"{_counted(len(documents), 'document')}, {documents.tokens:,} tokens, "
        f"of which {documents.learnt:,} ({share:.0%}) bear loss"
    )


def _histogram(dataset: Dataset) -> Iterator[str]:
    lengths = dataset.train.lengths + dataset.held_out.lengths
    most = max(lengths.values())
    for power in range(min(lengths), max(lengths) + 1):
        count = lengths[power]
        first = (1 << power >> 1) + 1
        head = "tokens" if power == min(lengths) else ""
        bar = "#" * -(-count * _BAR // most)
        yield f"{head:10} {first:>6,} to {1 << power:>6,}  {count:>9,} {bar}".rstrip()


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
