"""Wrong inputs by the hundred thousand, through the same path as ``archdsl check``.

``python -m tests.studies.fuzz --count 100000`` demands of every input: no exception but ``ArchError``,
no more than one second (of processor time, so that a busy machine does not matter), bounded memory,
and for one that is refused at least one error with a place. Of those that are accepted some are sampled,
counted, costed, and read again from their closed text.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # `studies`, however this is started

from studies.mutations import TOKEN, text

import archdsl
from archdsl.console import render, render_concise, to_json
from archdsl.diagnostics import ArchError, Diagnostic, Severity
from archdsl.search.workers.parent import follow_parent

SLOWEST = 1.0
"""Seconds that checking one input may take."""

SLOWEST_USE = 10.0
"""Seconds that sampling and costing an accepted one may take."""

MEMORY = 2 << 30
"""Bytes of address space a worker may have."""

GROWTH = 300 << 20
"""Bytes one input may add to a worker's peak."""

STUCK = 60.0
"""Seconds without progress after which a worker is ended: not even an alarm reaches it."""

ONE_IN = 3
"""Of so many accepted inputs one is used."""

HARMLESS = {"nothing-feasible"}
"""What sampling may still find out about an accepted file."""


class Hang(BaseException):
    """An input took too long."""


@dataclass
class Failure:
    """Something that must not happen.

    Args:
        what: its kind, and where in our code.
        index: the number of the input.
        data: the input.
        detail: the end of the traceback, or what was wrong.
    """

    what: str
    index: int
    data: bytes
    detail: str


