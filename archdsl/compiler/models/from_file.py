"""From a file to a model; torch is imported when there is one to build."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING

from archdsl.compiler.reading.sources import Bound
from archdsl.compiler.spaces.loading import load

if TYPE_CHECKING:
    from archdsl.compiler.models.model import Model


def compile(
    path: str | PathLike[str],
    *,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    bindings: Mapping[str, Bound] | None = None,
) -> Model:
    """The model of a file: of its one architecture, or of one drawn from its space.

    Args:
        path: of the file.
        seed: of the draw and of the weights.
        device: where its parameters live.
        dtype: of its parameters.
        bindings: see :func:`archdsl.load`.

    Raises:
        ArchError: with every mistake found in the file.
    """
    return load(path, bindings=bindings).sample(seed).compile(device, dtype, seed)
