"""Files of a run's folder: written whole or not at all, with a message where that fails."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from archdsl.search.storage.journal import unwritable


def write_text(path: Path, text: str) -> None:
    """Write a file, with its folder; a file that is there already is replaced whole.

    Raises:
        ArchError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(text.encode())
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        remove(partial)


def copy(source: Path, target: Path) -> None:
    """Copy a file; the target is replaced whole.

    Raises:
        ArchError: it cannot be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError as error:
        raise unwritable(target, error) from None
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Remove a file if it is there and may be removed."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def ending(folder: Path, *suffixes: str) -> list[Path]:
    """The files of a folder whose names end so; none where there is no such folder."""
    with suppress(OSError):
        return [folder / name for name in os.listdir(folder) if name.endswith(suffixes)]
    return []
