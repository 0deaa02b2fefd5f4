"""Who works on a study: one process at a time in the part that decides, and signs of life.

Where all processes see one disk, a locked file says both, and the system ends the lock with its process.
Where they only share a database server, the server's own locks keep them apart, and each process counts
upwards in an attribute of the study. A process whose count another has not seen change for the length of
a lease, by the other's own clock, is dead to it. So clocks of different machines need not agree; they
only must not run at widely different speeds.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from archdsl.search.storage.journal import locked, unwritable
from archdsl.search.storage.locks import Lease, alive, held

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import Connection, Engine

STUDY_LOCK = "study.lock"

LEASE = 20.0
"""Seconds without a sign of life after which a process of a database is dead to the others."""

BEATS = 6
"""Signs of life during a lease: so many must be lost before a living process seems dead."""

BEAT = "beat:"
"""Study attributes that count: one for each process, by its identity."""


class Guard(Protocol):
    """Keeps the processes of a study apart and knows which of them live."""

    identity: str
    """Of this process, among all that ever worked on the study."""

    def join(self, storage: BaseStorage, study: int) -> None:
        """Begin to give signs of life."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep every other process of the study out meanwhile."""

    def alive(self, identity: str) -> bool:
        """Whether a process lives, as far as this one can tell."""

    def close(self) -> None:
        """End all signs of life at once."""


class FileGuard:
    """For processes that see one disk.

    Args:
        folder: of locks and leases; made where it is missing.

    Raises:
        ArchError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lease = _new_lease(folder)
        self.identity = self.lease.path.name

    def join(self, storage: BaseStorage, study: int) -> None:
        """Nothing: the lease is a sign of life from the start."""

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the study's lock file."""
        with locked(self.folder / STUDY_LOCK):
            yield

    def alive(self, identity: str) -> bool:
        """Whether a living process holds the lease."""
        return alive(self.folder / identity)

    def close(self) -> None:
        """Release the lease."""
        self.lease.release()


class ServerGuard:
    """For processes that share a database server.

    Args:
        engine: of the database.
        name: of the study.
        lease: seconds of silence after which a process counts as dead.
    """

    def __init__(self, engine: Engine, name: str, lease: float = LEASE) -> None:
        self.engine, self.key, self.lease = engine, lock_key(name), lease
        self.identity = uuid.uuid4().hex[:12]
        self.pulse: Pulse | None = None
        self._connection: Connection | None = None

    def join(self, storage: BaseStorage, study: int) -> None:
        """Begin to count."""
        if self.pulse is None:
            self.pulse = Pulse(storage, study, self.identity, self.lease)
            self.pulse.start()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the server's lock of the study: it ends with our connection, whatever ends that."""
        if self._connection is None:
            self._connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        take, give = LOCKS[self.engine.dialect.name]
        while (
            self._run(take) == 0
        ):  # MySQL gives up after a while; PostgreSQL waits, and says nothing
            pass
        try:
            yield
        finally:
            self._run(give)

    def alive(self, identity: str) -> bool:
        """Whether its count has changed during the last lease."""
        return self.pulse is not None and self.pulse.hears(identity)

    def close(self) -> None:
        """Stop counting, and let go of the server."""
        if self.pulse is not None:
            self.pulse.stop()
        with suppress(Exception):
            if self._connection is not None:
                self._connection.close()
        self.engine.dispose()

    def _run(self, statement: str) -> object:
        from sqlalchemy import text

        assert self._connection is not None
        return self._connection.execute(text(statement), {"key": self.key}).scalar()


NAMED = (
    "SELECT GET_LOCK(CONCAT('archdsl ', :key), 60)", "SELECT RELEASE_LOCK(CONCAT('archdsl ', :key))",
)  # fmt: skip
"""MySQL and MariaDB name their locks, and MariaDB knows no time without end."""

LOCKS = {
    "postgresql": ("SELECT pg_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"),
    "mysql": NAMED,
    "mariadb": NAMED,
}
"""How each server takes and gives a lock that ends with its session, by SQLAlchemy's name of it."""


def lock_key(name: str) -> int:
    """The server's number of a study's lock: 63 bits."""
    digest = blake2b(f"archdsl study {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Pulse(threading.Thread):
    """Counts for this process, and watches the counts of the others.

    Args:
        storage: where.
        study: the study's number there.
        identity: of this process.
        lease: seconds.
    """

    def __init__(self, storage: BaseStorage, study: int, identity: str, lease: float) -> None:
        super().__init__(daemon=True)
        self.storage, self.study, self.identity, self.lease = storage, study, identity, lease
        self.began = time.monotonic()
        self._seen: dict[str, tuple[int, float]] = {}
        self._ended = threading.Event()
        self._beat(0)

    def run(self) -> None:
        """Count until it is stopped; a server that does not answer is asked again."""
        count = 0
        while not self._ended.wait(self.lease / BEATS):
            count += 1
            with suppress(Exception):
                self._beat(count)
        with suppress(Exception):
            self.storage.remove_session()  # each thread has one of its own

    def hears(self, identity: str) -> bool:
        """Whether a process has given a sign of life during the last lease.

        One that has never been heard of may have begun before we did, so it gets a lease from our start.
        """
        _, when = self._seen.get(identity, (0, self.began))
        return time.monotonic() - when < self.lease

    def stop(self) -> None:
        """Stop, and say so: what we have not finished may be taken over at once."""
        self._ended.set()
        if self.is_alive():
            self.join(self.lease)
        with suppress(Exception):
            self.storage.set_study_user_attr(self.study, BEAT + self.identity, None)

    def _beat(self, count: int) -> None:
        self.storage.set_study_user_attr(self.study, BEAT + self.identity, count)
        now = time.monotonic()
        for key, heard in self.storage.get_study_user_attrs(self.study).items():
            if key.startswith(BEAT):
                self._hear(key.removeprefix(BEAT), heard, now)

    def _hear(self, identity: str, count: int | None, now: float) -> None:
        if count is None:  # it has ended, and said so
            self._seen[identity] = (-1, now - self.lease)
        elif self._seen.get(identity, (None, 0.0))[0] != count:
            self._seen[identity] = (count, now)


def _new_lease(folder: Path) -> Lease:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / STUDY_LOCK):
            for old in folder.glob("*.lease"):
                if not alive(old):
                    old.unlink(missing_ok=True)
            return Lease(folder / f"{uuid.uuid4().hex[:12]}.lease")
    except OSError as error:
        raise unwritable(folder, error) from None
