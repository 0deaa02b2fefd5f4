"""The study as a file of one line an operation: Optuna's journal, made to survive its writers.

Optuna's own file lock outlives a process that was killed, and its reader stops at a torn line. Here
the lock dies with its process, a torn end is put aside before anything is written behind it, and a
write that fails (a full disk) leaves the file as it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from archdsl.diagnostics import ArchError
from archdsl.search.errors import user_error
from archdsl.search.storage.locks import held


class Journal(JournalFileBackend):
    """The backend of a study file.

    Args:
        path: the file; made, with its folder, where it is missing.

    Raises:
        ArchError: the folder or the file cannot be written, the file is no study, or it is damaged
            in the middle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_path = path.with_name(f".{path.name}.lock")
        self._place = (0, 0)
        self._gathered: list[dict[str, Any]] | None = None
        _reachable(path)
        super().__init__(str(path))
        with locked(self._lock_path):
            self._mend(_sound_size(path))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The operations from one on; the file is not opened where it ends with what was read last."""
        number, place = self._place if self._place[0] <= log_number_from else (0, 0)
        if os.stat(self.path).st_size == place:
            return
        with self.path.open("rb") as file:
            file.seek(place)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # another process is writing it, or has died of it
                operation = json.loads(line)
                number, place = number + 1, place + len(line)
                self._place = number, place
                if number > log_number_from:
                    yield operation

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write operations, all or none; what ends a trial is on the disk when this returns.

        What a trial has found so far outlives every process, and is found again where a machine loses it.
        """
        if self._gathered is not None:
            self._gathered += logs
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        ends = any(log.get("datetime_complete") for log in logs)
        with locked(self._lock_path):
            self._append(lines.encode(), ends)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the operations inside at once when they have all been given."""
        self._gathered = gathered = list[dict[str, Any]]()
        try:
            yield
        finally:
            self._gathered = None
        self.append_logs(gathered)

    def _append(self, data: bytes, ends: bool) -> None:
        """Write behind the last whole line."""
        try:
            with self.path.open("r+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                whole = _whole_size(file, size)
                if whole != size:
                    self._mend(whole)
                self._write(file.fileno(), whole, data, ends)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _write(self, handle: int, place: int, data: bytes, ends: bool) -> None:
        """Write at a place, the end of the file, or leave the file as it was."""
        try:
            os.lseek(handle, place, os.SEEK_SET)
            write_all(handle, data)
            if ends:
                os.fsync(handle)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, place)
            raise

    def _mend(self, sound: int) -> None:
        """Put what lies behind the last sound line aside, into a file beside the study."""
        if self.path.stat().st_size == sound:
            return
        with self.path.open("rb") as file:
            file.seek(sound)
            torn = file.read()
        with suppress(OSError), self.path.with_name(f"{self.path.name}.torn").open("ab") as aside:
            aside.write(torn + b"\n")
        os.truncate(self.path, sound)


def write_all(handle: int, data: bytes) -> None:
    """Write all of ``data``, however much the system takes at a time."""
    while data:
        data = data[os.write(handle, data) :]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file of a run's folder inside; waits for it.

    Raises:
        ArchError: it cannot be had, as where somebody has removed the folder.
    """
    with ExitStack() as inside:
        try:
            inside.enter_context(held(path))
        except OSError as error:
            raise unwritable(path, error) from None
        yield


def unwritable(path: Path, error: OSError) -> ArchError:
    """What to tell the user when the study or its folder cannot be written."""
    why = (error.strerror or str(error)).lower()
    return user_error(
        "study-not-written",
        f"`{path}` cannot be written: {why}",
        "make room or choose another folder with `--out`, then run the same command again: "
        "what is finished is kept",
    )


def _reachable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise unwritable(path, error) from None
    if not path.is_file():  # a device takes all and keeps nothing
        raise _foreign(path)


def _whole_size(file: RawIOBase, size: int) -> int:
    """Bytes up to the end of the last whole line of a file; its last byte is nearly always that."""
    step = 1
    while size:
        start = max(0, size - step)
        file.seek(start)
        end = (file.read(size - start) or b"").rfind(b"\n")
        if end >= 0:
            return start + end + 1
        size, step = start, 4096
    return 0


def _sound_size(path: Path) -> int:
    """Bytes up to the end of the last line that can be read; what is unsound must be the end."""
    sound, offset, broken = 0, 0, None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            offset += len(line)
            if not _is_operation(line):
                broken = broken or number
            elif broken:
                raise _damaged(path, broken)
            else:
                sound = offset
    if offset and not sound:
        raise _foreign(path)
    return sound


def _is_operation(line: bytes) -> bool:
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return False
    return isinstance(found, dict) and "op_code" in found


def _foreign(path: Path) -> ArchError:
    return user_error(
        "not-a-study",
        f"`{path}` is not a study of archdsl's",
        "name another folder with `--out`, or move that file away",
    )


def _damaged(path: Path, line: int) -> ArchError:
    return damaged(
        path, f"`{path}` cannot be read at line {line}, and there are sound lines behind it"
    )


def damaged(path: Path, what: str = "") -> ArchError:
    """What to tell the user of a study file that cannot be read; by default, of lines that do not agree."""
    return user_error(
        "damaged-study",
        what or f"`{path}` cannot be read: its lines are whole, and do not make a study together",
        "restore the file from a copy, or move it away to begin anew",
    )
