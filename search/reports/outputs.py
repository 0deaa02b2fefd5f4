"""What a search leaves behind: the answer as files, a table and a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from textwrap import fill

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from archdsl.search.reports.report import report
from archdsl.search.space.objectives import Objective
from archdsl.search.storage.files import copy, remove, write_text
from archdsl.search.storage.records import Record
from archdsl.search.study.study import Settings, Status, trial_file
from archdsl.search.study.words import named, quantity

SHOWN = 8
"""Rows of the table on the terminal."""


@dataclass(frozen=True)
class Result:
    """What a search found.

    Args:
        status: ``finished``; ``exhausted`` where every candidate was tried; ``interrupted``.
        name: of the study.
        folder: of the run.
        records: every trial.
        front: the finished trials that no other beats, best first.
        objectives: what was searched for.
        settings: how.
        count: architectures in the space, if they can be counted.
    """

    status: Status
    name: str
    folder: Path
    records: tuple[Record, ...]
    front: tuple[Record, ...]
    objectives: tuple[Objective, ...]
    settings: Settings
    count: int | None

    @property
    def best(self) -> Record | None:
        """The best trial, by the objectives in order."""
        return self.front[0] if self.front else None

    @property
    def exit_status(self) -> int:
        """For a command: 0 with an answer, 1 without, 130 after Ctrl-C."""
        if self.status == "interrupted":
            return 130
        return 0 if self.front else 1

    @property
    def report(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def title(self) -> str:
        """What the table is of, with how the trials ended."""
        states = Counter[str](record.state for record in self.records)
        words = {"complete": "trained", "pruned": "cut", "fail": "failed"}
        parts = [f"{states[state]} {word}" for state, word in words.items() if states[state]]
        trials = f"{len(self.records)} trial{'s' * (len(self.records) != 1)}"
        counted = trials + (f" ({', '.join(parts)})" if parts else "")
        return f"{self.name}: the best of {counted}" if self.front else f"{self.name}: {counted}"

    def table(self, width: int) -> Table:
        """The best trials, for a terminal: a column a choice, or all choices in one where that is wider."""
        shown = [named(_choices(record)) for record in self.front[:SHOWN]]
        choices = list(dict.fromkeys(key for found in shown for key in found))
        made = self._table({key: [found.get(key, "–") for found in shown] for key in choices})
        if Console(width=10_000).measure(made).minimum <= width:
            return made
        lines = ["\n".join(f"{name} {value}" for name, value in found.items()) for found in shown]
        return self._table({"choices": lines}, fold=True)

    def _table(self, choices: Mapping[str, Sequence[str]], fold: bool = False) -> Table:
        table, figures = Table(), self._figures()
        for heading, cells in figures.items():
            _add_column(table, heading, cells, justify="right")
        for name, values in choices.items():
            _add_column(table, name, values, fold=fold)
        for row in zip(*figures.values(), *choices.values(), strict=True):
            table.add_row(*map(Text, row))
        return table

    def _figures(self) -> dict[str, list[str]]:
        """Of the best trials, by heading."""
        best = self.front[:SHOWN]
        found = {"trial": [str(record.number) for record in best]}
        for index, objective in enumerate(self.objectives):
            values = [record.values[index] for record in best if record.values]
            found[_head(objective)] = [quantity(objective.text, value) for value in values]
        return found

    def _checkpoint(self, best: Record) -> Path | str:
        """Where the best model is, or why it is not here."""
        path = self.folder / "best.safetensors"
        if path.exists():
            return path
        if best.owner and best.owner.host != gethostname():
            return f"on {best.owner.host}, where trial {best.number} was trained"
        return f"none: the weights of trial {best.number} are gone, and it was not trained again"

    def farewell(self) -> str:
        """Where everything is, and what to type next."""
        lines = []
        if self.status == "interrupted":
            lines.append("stopped: run the same command again to go on")
        if self.status == "exhausted":
            lines.append("every architecture of the space was tried")
        if self.best is None:
            lines.append("no trial was trained to the end")
        lines.append(f"report      {self.report}")
        if self.best is not None:
            lines.append(f"best        {self.folder / 'best.arch'}")
            lines.append(f"checkpoint  {self._checkpoint(self.best)}")
        return "\n".join(lines)


def write_outputs(result: Result) -> None:
    """Write ``trials/``, ``best.arch``, ``best.safetensors`` and ``report.html``.

    Raises:
        ArchError: the folder cannot be written.
    """
    trials = result.folder / "trials"
    for record in result.records:
        path = trial_file(trials, record.number, "arch")
        if not path.exists():
            write_text(path, str(record.arch["text"]))
    if result.best is not None:
        write_text(result.folder / "best.arch", str(result.best.arch["text"]))
        _best_weights(trial_file(trials, result.best.number, "safetensors"), result.folder)
    write_text(result.report, report(result))


def _best_weights(source: Path, folder: Path) -> None:
    target = folder / "best.safetensors"
    if source.exists():
        copy(source, target)
    else:
        remove(target)


def _choices(record: Record) -> dict[str, str]:
    return dict(record.arch.get("choices", {}))


def _head(objective: Objective) -> str:
    """An objective with its direction, in lines as short as its longest word."""
    text = f"{objective.text}\N{NO-BREAK SPACE}{arrow(objective)}".replace(".", ". ").replace(
        "(", "( "
    )
    return fill(text, max(map(len, text.split())), break_long_words=False)


def _add_column(
    table: Table,
    heading: str,
    cells: Sequence[str],
    *,
    justify: JustifyMethod = "left",
    fold: bool = False,
) -> None:
    """A column that is as wide as what stands in it, or one that gives way."""
    lines = (line for text in (heading, *cells) for line in text.split("\n"))
    least = None if fold else max(map(cell_len, lines))
    table.add_column(
        Text(heading), justify=justify, overflow="fold", no_wrap=not fold, min_width=least
    )


def arrow(objective: Objective) -> str:
    """Which way is better, as a sign."""
    return "↑" if objective.direction == "maximize" else "↓"


def directions(objectives: Sequence[Objective]) -> list[str]:
    """Each objective with its sign."""
    return [f"{objective.text} {arrow(objective)}" for objective in objectives]
