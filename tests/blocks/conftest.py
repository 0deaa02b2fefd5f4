"""Layers are tested on the fused forms that large tensors take, small as those of the tests are."""

import pytest

from archdsl.kernels.shell import choice, products


@pytest.fixture(autouse=True)
def fused_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor is too small for a fused form, nor for the faster of the two matrix libraries."""
    monkeypatch.setattr(choice, "FEW", 0)
    monkeypatch.setattr(products, "WORTHWHILE", 0)
