"""Commands when something goes wrong, and in processes of their own."""

import errno
import os
import pty
import subprocess
import sys

import pytest
from commands import failed, run, succeeded

import archdsl
from archdsl.diagnostics import ArchError, Diagnostic

# --- what goes wrong ------------------------------------------------------------------------------


def broken(error):
    def check(path):
        raise error

    return check


def test_a_bug_of_ours_is_one_line(files, monkeypatch):
    monkeypatch.setattr(
        archdsl, "check", broken(ZeroDivisionError("division by zero")), raising=False
    )
    result = failed("check", "closed.arch")
    [line] = result.stderr.splitlines()
    assert line.startswith(
        "error: this is a bug in archdsl (ZeroDivisionError: division by zero at "
    )
    assert isinstance(run("--debug", "check", "closed.arch").exception, ZeroDivisionError)


def test_an_output_that_fills_while_a_command_runs_is_no_bug(files, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(archdsl, "check", broken(full), raising=False)
    assert failed("check", "closed.arch").stderr == (
        f"error: the output cannot be written: {os.strerror(errno.ENOSPC)}\n"
    )


def test_ctrl_c_is_status_130(files, monkeypatch):
    monkeypatch.setattr(archdsl, "check", broken(KeyboardInterrupt()), raising=False)
    assert failed("check", "closed.arch", status=130).stderr == "interrupted\n"


def test_a_diagnostic_without_a_place_is_shown(files, monkeypatch):
    monkeypatch.setattr(
        archdsl, "check", broken(ArchError(Diagnostic("full", "no room"))), raising=False
    )
    assert "error[full]: no room" in failed("check", "closed.arch").stderr


def test_version():
    assert succeeded("--version").stdout == f"archdsl {archdsl.__version__}\n"


# --- real processes -------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from archdsl.cli import main; main()"]
PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "100"}


def process(*arguments, **options):
    settings = {"capture_output": True, "env": PATHS, "timeout": 60, **options}
    return subprocess.run([*COMMAND, *arguments], check=False, **settings)


def test_a_process_exits_with_the_status(files):
    assert process("check", "closed.arch").returncode == 0
    wrong = process("check", "wrong.arch")
    assert (wrong.returncode, wrong.stderr) == (1, b"")
    assert process("check").returncode == 2


def test_python_runs_the_package(files):
    """``python -m archdsl`` is the same command."""
    command = [sys.executable, "-m", "archdsl", "check", "closed.arch"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "1 file checked, no errors\n")


def test_no_colour_in_a_pipe_and_some_on_a_terminal(files):
    assert b"\x1b[" not in process("check", "wrong.arch").stdout
    assert b"\x1b[" in on_terminal("check", "wrong.arch")
    assert b"\x1b[" not in on_terminal("check", "wrong.arch", NO_COLOR="1")


def on_terminal(*arguments, **variables):
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as reading:
        settings = {**PATHS, "TERM": "xterm-256color", **variables}
        started = subprocess.Popen([*COMMAND, *arguments], stdout=theirs, env=settings)
        os.close(theirs)
        found = b""
        try:
            while part := reading.read(65536):
                found += part
        except OSError:
            pass  # the other end of a terminal is gone
        started.wait(60)
    return found


def test_a_reader_that_goes_away_is_no_mistake(files):
    started = subprocess.Popen(
        [*COMMAND, "components"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=PATHS
    )
    started.stdout.close()
    said = started.stderr.read()
    started.wait(60)
    started.stderr.close()
    assert said == b""


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_standard_streams_may_be_closed(files, closed):
    """As a service manager or `>&-` leaves them."""
    result = process(
        "check", "space.arch", capture_output=False, stderr=subprocess.PIPE,
        preexec_fn=lambda: [os.close(each) for each in closed],
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_one_line(files):
    with open("/dev/full", "wb") as full:
        result = process(
            "count", "space.arch", stdout=full, capture_output=False, stderr=subprocess.PIPE
        )
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
