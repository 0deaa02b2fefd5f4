"""More processes for one search: each a search of its own that shows nothing and shares the study.

A helper that dies is started again; what it was at is taken over meanwhile. Helpers end with the search
that started them, however that ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archdsl.diagnostics import ArchError
from archdsl.search.workers.parent import follow_parent
from archdsl.search.workers.worker import environment

PROGRAM = "from archdsl.search.helpers import main; main()"

RESTARTS = 3
"""How often in a row a helper may end badly within :data:`SOON` of its start before it is given up."""

SOON = 10.0
"""Seconds."""


class Helpers:
    """Processes that work on our study.

    Args:
        command: starts one.
        count: how many.
        log: file for what they print.
    """

    def __init__(self, command: Sequence[str], count: int, log: Path) -> None:
        self.command, self.log = list(command), log
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._keep, daemon=True) for _ in range(count)]

    def start(self) -> None:
        """Start them, and keep them running."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them at once: whatever is unfinished is taken over by the next search."""
        self._ended.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _keep(self) -> None:
        """Run one, and again as long as it ends by a signal or an error that is not at once there again."""
        failures = 0
        while failures < RESTARTS and not self._ended.is_set():
            began = time.monotonic()
            if self._run() == 0:
                return
            failures = failures + 1 if time.monotonic() - began < SOON else 0

    def _run(self) -> int:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment(), start_new_session=True,
            )  # fmt: skip
        while (status := process.poll()) is None:
            if self._ended.wait(0.2):
                process.kill()
                process.wait()
                return 0
        return status


def command(spec: Path, given: dict[str, Any]) -> list[str]:
    """What starts a helper of a search.

    Args:
        spec: the file.
        given: the request's fields that are not the defaults, as JSON can hold them.
    """
    return [sys.executable, "-c", PROGRAM, str(spec), json.dumps(given)]


def main() -> None:
    """Work on a study until it has ended. Arguments: the spec, and the request as JSON."""
    import archdsl
    from archdsl.search.main import Request, help_out

    spec, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    paths: dict[str, Any] = {k: Path(given[k]) for k in ("out", "data") if given.get(k)}
    paths["enqueue"] = [Path(each) for each in given.get("enqueue", ())]
    follow_parent()
    try:
        help_out(archdsl.load(spec), spec.stem, spec.parent, Request(**{**given, **paths}))
    except ArchError as error:
        sys.exit("; ".join(each.message for each in error.diagnostics))
