"""Every file of ``specs/zoo`` is one small language model that trains and decodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import archdsl

ZOO = sorted((Path(__file__).parents[2] / "specs" / "zoo").glob("*.arch"))

STD = Path(archdsl.__file__).parent / "blocks" / "std"


def test_every_named_mixer_has_an_architecture() -> None:
    named = {path.stem for path in STD.glob("*.arch")}
    assert {path.stem for path in ZOO} >= {*named, "attention", "transformer"}


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_it_is_one_short_file(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 30
    space = archdsl.load(path)
    assert space.count() == 1
    again = archdsl.loads(space.sample(0).text)
    assert again.sample(0).hash == space.sample(0).hash


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_it_trains_a_step_and_decodes(path: Path) -> None:
    model = archdsl.load(path).sample(0).compile()
    tokens = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    before = model.loss(tokens[:, :-1], tokens[:, 1:])
    before.backward()
    optimizer.step()
    with torch.no_grad():
        after = model.loss(tokens[:, :-1], tokens[:, 1:])
        assert bool(after < before.detach())
        _, state = model.prefill(tokens[:, :23], model.init_state(2))
        logits, _ = model.step(tokens[:, 23], state)
        torch.testing.assert_close(logits, model(tokens)[:, -1], rtol=1e-3, atol=1e-3)