@dataclass
class Tally:
    """What came of the inputs."""

    inputs: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    used: int = 0
    ids: Counter[str] = field(default_factory=Counter)
    found_in_use: Counter[str] = field(default_factory=Counter)
    slowest: list[tuple[float, int]] = field(default_factory=list)
    slowest_use: list[tuple[float, int]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    peak: int = 0
    chunk: set[int] = field(default_factory=set)

    def merge(self, other: Tally) -> None:
        """Add another worker's."""
        for name in ("inputs", "accepted", "ids", "found_in_use"):
            getattr(self, name).update(getattr(other, name))
        self.used += other.used
        self.slowest = sorted([*self.slowest, *other.slowest], reverse=True)[:10]
        self.slowest_use = sorted([*self.slowest_use, *other.slowest_use], reverse=True)[:10]
        self.failures += other.failures
        self.peak = max(self.peak, other.peak)


# --- one input ------------------------------------------------------------------------------------


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` behind so many seconds of processor time."""

    def ring(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def checked(path: Path) -> list[Diagnostic]:
    """What ``archdsl check`` finds and shows."""
    found = archdsl.check(path)
    shown = render(found, color=True) + render_concise(found) + str(to_json(found))
    assert not any(char in shown for char in "\0\r\u202e\u2028"), "raw control characters are shown"
    errors = [d for d in found if d.severity is Severity.ERROR]
    assert not errors or any(d.span for d in errors), f"no error has a place: {errors}"
    for diagnostic in found:
        span = diagnostic.span
        assert span is None or 0 <= span.start <= span.end <= len(span.source.text), diagnostic
    return found


def use(path: Path) -> list[str]:
    """Sample and cost an accepted file, and read its closed text; ids of what that complains about."""
    try:
        space = archdsl.load(path)
        space.require_model()
        assert space.count() >= 1
        arch = space.sample(0)
    except ArchError as error:
        return [d.id for d in error.diagnostics]
    assert arch.feasible, "the sample does not keep the requirements"
    assert arch.cost.params >= 0
    arch.cost.flops(128, "train")
    arch.cost.state_bytes(4096)
    arch.cost.activation_bytes(128)
    again = archdsl.loads(arch.text, "closed.arch")
    assert again.count() == 1, "the closed text has choices"
    assert again.sample(0).hash == arch.hash, "the closed text is another architecture"
    return []


def attempt(action: Callable[[Path], Any], path: Path, seconds: float) -> tuple[Any, str, str]:
    """Run an action; its result, or the kind of failure and its detail."""
    before = peak()
    try:
        with alarm(seconds):
            result = action(path)
    except Hang:
        frames = own_frames()
        return (
            None,
            f"{action.__name__}: hang in {' > '.join(frames[1:6])}",
            traceback.format_exc(limit=-12),
        )
    except BaseException as error:  # whatever it is, it must not happen
        place = (own_frames() or ["?"])[-1]
        said = re.sub(r"[\d,]+", "N", str(error).split("\n")[0][:80])
        said = said if isinstance(error, AssertionError) else ""
        what = f"{action.__name__}: {type(error).__name__} in {place} {said}".rstrip()
        return None, what, traceback.format_exc(limit=-12)
    grown = peak() - before
    if grown > GROWTH:
        return None, f"{action.__name__}: memory", f"{grown >> 20} MiB more"
    return result, "", ""


def own_frames() -> list[str]:
    """The functions of archdsl on the way to the exception that is being handled."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    return [
        f"{Path(f.filename).name}:{f.name}"
        for f in frames
        if "/archdsl/" in f.filename or __file__ == f.filename
    ]


def peak() -> int:
    """Bytes of this process's largest resident set."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- many inputs ----------------------------------------------------------------------------------


def run(
    seed: int, indices: range, folder: Path, at: Callable[[int], None] = lambda index: None
) -> Tally:
    """Try some inputs in this process.

    Args:
        seed: of the inputs.
        indices: their numbers.
        folder: an empty one to write them to.
        at: told the number of each input before it is tried.
    """
    tally, path = Tally(chunk={indices.start}), folder / "input.arch"
    for index in indices:
        at(index)
        kind, data = text(seed, index)
        tally.inputs[kind] += 1
        path.write_bytes(data)
        found = one(tally, checked, path, SLOWEST, index, tally.slowest)
        if found is None:
            continue
        tally.ids.update({d.id for d in found})
        if any(d.severity is Severity.ERROR for d in found):
            continue
        tally.accepted[kind] += 1
        if index % ONE_IN == 0:
            tally.used += 1
            ids = one(tally, use, path, SLOWEST_USE, index, tally.slowest_use) or []
            tally.found_in_use.update(ids)
            if set(ids) - HARMLESS - {"missing-model"}:
                tally.failures.append(
                    Failure(f"use: accepted, yet {ids[0]}", index, data, str(ids))
                )
    tally.peak = peak()
    return tally


def one(
    tally: Tally,
    action: Callable[[Path], Any],
    path: Path,
    seconds: float,
    index: int,
    slowest: list[tuple[float, int]],
) -> Any:
    """Try one action on the file, and keep what came of it."""
    start = time.process_time()
    result, what, detail = attempt(action, path, seconds)
    taken = time.process_time() - start
    if len(slowest) < 10 or taken > slowest[-1][0]:
        slowest.append((taken, index))
        slowest.sort(reverse=True)
        del slowest[10:]
    if what:
        tally.failures.append(Failure(what, index, path.read_bytes(), detail))
    return result


CHUNK = 500
"""How many inputs a worker tries before it reports."""


def worker(seed: int, tasks: Any, results: Any, place: Any) -> None:
    """Take chunks of inputs until there are none, or the study is no more."""
    follow_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    with tempfile.TemporaryDirectory() as folder:
        while (chunk := tasks.get()) is not None:
            results.put(
                run(seed, chunk, Path(folder), lambda index: setattr(place, "value", index))
            )
        results.put(None)


class Crew:
    """Worker processes; one that is stuck or has died is replaced, and its input is a failure."""

    def __init__(self, seed: int, count: int, jobs: int, first: int = 0) -> None:
        self.seed, self.total = seed, Tally()
        self.context = multiprocessing.get_context("spawn")
        self.tasks, self.results = self.context.Queue(), self.context.Queue()
        self.end = first + count
        self.left = set(range(first, self.end, CHUNK))
        for start in sorted(self.left):
            self.tasks.put(range(start, min(start + CHUNK, first + count)))
        for _ in range(jobs):
            self.tasks.put(None)
        self.crew = [self.start() for _ in range(jobs)]
        self.done = 0

    def start(self) -> tuple[Any, Any, list[float]]:
        """A new worker, the input it is at, and when that last changed."""
        place = self.context.Value("q", -1)
        process = self.context.Process(
            target=worker, args=(self.seed, self.tasks, self.results, place), daemon=True
        )
        process.start()
        return process, place, [time.monotonic(), -1.0]

    def run(self, say: Callable[[str], None]) -> Tally:
        """Wait for all."""
        begin, working = time.monotonic(), len(self.crew)
        while working:
            try:
                tally = self.results.get(timeout=2)
            except Empty:
                self.look()
                continue
            if tally is None:
                working -= 1
                continue
            for failure in tally.failures:
                say(f"\r#{failure.index}: {failure.what}\n")
            self.total.merge(tally)
            self.left -= tally.chunk
            self.done = sum(self.total.inputs.values())
            say(
                f"\r{self.done:,} inputs, {len(self.total.failures)} failures,"
                f" {time.monotonic() - begin:.0f} s; all before #{self.reached():,} "
            )
        say("\n")
        return self.total

    def reached(self) -> int:
        """Before which input all are tried: where ``--start`` goes on."""
        return min(self.left, default=self.end)

    def look(self) -> None:
        """Replace workers that get nowhere."""
        for number, (process, place, seen) in enumerate(self.crew):
            if place.value != seen[1]:
                seen[:] = [time.monotonic(), place.value]
            stuck = time.monotonic() - seen[0] > STUCK and place.value >= 0
            died = process.exitcode not in (None, 0)
            if stuck or died:
                process.kill()
                what = f"the process was {'stuck' if stuck else f'ended by {process.exitcode}'}"
                index = int(place.value)
                self.total.failures.append(Failure(what, index, text(self.seed, index)[1], ""))
                print(f"\n#{index}: {what}", flush=True)
                self.crew[number] = self.start()


# --- what is shown --------------------------------------------------------------------------------


def minimised(failure: Failure, seconds: float = 40.0) -> bytes:
    """A smaller input that fails in the same way, as far as time allows: lines first, then words."""
    end = time.monotonic() + seconds
    text_of = failure.data.decode("utf-8", errors="surrogateescape")
    with tempfile.TemporaryDirectory() as folder:
        fails = partial(still_fails, failure, Path(folder) / "input.arch")
        for split in (partial(str.splitlines, keepends=True), TOKEN.findall):
            text_of = "".join(shortened(split(text_of), fails, end))
    return text_of.encode("utf-8", errors="surrogateescape")


def still_fails(failure: Failure, path: Path, pieces: list[str]) -> bool:
    """Whether a smaller input fails in the same way."""
    kind = failure.what.split(" ")[0].rstrip(":")
    action, limit = (use, SLOWEST_USE) if kind == "use" else (checked, SLOWEST)
    path.write_bytes("".join(pieces).encode("utf-8", errors="surrogateescape"))
    result, what, _ = attempt(action, path, limit)
    if failure.what.startswith("use: accepted"):
        return bool(result) and failure.what.endswith(result[0])
    return same(what, failure.what)


def shortened(pieces: list[str], fails: Callable[[list[str]], bool], end: float) -> list[str]:
    """Drop stretches of pieces, long ones first, as long as it still fails."""
    size = max(len(pieces) // 2, 1)
    while size and time.monotonic() < end:
        at = 0
        while at < len(pieces) and time.monotonic() < end:
            shorter = pieces[:at] + pieces[at + size :]
            if fails(shorter):
                pieces = shorter
            else:
                at += size
        size //= 2
    return pieces


def same(one: str, other: str) -> bool:
    """Whether two failures are of one kind; a hang may be caught anywhere."""
    return one == other or (" hang " in one and " hang " in other)


def report(tally: Tally, seed: int, out: Path | None) -> None:
    """Print what came of it; failures also to a file."""
    accepted = sum(tally.accepted.values())
    total = sum(tally.inputs.values())
    print(
        f"{total:,} inputs: {accepted:,} accepted, {total - accepted:,} refused or failed;"
        f" {tally.used:,} used"
    )
    for name, count in tally.inputs.most_common():
        print(f"  {name:12} {count:8,}, accepted {tally.accepted[name]:,}")
    print("diagnostics, by the inputs that have them:")
    for name, count in tally.ids.most_common():
        print(f"  {count:8,} {name}")
    print(f"found when used: {dict(tally.found_in_use)}")
    print(
        "slowest check:",
        ", ".join(f"{seconds:.2f} s (#{index})" for seconds, index in tally.slowest[:5]),
    )
    print(
        "slowest use:  ",
        ", ".join(f"{seconds:.2f} s (#{index})" for seconds, index in tally.slowest_use[:5]),
    )
    print(f"peak memory of a worker: {tally.peak >> 20} MiB")
    kinds: dict[str, list[Failure]] = {}
    for failure in tally.failures:
        kinds.setdefault(failure.what, []).append(failure)
    print(f"{len(tally.failures)} failures of {len(kinds)} kinds")
    for what, failures in sorted(kinds.items(), key=lambda item: -len(item[1])):
        words = described(what, failures, seed)
        print(words)
        if out:
            with out.open("a", encoding="utf-8") as file:
                file.write(words + "\n")


def described(what: str, failures: list[Failure], seed: int) -> str:
    """One kind of failure, with the smallest input that shows it."""
    example = min(failures, key=lambda failure: len(failure.data))
    data = minimised(example) if example.detail else example.data
    shown = data.decode("utf-8", errors="backslashreplace")
    many = shown if len(shown) < 3000 else f"{shown[:3000]} …"
    return (
        f"\n## {what}: {len(failures)} times (seed {seed}, #{example.index})\n\n```\n{many}\n```\n\n"
        f"```\n{example.detail[-1800:]}\n```"
    )


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first input, to go on with a run"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file to append failures to, as Markdown")
    parser.add_argument("--print", type=int, dest="shown", help="only print input number N")
    options = parser.parse_args()
    if options.shown is not None:
        sys.stdout.buffer.write(text(options.seed, options.shown)[1])
        return
    tally = Crew(options.seed, options.count, options.jobs, options.start).run(
        lambda line: print(line, end="", flush=True)
    )
    report(tally, options.seed, options.out)
    sys.exit(1 if tally.failures else 0)


if __name__ == "__main__":
    main()
