"""What a published benchmark gives: architectures as texts of the language, and what each reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from archdsl.diagnostics import ArchError, Diagnostic


@dataclass(frozen=True)
class Entry:
    """One published architecture.

    Args:
        name: what the data call it.
        text: the closed text at its published size.
        scored: the closed text that is scored: the same with fewer symbols, and narrower where the
            benchmark is large.
        reached: what it reached, larger is better; ``None`` where every run diverged.
        stratum: its kind, such as its depth and width.
        tables: parameters of its tables of tokens, which its size leaves out.
        params: parameters as the data say them, if they do.
    """

    name: str
    text: str
    scored: str
    reached: float | None
    stratum: str
    tables: int = 0
    params: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """A file of published architectures.

    Args:
        name: of the benchmark.
        entries: its architectures.
        vocab: symbols that they are scored with.
        length: tokens of a sequence that they are scored with.
        sequences: how many.
        paper: what papers report, by metric: |τ|.
        reached: what ``reached`` is, in words.
    """

    name: str
    entries: tuple[Entry, ...]
    vocab: int
    length: int
    sequences: int
    reached: str
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A published benchmark: what one of its records says, and what its architectures are scored with.

    Args:
        name: of the benchmark.
        entry: reads a record.
        vocab: symbols.
        length: tokens of a sequence.
        sequences: how many.
        reached: what an entry's ``reached`` is, in words.
        paper: what papers report, by metric: |τ|.
    """

    name: str
    entry: Callable[[Mapping[str, Any]], Entry]
    vocab: int
    length: int
    sequences: int
    reached: str
    paper: Mapping[str, float] = field(default_factory=dict)

    def read(self, path: Path, records: Iterable[Mapping[str, Any]]) -> Benchmark:
        """The benchmark of a file's records.

        Raises:
            ArchError: a record is not as it should be, or none has a result.
        """
        settings = {each.name: getattr(self, each.name) for each in fields(self)}
        del settings["entry"]
        entries = [self._entry(path, n, record) for n, record in enumerate(records, start=1)]
        if all(entry.reached is None for entry in entries):
            raise unknown(path, "none of its architectures has a result")
        return Benchmark(entries=tuple(entries), **settings)

    def _entry(self, path: Path, number: int, record: Mapping[str, Any]) -> Entry:
        """One record; a result that is no finite number is none."""
        try:
            entry = self.entry(record)
            finite = entry.reached is not None and isfinite(entry.reached)
            return replace(entry, reached=entry.reached if finite else None)
        except KeyError as error:
            why = f"record {number} has no {error}"
        except (AttributeError, TypeError, ValueError) as error:
            why = f"record {number} is not as it should be: {error}"
        raise unknown(path, why)


def records(path: Path) -> list[Any]:
    """The records of a JSON list, or of a file with one JSON object a line.

    Raises:
        ArchError: the file cannot be read or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unknown(path, getattr(error, "strerror", None) or "it is not text") from None
    try:
        if text.lstrip().startswith("["):
            found = json.loads(text)
        else:
            lines = enumerate(text.splitlines(), start=1)
            found = [_loaded(line, number) for number, line in lines if line.strip()]
    except ValueError as error:
        raise unknown(path, f"it is not JSON ({error})") from None
    if not found or not all(isinstance(record, dict) for record in found):
        raise unknown(path, "it holds no records")
    return list(found)


def _loaded(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}, column {error.colno}: {error.msg}") from None


def unknown(path: Path, why: str) -> ArchError:
    """A file that is of no known benchmark."""
    return ArchError(
        Diagnostic(
            "unknown-benchmark",
            f"`{path}` is no benchmark that is known: {why}",
            help="records with `recipe` are cells, with `encoder_layers` encoders, with `config` decoders",
        )
    )
