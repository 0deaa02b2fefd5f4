"""Architectures as the language spells them: ``built("embed(dim = 8, vocab = 5) gru lm_head")``."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

import archdsl
from archdsl import Arch, ArchError
from archdsl.compiler.models.build import compile_arch
from archdsl.compiler.models.model import Model


@cache
def arch(body: str) -> Arch:
    """The closed architecture ``model { body }``."""
    return archdsl.loads(f"model {{ {body} }}").sample(0)


def complaints(body: str) -> list[str]:
    """The identifiers of what is wrong with ``model { body }``, which must be refused."""
    with pytest.raises(ArchError) as caught:
        archdsl.loads(f"model {{ {body} }}")
    return [diagnostic.id for diagnostic in caught.value.diagnostics]


def built(body: str, **how: Any) -> Model:
    """Its model, freshly built; ``stage`` stops the compiler after a pass."""
    return compile_arch(arch(body), **how)
