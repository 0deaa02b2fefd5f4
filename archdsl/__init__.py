"""archdsl: a text language for sequence-model architectures and a compiler to PyTorch modules.

``load(path)`` gives a :class:`Space`, ``space.sample(seed)`` an :class:`Arch`, ``arch.compile()`` a
:class:`Model`, which is a ``torch.nn.Module``; ``load_model(path)`` gives that of a checkpoint. Importing
the package imports neither torch nor the compiler: each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archdsl.compiler.models.checkpoint import load_model
    from archdsl.compiler.models.from_file import compile
    from archdsl.compiler.models.model import Model
    from archdsl.compiler.spaces.arch import Arch
    from archdsl.compiler.spaces.check import check
    from archdsl.compiler.spaces.loading import load, loads
    from archdsl.compiler.spaces.space import Space
    from archdsl.diagnostics import ArchError, Diagnostic

__version__ = "0.1.0"

__all__ = [
    "Arch",
    "ArchError",
    "Diagnostic",
    "Model",
    "Space",
    "check",
    "compile",
    "load",
    "load_model",
    "loads",
]

_HOME = {
    "Arch": "archdsl.compiler.spaces.arch",
    "ArchError": "archdsl.diagnostics",
    "Diagnostic": "archdsl.diagnostics",
    "Model": "archdsl.compiler.models.model",
    "Space": "archdsl.compiler.spaces.space",
    "check": "archdsl.compiler.spaces.check",
    "compile": "archdsl.compiler.models.from_file",
    "load": "archdsl.compiler.spaces.loading",
    "load_model": "archdsl.compiler.models.checkpoint",
    "loads": "archdsl.compiler.spaces.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
