"""Where trials are kept: a study in an Optuna storage, shared by every process that works on it."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from archdsl.blocks.asking import Direction
from archdsl.diagnostics import ArchError
from archdsl.search.errors import user_error
from archdsl.search.storage.databases import is_database, open_database
from archdsl.search.storage.guards import LEASE, FileGuard, Guard
from archdsl.search.storage.journal import Journal, damaged, unwritable
from archdsl.search.storage.records import OUTCOME, OWNER, Owner, Record, State

if TYPE_CHECKING:
    from archdsl.search.storage.records import Proposal

SIGNATURE = "archdsl"
"""The study attribute that says what it is a study of."""

BETWEEN_LOOKS = 30.0
"""Seconds between two looks at the other studies of a storage."""

LOCKS = ".locks"
"""Folder beside a study's file, for the locks of its processes."""

EDITIONS = "editions"
"""The study attribute that lists the hashes of the specs before the present one."""

STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "fail",
}


class Lost(Exception):
    """Another process has taken our trial over: it held us for dead."""


class Store:
    """One study. Only trials that are really run are ever written to it.

    Args:
        storage: an Optuna storage.
        name: of the study in it.
        guard: keeps its processes apart.
        together: a context in which the storage takes several operations as one, if it can.
        release: closes what the storage holds open.
    """

    def __init__(
        self, storage: BaseStorage, name: str, guard: Guard,
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
        release: Callable[[], object] = nullcontext,
    ) -> None:  # fmt: skip
        self.storage, self.name, self.guard, self.together = storage, name, guard, together
        self.release = release
        self.owner = Owner(socket.gethostname(), os.getpid(), guard.identity)
        self.id = -1
        self._inside = 0
        self._looked, self._others = -BETWEEN_LOOKS, dict[str, tuple[str, Record]]()
        self._ended: dict[int, tuple[FrozenTrial, Record]] = {}

    def attach(self, directions: Sequence[Direction], signature: Mapping[str, Any]) -> None:
        """Find or found the study.

        A study goes on with an edited spec: its ``text_hash`` alone may change.

        Raises:
            ArchError: the study is one of other objectives, another seed or other data, or no search's.
        """
        ways = [StudyDirection[way.upper()] for way in directions]
        with self.exclusive():
            try:
                self.id = self.storage.get_study_id_from_name(self.name)
            except KeyError:
                self.id = self.storage.create_new_study(ways, self.name)
            known = self.storage.get_study_user_attrs(self.id).get(SIGNATURE)
            if known is None and not self._is_new(ways):
                raise _foreign(self.name)
            if known is not None and _fixed(known) != _fixed(signature):
                raise _changed(self.name, known, signature)
            if known is not None and known != dict(signature):
                editions = [*self._editions(), known["text_hash"]]
                self.storage.set_study_user_attr(self.id, EDITIONS, editions)
            if known != dict(signature):
                self.storage.set_study_user_attr(self.id, SIGNATURE, dict(signature))
        self.guard.join(self.storage, self.id)

    def _is_new(self, ways: Sequence[StudyDirection]) -> bool:
        """Whether the study is as one is founded: a process may have died before it signed it."""
        same = list(self.storage.get_study_directions(self.id)) == list(ways)
        return same and not self.storage.get_n_trials(self.id)

    @property
    def first_edition(self) -> str | None:
        """The hash of the spec the study was begun with, if it was edited since."""
        return next(iter(self._editions()), None)

    def _editions(self) -> list[str]:
        found: list[str] = self.storage.get_study_user_attrs(self.id).get(EDITIONS, [])
        return found

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other process of the study from deciding anything meanwhile."""
        if self._inside:
            yield
            return
        with self.guard.exclusive():
            self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1

    def records(self) -> list[Record]:
        """All trials, by number."""
        found = self.storage.get_all_trials(self.id, deepcopy=False)
        return [self._read(trial) for trial in found]

    def _read(self, trial: FrozenTrial) -> Record:
        """A trial as a record, which is kept where nothing more happens to it."""
        known = self._ended.get(trial._trial_id)
        if known is not None and known[0] is trial:
            return known[1]
        record = _record(trial)
        if record.finished:
            self._ended[trial._trial_id] = trial, record
        return record

    def record(self, id: int) -> Record:
        """One trial as it is now."""
        return _record(self.storage.get_trial(id))

    def create(self, proposal: Proposal) -> Record:
        """Begin a trial. One operation of the storage, so it is there whole or not at all."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(proposal.params),
            distributions=dict(proposal.distributions),
            user_attrs={**proposal.attributes, OWNER: asdict(self.owner)},
        )
        return self.record(self.storage.create_new_trial(self.id, template_trial=trial))

    def note(self, record: Record, key: str, value: Any) -> Record:
        """Keep a measurement of a trial of ours, and give the trial with it.

        Raises:
            Lost: it is not ours any more; nothing was written.
        """
        with self.exclusive():
            self._check(record)
            self.storage.set_trial_user_attr(record.id, key, value)
            return self.record(record.id)

    def finish(
        self, record: Record, state: State, values: Sequence[float] | None = None,
        reason: str = "", message: str = "",
    ) -> Record:  # fmt: skip
        """End a trial of ours.

        Raises:
            Lost: it is not ours any more; nothing was written.
        """
        with self.exclusive():
            self._check(record)
            with self.together():
                if reason:
                    outcome = {"reason": reason, "message": message}
                    self.storage.set_trial_user_attr(record.id, OUTCOME, outcome)
                self.storage.set_trial_state_values(record.id, TrialState[state.upper()], values)
            return self.record(record.id)

    def mark(self, key: str, value: Any) -> None:
        """Keep something about the whole study."""
        with self.exclusive():
            if self.storage.get_study_user_attrs(self.id).get(key) != value:
                self.storage.set_study_user_attr(self.id, key, value)

    def elsewhere(self, key: str) -> tuple[str, Record] | None:
        """A trial of an equal architecture in another study of the storage, the farthest, and its study."""
        now = time.monotonic()
        if now - self._looked > BETWEEN_LOOKS:
            self._looked, self._others = now, dict(self._all_elsewhere())
        return self._others.get(key)

    def _all_elsewhere(self) -> Iterator[tuple[str, tuple[str, Record]]]:
        found: dict[str, tuple[str, Record]] = {}
        for study in self.storage.get_all_studies():
            if study._study_id != self.id:
                for trial in self.storage.get_all_trials(study._study_id, deepcopy=False):
                    record = _record(trial)
                    known = found.get(record.key)
                    if record.scores and (known is None or len(record.rungs) > len(known[1].rungs)):
                        found[record.key] = (study.study_name, record)
        yield from found.items()

    def abandoned(self, records: Sequence[Record]) -> list[Record]:
        """The trials that nobody works on; call it inside :meth:`exclusive`."""
        return [r for r in records if not r.finished and not self._is_worked_on(r)]

    def take_over(self, record: Record) -> Record:
        """Make a trial ours; call it inside :meth:`exclusive`."""
        self.storage.set_trial_user_attr(record.id, OWNER, asdict(self.owner))
        return self.record(record.id)

    def park(self, record: Record) -> None:
        """Leave a trial of ours to whoever can go on with it.

        Raises:
            Lost: it is not ours any more.
        """
        self.note(record, OWNER, {})

    def close(self) -> None:
        """End our signs of life: trials we have not finished may be taken over."""
        self.guard.close()
        self.release()

    def _check(self, record: Record) -> None:
        now = self.record(record.id)
        if now.finished or now.owner != self.owner:
            raise Lost

    def _is_worked_on(self, record: Record) -> bool:
        owner = record.owner
        return owner is not None and (owner == self.owner or self.guard.alive(owner.lease))


