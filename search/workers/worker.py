"""The search's side of a worker process: requests with a deadline, and what a dead worker means."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from archdsl.diagnostics import ArchError, Diagnostic
from archdsl.search.errors import user_error
from archdsl.search.storage.journal import unwritable

LOADER = "archdsl.search.workers.jobs:load_closed"

STARTING = 300.0
"""Seconds a worker may take to start: importing torch from a cold disk is slow."""

PROGRAM = "from archdsl.search.workers.jobs import main; main()"

Watch = Callable[[Mapping[str, Any]], None]


class Failure(Exception):
    """A candidate failed, and the search goes on.

    Args:
        reason: ``out-of-memory``, ``diverged``, ``timeout``, ``killed``, ``crashed`` or ``error``.
        message: what happened, in a sentence.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason, self.message = reason, message
        super().__init__(f"{reason}: {message}")


class Worker:
    """A process that scores and trains; started when it is first needed, and again when it died.

    Args:
        log: file for what it prints.
        loader: ``module:function`` that makes an architecture of a closed text.
        threads: of torch; ``None`` leaves them to torch.
        memory: bytes it may allocate; ``None`` takes most of what is free.
        space: the space as JSON, so that candidates need not be parsed; ``None`` parses each one's text.
        device: where candidates will be trained; ``None`` leaves that to the worker.
    """

    def __init__(
        self, log: Path, loader: str = LOADER, threads: int | None = None,
        memory: int | None = None, space: str | None = None, device: str | None = None,
    ) -> None:  # fmt: skip
        self.log = log
        self.about: Mapping[str, Any] = {}
        self._options = {
            "loader": loader, "threads": threads, "memory": memory, "space": space, "device": device,
        }  # fmt: skip
        self._process: subprocess.Popen[str] | None = None
        self._messages: queue.Queue[Mapping[str, Any] | None] = queue.Queue()

    def start(self) -> None:
        """Start the process without waiting for it: torch loads while the search does other things."""
        self.about = {}
        self._messages = queue.Queue()
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
                encoding="utf-8", env=environment(), start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        self._send(self._options)
        reader = threading.Thread(
            target=_read, args=(self._process.stdout, self._messages), daemon=True
        )
        reader.start()

    def request(
        self, request: Mapping[str, Any], timeout: float, watch: Watch | None = None
    ) -> Mapping[str, Any]:
        """Have something done.

        Args:
            request: what; see :class:`archdsl.search.workers.jobs.Jobs`.
            timeout: seconds until the worker is killed.
            watch: sees every message of progress.

        Raises:
            Failure: the candidate failed.
            ArchError: the machine did: a worker that cannot start, a full disk.
        """
        self._ready()
        self._send(request)
        deadline = time.monotonic() + timeout
        while True:
            message = self._next(deadline, timeout)
            if message["kind"] != "progress":
                return self._judged(message)
            if watch is not None:
                watch(message)

    def stop(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                _close(stream)
            self._process = None

    def _ready(self) -> None:
        if self._process is None:
            self.start()
        if self.about:
            return
        try:
            message = self._messages.get(timeout=STARTING)
        except queue.Empty:
            message = None
        if message is None:
            self.stop()
            raise _not_started(self.log)
        if not message["usable"]:
            self.stop()
            raise _unusable_device(str(self._options["device"]))
        self.about = message

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None

    def _next(self, deadline: float, timeout: float) -> Mapping[str, Any]:
        try:
            message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            self.stop()
            raise Failure("timeout", f"it took longer than {timeout:g} s") from None
        if message is None:
            raise self._died()
        return message

    def _judged(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        if message["kind"] == "disk":
            raise unwritable(
                Path(message["path"]), OSError(message["errno"], os.strerror(message["errno"]))
            )
        if message["kind"] == "failure":
            if message["reason"] == "out-of-memory":
                self.stop()
            raise Failure(message["reason"], message["message"])
        return message

    def _died(self) -> Failure:
        assert self._process is not None
        status = self._process.wait()
        self.stop()
        if status == -signal.SIGKILL:
            return Failure("killed", "its process was killed, as the system does without memory")
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        return Failure("crashed", f"its process ended with {name}")


def _read(stream: IO[str], messages: queue.Queue[Mapping[str, Any] | None]) -> None:
    """Pass messages on until the stream ends, then ``None``."""
    try:
        for line in stream:
            messages.put(json.loads(line))
    except ValueError:
        pass  # half a line of a killed process, or a pipe that `stop` closed: the end, as `None` says
    messages.put(None)


def _close(stream: IO[str] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except OSError:
        pass  # what was still to be sent to a process that is no more


def environment() -> dict[str, str]:
    """Ours, with modules found where we find them."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _unusable_device(device: str) -> ArchError:
    return user_error(
        "unusable-device",
        f"nothing can be trained on `{device}` here",
        "leave `--device` out, or name one that PyTorch can use on this machine: `--device cpu`",
    )


def _not_started(log: Path) -> ArchError:
    lines = log.read_text(errors="replace").strip().splitlines()
    return ArchError(
        Diagnostic(
            id="no-worker",
            message="the process that trains candidates did not start",
            help=f"see `{log}`",
            notes=(lines[-1],) if lines else (),
        )
    )
