"""Files and the names they define: ``use``, the standard library, and where a name is looked up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from archdsl.diagnostics import ArchError, Diagnostic, Report, Source
from archdsl.grammar import ast
from archdsl.grammar.parse import parse_source, read_source

Definition = ast.Let | ast.Def

STANDARD = "std/"
"""How the path of a file of the standard library begins."""

MOST_FILES = 100
"""How many files one file may use, directly or not."""

_LIBRARY = Path(__file__).parents[2] / "blocks" / "std"
_DEFINED = re.compile(r"^def\s+([a-z_][a-z0-9_]*)", re.MULTILINE)


@dataclass(eq=False)
class Scope:
    """The names of one file.

    Args:
        program: its syntax tree.
        title: what a path of a choice in it begins with; empty in the main file.
        library: whether it is of the standard library, so that messages point at its user instead.
        definitions: its ``let`` and ``def`` items by name; the first of a name counts.
        used: the scopes behind its ``use`` items, by the name given.
    """

    program: ast.Program
    title: str = ""
    library: bool = False
    definitions: dict[str, Definition] = field(default_factory=dict)
    used: dict[str, Scope] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """The text."""
        return self.program.span.source

    def names(self) -> list[str]:
        """Everything that may be written here."""
        inner = [
            f"{alias}.{name}" for alias, scope in self.used.items() for name in scope.definitions
        ]
        return [*self.definitions, *inner]

    def find(self, name: tuple[str, ...]) -> tuple[Scope, Definition] | None:
        """What a possibly dotted name means, and the file it is in; the prelude is not looked at."""
        first, *rest = name
        if rest:
            return self.used[first].find(tuple(rest)) if first in self.used else None
        found = self.definitions.get(first)
        return None if found is None else (self, found)


class Loader:
    """Reads a program and everything it uses.

    Args:
        report: takes the diagnostics.
        folder: the folder of the main file as it was given; nothing outside it is read.
        texts: texts to take instead of files, by path; then no file is read at all.
    """

    def __init__(
        self, report: Report, folder: Path | None, texts: Mapping[str, str] | None = None
    ) -> None:
        self.report, self.given = report, texts
        self.shown = folder or Path()
        self.folder = self.shown.resolve()
        self.scopes: dict[str, Scope] = {}
        self.loading: list[str] = []
        self.texts: dict[str, str] = {}

    def main(self, source: Source) -> Scope:
        """The scope of the main file.

        Raises:
            ArchError: the text does not parse.
        """
        return self.scope(parse_source(source), self.folder, "")

    def scope(self, program: ast.Program, folder: Path, title: str, library: bool = False) -> Scope:
        """The scope of a program that stands in a folder."""
        scope = Scope(program, title, library)
        for item in program.items:
            if isinstance(item, ast.Let | ast.Def):
                scope.definitions.setdefault(item.name, item)
            elif isinstance(item, ast.Use):
                self._use(scope, item, folder)
        return scope

    def _use(self, scope: Scope, item: ast.Use, folder: Path) -> None:
        alias = alias_of(item)
        try:
            used = self._used(item, folder, alias)
        except ArchError as error:
            for diagnostic in error.diagnostics:
                self.report.add(_at(diagnostic, item))
            return
        if alias not in scope.used:
            scope.used[alias] = used

    def _used(self, item: ast.Use, folder: Path, alias: str) -> Scope:
        if item.path.startswith(STANDARD):
            return _standard(item)
        path = self._path(item, folder)
        key = path.relative_to(self.folder).as_posix()
        if key in self.loading:
            raise ArchError(_cycle(item, [*self.loading[self.loading.index(key) :], key]))
        if key not in self.scopes:
            self.scopes[key] = self._load(item, path, key, alias)
        return self.scopes[key]

    def _load(self, item: ast.Use, path: Path, key: str, alias: str) -> Scope:
        if len(self.texts) >= MOST_FILES:
            raise ArchError(
                _use_error("too-many-files", item, f"more than {MOST_FILES} files are used")
            )
        self.loading.append(key)
        try:
            program = parse_source(self._source(item, path, key))
            return self.scope(program, path.parent, alias)
        finally:
            self.loading.pop()

    def _source(self, item: ast.Use, path: Path, key: str) -> Source:
        if self.given is None and path.exists():
            self.texts[key] = read_source(path).text
        elif self.given is not None and key in self.given:
            self.texts[key] = self.given[key]
        else:
            raise ArchError(_missing(item))
        return Source((self.shown / key).as_posix(), self.texts[key])

    def _path(self, item: ast.Use, folder: Path) -> Path:
        """The file meant, inside the main file's folder."""
        if PurePosixPath(item.path).is_absolute() or Path(item.path).is_absolute():
            raise ArchError(_outside(item, "it is absolute"))
        if "\0" in item.path or not item.path.strip():
            raise ArchError(_missing(item))
        plain = (folder / item.path).resolve()
        path = plain if plain.suffix == ".arch" else plain.with_name(f"{plain.name}.arch")
        if not path.is_relative_to(self.folder):
            raise ArchError(_outside(item, "it leads out of the folder of the main file"))
        return path


