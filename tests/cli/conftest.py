"""Every command starts in a folder of its own, on a terminal without colours."""

import pytest
from commands import CLOSED, NEAT, SPACE, UGLY, WRONG


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path):
    texts = {"space": SPACE, "closed": CLOSED, "wrong": WRONG, "ugly": UGLY, "neat": NEAT}
    for name, text in texts.items():
        (tmp_path / f"{name}.arch").write_text(text)
    return tmp_path
