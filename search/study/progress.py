"""What the user sees while a search runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archdsl.search.space.objectives import Objective
from archdsl.search.storage.records import Record
from archdsl.search.study.fronts import pareto_front
from archdsl.search.study.pace import Course, Pace
from archdsl.search.study.words import in_short


class Display(Protocol):
    """Hears what a study does."""

    def stage(self, number: int, stage: str, steps: int | None = None) -> None:
        """A trial enters a stage; ``steps`` where training ends."""

    def step(self, message: Mapping[str, Any]) -> None:
        """Training goes on: ``step`` and ``loss``."""

    def ended(self, record: Record, records: Sequence[Record]) -> None:
        """A trial has ended."""

    def waiting(self, records: Sequence[Record]) -> None:
        """What is left to do is in the hands of other processes."""


class Silent:
    """Hears and shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def stage(self, number: int, stage: str, steps: int | None = None) -> None:
        """Nothing."""

    def step(self, message: Mapping[str, Any]) -> None:
        """Nothing."""

    def ended(self, record: Record, records: Sequence[Record]) -> None:
        """Nothing."""

    def waiting(self, records: Sequence[Record]) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return


@dataclass
class View:
    """What is shown, as data.

    Args:
        objectives: of the study.
        trials: how many there shall be.
    """

    objectives: Sequence[Objective]
    trials: int
    doing: str = "starting"
    detail: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    best: str = ""
    left: float | None = None

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return sum(self.counts.values())

    def update(self, records: Sequence[Record], pace: Pace) -> None:
        """Look at the trials again."""
        self.counts = Counter(record.state for record in records if record.finished)
        front = pareto_front(records, self.objectives)
        self.best = in_short(front[0], self.objectives) if front else ""
        self.left = pace.left(records)


class _Display:
    """What every display keeps: where it writes, what it shows, and the time left.

    Args:
        console: of rich.
        objectives: of the study.
        course: how many trials there shall be, and of which stages.
        records: trials there are already.
    """

    def __init__(
        self, console: Console, objectives: Sequence[Objective], course: Course,
        records: Sequence[Record] = (),
    ) -> None:  # fmt: skip
        self.console = console
        self.view, self.pace = View(objectives, course.trials), Pace(course, records)
        self.view.update(records, self.pace)


class Terminal(_Display):
    """A live display of a few lines; its arguments are those of every display."""

    _steps: int | None = None

    @cached_property
    def live(self) -> Live:
        """What rich draws again four times a second."""
        return Live(get_renderable=self._render, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.view.doing = "stopped" if error[0] else "done"
        self.view.detail, self.view.left = "", None
        self.live.__exit__(*error)

    def stage(self, number: int, stage: str, steps: int | None = None) -> None:
        """Show the stage."""
        self.view.doing, self.view.detail, self._steps = f"trial {number}: {stage}", "", steps

    def step(self, message: Mapping[str, Any]) -> None:
        """Show the step and the loss."""
        of = f"/{self._steps}" if self._steps else ""
        self.view.detail = f"step {message['step']}{of}, loss {message['loss']:.3f}"

    def ended(self, record: Record, records: Sequence[Record]) -> None:
        """Count it; a failure stays on the screen as a line of its own."""
        self.view.update(records, self.pace)
        if record.state == "fail":
            line = f"[red]trial {record.number} failed[/]: {escape(record.message)}"
            self.console.print(line, highlight=False)

    def waiting(self, records: Sequence[Record]) -> None:
        """Say so, with what the others have done."""
        self.view.update(records, self.pace)
        self.view.doing, self.view.detail = "waiting for the trials of other processes", ""

    def _render(self) -> Group:
        view = self.view
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=view.trials, completed=view.done, width=32),
            f"[bold]{view.done}[/]/{view.trials} trials",
            _counted(view.counts),
            f"about {quantity_of_time(view.left)} left" if view.left is not None else "",
        )
        lines: list[RenderableType] = [
            bar,
            Text.from_markup(f"{escape(view.doing)}  [dim]{escape(view.detail)}[/]"),
        ]
        if view.best:
            lines.append(Text.from_markup(f"[green]best so far[/]  {escape(view.best)}"))
        return Group(*lines)


class Lines(_Display):
    """A line for each trial that ends, for logs and pipes; its arguments are those of every display."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def stage(self, number: int, stage: str, steps: int | None = None) -> None:
        """Nothing: a line is for what has ended."""

    def step(self, message: Mapping[str, Any]) -> None:
        """Nothing."""

    def ended(self, record: Record, records: Sequence[Record]) -> None:
        """One line."""
        self.view.update(records, self.pace)
        left = f", about {quantity_of_time(self.view.left)} left" if self.view.left else ""
        self.console.print(
            f"[{self.view.done}/{self.view.trials}{left}] {in_short(record, self.view.objectives)}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip

    def waiting(self, records: Sequence[Record]) -> None:
        """Nothing."""


def quantity_of_time(seconds: float | None) -> str:
    """``3 min 20 s``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _counted(counts: Mapping[str, int]) -> str:
    words = {
        "complete": ("green", "trained"),
        "pruned": ("yellow", "cut"),
        "fail": ("red", "failed"),
    }
    return "  ".join(f"[{c}]{counts.get(state, 0)} {word}[/]" for state, (c, word) in words.items())
