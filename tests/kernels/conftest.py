"""Fresh memory is full of NaN in every kernel test: a read before a write shows."""

from typing import Any

import pytest
import torch

torch.set_num_threads(1)


def _poisoned(original: Any) -> Any:
    def allocate(*args: Any, **kwargs: Any) -> torch.Tensor:
        fresh = original(*args, **kwargs)
        if fresh.is_floating_point() or fresh.is_complex():
            with torch.no_grad():
                fresh.fill_(float("nan"))
        return fresh

    return allocate


@pytest.fixture(autouse=True)
def nan_memory(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Fill what torch.empty, empty_like and new_empty return, unless a module has KEEP_MEMORY."""
    if not getattr(request.module, "KEEP_MEMORY", False):
        monkeypatch.setattr(torch, "empty", _poisoned(torch.empty))
        monkeypatch.setattr(torch, "empty_like", _poisoned(torch.empty_like))
        monkeypatch.setattr(torch.Tensor, "new_empty", _poisoned(torch.Tensor.new_empty))
