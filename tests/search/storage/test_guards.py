"""What keeps processes on a database server apart."""

import tempfile
import threading
import time
from pathlib import Path

import pytest

from archdsl.search.storage.databases import open_database
from archdsl.search.storage.guards import ServerGuard
from tests.studies.servers import installed, mysql, postgresql


class Impatient:
    """A connection to a server that gives up waiting for a lock a few times, as MySQL does."""

    def __init__(self, failures: int) -> None:
        self.answers = [0] * failures + [1, 1]
        self.asked: list[str] = []

    def execute(self, statement, given):
        self.asked.append(str(statement))
        return self

    def scalar(self):
        return self.answers[len(self.asked) - 1]


class FakeEngine:
    class dialect:
        name = "mysql"

    def dispose(self):
        pass


def test_a_lock_that_a_server_did_not_give_is_asked_for_again():
    guard = ServerGuard(FakeEngine(), "study")
    guard._connection = Impatient(failures=2)
    with guard.exclusive():
        assert ["GET_LOCK" in each for each in guard._connection.asked] == [True] * 3
    assert "RELEASE_LOCK" in guard._connection.asked[-1]


SERVERS = [
    pytest.param(mysql, "mariadbd", "pymysql", id="mysql"),
    pytest.param(postgresql, "initdb", "psycopg", id="postgresql"),
]


@pytest.mark.parametrize(("server", "program", "driver"), SERVERS)
def test_a_server_lets_in_one_process_at_a_time(server, program, driver):
    pytest.importorskip(driver)
    if installed(program) is None:
        pytest.skip(f"`{program}` is not installed")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        both = [open_database(url, "study", lease=4) for _ in range(2)]
        first, second = (database.guard for database in both)
        inside = []

        def other() -> None:
            with second.exclusive():
                inside.append("second")

        with first.exclusive():
            waiting = threading.Thread(target=other)
            waiting.start()
            time.sleep(0.3)
            inside.append("first")
        waiting.join(10)
        assert inside == ["first", "second"]
        for database in both:
            database.guard.close()
            database.release()
