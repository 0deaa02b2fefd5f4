"""Trials and figures in words: the same in the terminal, in logs and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from archdsl.search.space.objectives import Objective
from archdsl.search.storage.records import Record

UNITS = ("", "k", "M", "G", "T")


def quantity(name: str, value: float) -> str:
    """A figure as its name asks for: ``212 KiB``, ``1.3M``, ``0.9972``, ``12.1 ms``."""
    if "bytes" in name and "per_byte" not in name:
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    if name.startswith("latency"):
        return f"{value * 1e3:.3g} ms"
    if abs(value) >= 10_000:
        return _scaled(value, 1000, UNITS) if abs(value) < 1e15 else f"{value:.3g}"
    if value == int(value) and abs(value) >= 2:
        return f"{int(value):,}"
    return f"{value:.4f}" if 1e-3 < abs(value) < 10 or value == 0 else f"{value:.4g}"


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value, power = value / base, power + 1
    gap = " " if base == 1024 else ""
    digits = f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{digits}{gap}{units[power]}"


def last_name(path: str) -> str:
    """The last part of a site's path, which is what it is called in the spec."""
    return path.rpartition(".")[2]


def short_choices(choices: Mapping[str, str]) -> str:
    """``memory gla, ratio 3:1``; whole paths where two last parts are alike."""
    return ", ".join(f"{name} {text}" for name, text in named(choices).items())


def named(choices: Mapping[str, str]) -> dict[str, str]:
    """Choices by the last part of their path where that tells them apart."""
    lasts = [last_name(path) for path in choices]
    return {
        last_name(path) if lasts.count(last_name(path)) == 1 else path: text
        for path, text in choices.items()
    }


def in_short(record: Record, objectives: Sequence[Objective]) -> str:
    """One trial in one line."""
    what = short_choices(record.arch.get("choices", {})) or "the only architecture"
    return f"trial {record.number} {standing(record, objectives)}: {what}"


def standing(record: Record, objectives: Sequence[Objective]) -> str:
    """How far a trial came and what it reached."""
    if record.state == "fail":
        return f"failed ({record.message})"
    values = record.values or next((r.objectives for r in reversed(record.rungs)), None)
    if values is None:
        return {"rank": "cut by its score", "constraint": "cut by a constraint"}.get(
            record.reason, "running"
        )
    found = ", ".join(
        f"{o.text} {quantity(o.text, value)}" for o, value in zip(objectives, values, strict=True)
    )
    cut = "" if record.state == "complete" else f" (cut after {record.rungs[-1].step} steps)"
    return found + cut
