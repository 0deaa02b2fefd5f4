"""A process as another one is: just started, or compiling."""

import gc
from functools import _lru_cache_wrapper

import pytest
import torch
from torch._dynamo.trace_rules import get_torch_obj_rule_map


def forget() -> None:
    """Empty archdsl's caches: what others found out must not help a model that is compiled at once."""
    for found in gc.get_objects():
        if type(found) is _lru_cache_wrapper and found.__module__.startswith("archdsl"):
            found.cache_clear()


def pretend_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that a graph is being compiled, for code that asks.

    Dynamo notes which function is which when it is first used; it must have seen the true one before.
    """
    get_torch_obj_rule_map()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
