"""Where trials are kept: a study in an Optuna storage, shared by every process that works on it."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from archdsl.blocks.asking import Direction
from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.search.journal import Journal, unwritable
from archdsl.search.locks import Lease, alive, held
from archdsl.search.records import OUTCOME, OWNER, Owner, Record, State

if TYPE_CHECKING:
    from archdsl.search.proposals import Proposal

SIGNATURE = "archdsl"
"""The study attribute that says what it is a study of."""

STUDY_LOCK = "study.lock"

STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "fail",
}


class Store:
    """One study. Only trials that are really run are ever written to it.

    Args:
        storage: an Optuna storage.
        name: of the study in it.
        folder: that all processes of a study share; locks and leases go there.
    """

    def __init__(self, storage: BaseStorage, name: str, folder: Path) -> None:
        self.storage, self.name, self.folder = storage, name, folder / ".locks"
        self.lease = _new_lease(self.folder)
        self.owner = Owner(socket.gethostname(), os.getpid(), self.lease.path.name)
        self.id = -1

    def attach(self, directions: Sequence[Direction], signature: Mapping[str, Any]) -> None:
        """Find or found the study.

        Raises:
            ArchError: the study is one of another spec, seed or data.
        """
        with self.exclusive():
            try:
                self.id = self.storage.get_study_id_from_name(self.name)
            except KeyError:
                ways = [StudyDirection[way.upper()] for way in directions]
                self.id = self.storage.create_new_study(ways, self.name)
            known = self.storage.get_study_user_attrs(self.id).get(SIGNATURE)
            if known is None:
                self.storage.set_study_user_attr(self.id, SIGNATURE, dict(signature))
            elif known != dict(signature):
                raise _changed(self.name, known, signature)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other process of the study from proposing and taking over meanwhile."""
        with held(self.folder / STUDY_LOCK):
            yield

    def records(self) -> list[Record]:
        """All trials, by number."""
        found = self.storage.get_all_trials(self.id, deepcopy=False)
        return [_record(trial) for trial in found]

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
        """Keep a measurement, and give the trial with it."""
        self.storage.set_trial_user_attr(record.id, key, value)
        return self.record(record.id)

    def finish(
        self, record: Record, state: State, values: Sequence[float] | None = None,
        reason: str = "", message: str = "",
    ) -> Record:  # fmt: skip
        """End a trial."""
        if reason:
            self.note(record, OUTCOME, {"reason": reason, "message": message})
        self.storage.set_trial_state_values(record.id, TrialState[state.upper()], values)
        return self.record(record.id)

    def abandoned(self, records: Sequence[Record]) -> Record | None:
        """The first trial whose process has died; call it inside :meth:`exclusive`."""
        return next((r for r in records if not r.finished and not self._is_worked_on(r)), None)

    def take_over(self, record: Record) -> Record:
        """Make a trial ours; call it inside :meth:`exclusive`."""
        return self.note(record, OWNER, asdict(self.owner))

    def close(self) -> None:
        """End our lease: trials we have not finished may be taken over."""
        self.lease.release()

    def _is_worked_on(self, record: Record) -> bool:
        owner = record.owner
        return owner is not None and alive(self.folder / owner.lease)


def open_store(storage: str | None, name: str, folder: Path) -> Store:
    """The study ``name`` in a storage.

    Args:
        storage: a file, or ``None`` for ``study.journal`` in ``folder``.
        name: of the study.
        folder: the run's folder.

    Raises:
        ArchError: the folder or the file cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is not None and "://" in storage:
        raise _unsupported(storage)
    place = Path(storage) if storage is not None else folder / "study.journal"
    return Store(JournalStorage(Journal(place)), name, place.parent)


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


def _changed(name: str, known: Mapping[str, Any], asked: Mapping[str, Any]) -> ArchError:
    words = {"text_hash": "spec", "seed": "seed", "data": "data", "objectives": "objectives"}
    differs = [word for key, word in words.items() if known.get(key) != asked.get(key)] or [
        "format"
    ]
    what = " and ".join(differs)
    return ArchError(
        Diagnostic(
            id="study-changed",
            message=f"the study `{name}` was begun with another {what}",
            help=f"begin a new study with `--study NAME`, or restore the {what} to continue this one",
            notes=("its trials are untouched",),
        )
    )


def _unsupported(storage: str) -> ArchError:
    scheme = storage.partition("://")[0]
    return ArchError(
        Diagnostic(
            id="unsupported-storage",
            message=f"studies cannot be kept in `{scheme}://` storages",
            help="give the path of a journal file, on a disk that every process sees",
        )
    )
