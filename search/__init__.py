"""Search: from the space a ``.arch`` file describes to its best architectures, trained.

:func:`run` is ``archdsl search`` as a function. Importing this package loads neither torch nor Optuna.

:func:`score` and :func:`train` look at one architecture, and train one, for loops of your own.

Each part imports those below it (``lint-imports`` checks it), from the top: the commands (:mod:`main` with
its :mod:`helpers`, ``comparison``, ``validation``, :mod:`verification`) and :mod:`single`, ``reports``,
``study``, ``workers``, ``samplers`` and ``metrics``, ``tasks``, ``storage``, ``space`` and ``statistics``,
and for all of them :mod:`errors` and :mod:`seeds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.search.reports.outputs import Result
    from archdsl.search.single import Trained, score, train
    from archdsl.search.workers.training import Diverged

__all__ = ["Diverged", "Trained", "run", "score", "train"]

_HOME = {
    "Diverged": "archdsl.search.workers.training",
    "Trained": "archdsl.search.single",
    "score": "archdsl.search.single",
    "train": "archdsl.search.single",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def run(
    spec_path: str | Path,
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    trials: int | None = None,
    storage: str | None = None,
    seed: int | None = None,
    study: str | None = None,
    quiet: bool = False,
    device: str | None = None,
    jobs: int = 1,
    lease: float | None = None,
    enqueue: Sequence[str | Path] = (),
) -> Result:
    """Search the space of a spec, and write the report, the best architecture and its weights.

    A study that was begun is continued, whatever ended it. Several processes may run the same study.

    Args:
        spec_path: the ``.arch`` file.
        out: folder of the run; ``runs/NAME`` by default, with the study's name.
        data: file for tasks that learn from one.
        trials: of the whole study; the spec's ``search { trials }`` by default. A study that has as
            many is not searched further, so 25 and then 50 make 50.
        storage: where trials are kept: a journal file, ``sqlite:///FILE``, ``postgresql://…`` or
            ``mysql://…``; ``study.journal`` in ``out`` by default. Machines that share a study run the
            same call with the same storage.
        seed: of proposals; the spec's by default.
        study: name of the study; the spec's file name by default.
        quiet: print nothing.
        device: where models are trained; a GPU where there is one, by default.
        jobs: processes that work on the study on this machine.
        lease: seconds without a sign of life after which a process on another machine counts as dead,
            and its trial is taken over; 20 by default.
        enqueue: closed files of architectures of the space that are tried first.

    Raises:
        ArchError: the spec, the data, the study or the disk does not allow it.
    """
    import archdsl
    from archdsl.search.helpers import command
    from archdsl.search.main import Request, search
    from archdsl.search.storage.guards import LEASE

    path = Path(spec_path)
    given = {
        "out": str(out) if out else None, "data": str(data) if data else None, "trials": trials,
        "storage": storage, "seed": seed, "study": study, "quiet": True, "device": device,
        "jobs": jobs, "lease": lease or LEASE, "enqueue": [str(each) for each in enqueue],
    }  # fmt: skip
    request = Request(
        out=Path(out) if out else None,
        data=Path(data) if data else None,
        trials=trials,
        storage=storage,
        seed=seed,
        study=study,
        quiet=quiet,
        device=device,
        jobs=jobs,
        lease=lease or LEASE,
        helper=command(path, given),
        enqueue=[Path(each) for each in enqueue],
    )
    return search(archdsl.load(path), path.stem, path.parent, request)
