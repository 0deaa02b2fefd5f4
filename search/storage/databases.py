"""Studies in databases: one file for one machine, a server for many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from archdsl.diagnostics import ArchError, did_you_mean
from archdsl.search.errors import user_error
from archdsl.search.storage.guards import LOCKS, FileGuard, Guard, ServerGuard

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import URL, Engine

DRIVERS = {
    "postgresql": ("postgresql+psycopg", "archdsl[postgresql]"),
    "postgres": ("postgresql+psycopg", "archdsl[postgresql]"),
    "mysql": ("mysql+pymysql", "archdsl[mysql]"),
    "mariadb": ("mariadb+pymysql", "archdsl[mysql]"),
}
"""What carries a scheme that names no driver, and what installs it."""

OPTIONS: dict[str, dict[str, Any]] = {
    "postgresql": {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5},
    "mysql": {"connect_timeout": 10},
    "mariadb": {"connect_timeout": 10},
    "sqlite": {"timeout": 60},
}
"""Of connections: a server that is gone is noticed in less than a minute."""


def is_database(storage: str) -> bool:
    """Whether a storage is an address, or was meant as one, and not the path of a file."""
    scheme, colon, rest = storage.partition(":")
    return rest.startswith("//") or (colon != "" and scheme in {"sqlite", *DRIVERS})


class Database(NamedTuple):
    """An open database.

    Args:
        storage: the studies in it.
        guard: keeps the processes of one of them apart.
        release: closes the storage's connections.
    """

    storage: BaseStorage
    guard: Guard
    release: Callable[[], None]


def open_database(url: str, name: str, lease: float) -> Database:
    """The storage behind a URL, and what keeps the processes of a study in it apart.

    Args:
        url: ``sqlite:///FILE``, ``postgresql://USER:PASSWORD@HOST/DATABASE`` or ``mysql://…``.
        name: of the study.
        lease: seconds of silence after which a process of a server counts as dead.

    Raises:
        ArchError: there is no such kind of database, its driver is not installed, or it does not answer.
    """
    full = _with_driver(url)
    if full.get_backend_name() == "sqlite":
        place = Path(full.database or "study.db").absolute()
        guard: Guard = FileGuard(place.parent / ".locks")
        return _opened(full, guard, guard)
    guard = ServerGuard(_engine(full), name, lease)
    founding = ServerGuard(_engine(full), "", lease)  # tables are made once, for every study
    try:
        return _opened(full, guard, founding)
    finally:
        founding.close()


def _with_driver(url: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    scheme, slashes, rest = url.partition("://")
    if not slashes:
        raise _malformed(url.partition(":")[0])
    try:
        full = make_url(f"{DRIVERS.get(scheme, (scheme, ''))[0]}://{rest}")
    except ArgumentError:
        raise _unsupported(scheme) from None
    except ValueError:  # a port that is no number
        raise _malformed(scheme) from None
    if full.get_backend_name() not in {*LOCKS, "sqlite"}:
        raise _unsupported(scheme)
    if full.get_backend_name() == "sqlite" and full.database in (None, "", ":memory:"):
        raise _malformed(scheme)  # a study in memory would end with its process
    return full


def _engine(url: URL) -> Engine:
    from sqlalchemy import create_engine

    try:
        return create_engine(url, **_engine_options(url))
    except ImportError as error:
        raise _no_driver(url, error) from None


def _engine_options(url: URL) -> dict[str, Any]:
    return {"connect_args": OPTIONS[url.get_backend_name()], "pool_pre_ping": True}


def _opened(url: URL, guard: Guard, founding: Guard) -> Database:
    """A database whose tables are there, and are made where they are not while ``founding`` is held."""
    from optuna.storages import RDBStorage, get_storage

    with answering(url), founding.exclusive():
        text = url.render_as_string(hide_password=False)
        storage = RDBStorage(text, engine_kwargs=_engine_options(url))

    def release() -> None:
        storage.remove_session()
        storage.engine.dispose()

    return Database(get_storage(storage), guard, release)


@contextmanager
def answering(url: URL | None = None) -> Iterator[None]:
    """Say in words that a database does not answer.

    Raises:
        ArchError: it does not.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        said = str(getattr(error, "orig", None) or error.__cause__ or error).strip().splitlines()
        raise _silent(url, said[0] if said else "") from None


def _unsupported(scheme: str) -> ArchError:
    known = ["postgresql", "mysql", "sqlite"]
    guess = did_you_mean(scheme, known)
    return user_error(
        "unsupported-storage",
        f"studies cannot be kept in `{scheme}://` storages",
        f"{guess + '; or ' if guess else ''}give the path of a journal file, `sqlite:///FILE`, "
        "`postgresql://…` or `mysql://…`",
    )


def _malformed(scheme: str) -> ArchError:
    rest = "/FILE" if scheme == "sqlite" else "USER:PASSWORD@HOST:PORT/DATABASE"
    return user_error(
        "malformed-storage",
        f"this is not how the address of a `{scheme}` storage is written",
        f"write `{scheme}://{rest}`",
    )


def _no_driver(url: URL, error: ImportError) -> ArchError:
    extra = next(
        (extra for full, extra in DRIVERS.values() if full == url.drivername), "its driver"
    )
    return user_error(
        "no-storage-driver",
        f"what speaks to `{url.get_backend_name()}://` storages is not installed: {error}",
        f"install it: `pip install '{extra}'`",
    )


def _silent(url: URL | None, said: str) -> ArchError:
    what = f"`{url.render_as_string()}`" if url is not None else "the study's database"
    return user_error(
        "storage-silent",
        f"{what} does not answer: {said}" if said else f"{what} does not answer",
        "see that the server runs and the address is right, then run the same command again: "
        "what is finished is kept",
    )