# --- the standard library -------------------------------------------------------------------------


@cache
def standard_names() -> Mapping[str, str]:
    """Each definition of the standard library and the file it is in (without its ending)."""
    return {
        name: path.stem
        for path in sorted(_LIBRARY.glob("*.arch"))
        for name in _DEFINED.findall(path.read_text(encoding="utf-8"))
    }


@cache
def standard(name: str) -> tuple[Scope, Definition] | None:
    """The definition of the standard library with this name, if there is one."""
    if not (_LIBRARY / f"{name}.arch").is_file() and name not in standard_names():
        return None
    scope = standard_file(name if (_LIBRARY / f"{name}.arch").is_file() else standard_names()[name])
    return scope.find((name,)) or standard_file(standard_names().get(name, name)).find((name,))


@cache
def standard_file(stem: str) -> Scope:
    """The scope of one file of the standard library."""
    report = Report()
    text = (_LIBRARY / f"{stem}.arch").read_text(encoding="utf-8")
    loader = Loader(report, _LIBRARY)
    program = parse_source(Source(f"{STANDARD}{stem}.arch", text))
    scope = loader.scope(program, _LIBRARY, "", library=True)
    report.raise_errors()
    return scope


def _standard(item: ast.Use) -> Scope:
    stem = item.path.removeprefix(STANDARD).removesuffix(".arch")
    if not re.fullmatch("[a-z0-9_]+", stem) or not (_LIBRARY / f"{stem}.arch").is_file():
        raise ArchError(_missing(item))
    return standard_file(stem)


# --- what can be wrong with a ``use`` ---------------------------------------------------------------


def _at(diagnostic: Diagnostic, item: ast.Use) -> Diagnostic:
    """A diagnostic about a file that cannot be read, at the ``use`` that asks for it."""
    if diagnostic.span is not None:
        return diagnostic
    return Diagnostic(
        diagnostic.id, diagnostic.message, item.path_span, diagnostic.label, diagnostic.help
    )


def _use_error(id: str, item: ast.Use, message: str, help: str = "") -> Diagnostic:
    return Diagnostic(id, message, item.path_span, help=help)


def _missing(item: ast.Use) -> Diagnostic:
    return _use_error(
        "missing-file",
        item,
        f"there is no file `{item.path}`",
        "a path is relative to the file it is written in; `std/NAME` is the standard library",
    )


def _outside(item: ast.Use, why: str) -> Diagnostic:
    return _use_error(
        "use-outside",
        item,
        f"`{item.path}` cannot be used: {why}",
        "put the file beside the main file or in a folder below it, and use a relative path",
    )


def _cycle(item: ast.Use, keys: list[str]) -> Diagnostic:
    chain = " uses ".join(f"`{key}`" for key in keys)
    return _use_error(
        "use-cycle", item, f"files use each other in a circle: {chain}",
        "move what both need into a third file",
    )  # fmt: skip


def alias_of(item: ast.Use) -> str:
    """The name a used file has: the one given, else that of the file."""
    return item.alias or PurePosixPath(item.path).stem


def scopes_of(scope: Scope) -> Iterator[Scope]:
    """A scope and all it uses, each once, the user's own files only."""
    seen: set[int] = set()
    todo = [scope]
    while todo:
        current = todo.pop()
        if id(current) in seen or current.library:
            continue
        seen.add(id(current))
        yield current
        todo += current.used.values()