def open_store(storage: str | None, name: str, folder: Path, lease: float = LEASE) -> Store:
    """The study ``name`` in a storage.

    Args:
        storage: a journal file, or a database: ``sqlite:///FILE``, ``postgresql://…``, ``mysql://…``;
            ``None`` for ``study.journal`` in ``folder``.
        name: of the study.
        folder: the run's folder.
        lease: seconds of silence after which a process of a database server counts as dead.

    Raises:
        ArchError: the folder, the file or the database cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is not None and is_database(storage):
        database = open_database(storage, name, lease)
        return Store(database.storage, name, database.guard, release=database.release)
    place = Path(storage) if storage is not None else folder / "study.journal"
    if not place.name:
        raise unwritable(place, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    guard = FileGuard(place.parent / LOCKS)
    journal = Journal(place)
    return Store(_replayed(journal), name, guard, journal.together)


def _replayed(journal: Journal) -> JournalStorage:
    """The storage of a journal, whose operations Optuna carries out without looking whether they can be."""
    try:
        return JournalStorage(journal)
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError):
        raise damaged(journal.path) from None


def _record(trial: FrozenTrial) -> Record:
    return Record(
        id=trial._trial_id,
        number=trial.number,
        state=STATES[trial.state],
        values=tuple(trial.values) if trial.values is not None else None,
        attributes=trial.user_attrs,
        params=trial.params,
        distributions=trial.distributions,
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def _fixed(signature: Mapping[str, Any]) -> dict[str, Any]:
    """What may not change as long as a study lives."""
    return {key: value for key, value in signature.items() if key != "text_hash"}


def _foreign(name: str) -> ArchError:
    return user_error(
        "not-a-study",
        f"the study `{name}` of this storage was not begun by archdsl",
        "begin a study of your own beside it with `--study NAME`",
        "its trials are untouched",
    )


def _changed(name: str, known: Mapping[str, Any], asked: Mapping[str, Any]) -> ArchError:
    words = {"seed": "seed", "data": "data", "objectives": "objectives"}
    differs = [word for key, word in words.items() if known.get(key) != asked.get(key)] or [
        "format"
    ]
    what = " and ".join(differs)
    return user_error(
        "study-changed",
        f"the study `{name}` was begun with another {what}",
        f"begin a new study with `--study NAME`, or restore the {what} to continue this one",
        "its trials are untouched",
    )
