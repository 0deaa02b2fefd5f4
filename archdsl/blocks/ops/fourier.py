"""Transforms over time and channels as one operation."""

from __future__ import annotations

from typing import ClassVar, Literal

from archdsl.blocks.op import Op


class FourierMix(Op):
    """``[B, T, width]`` → the same: a two-dimensional transform of every head's ``[T, width / heads]``.

    ``dft`` is the real part of the discrete Fourier transform; ``dct`` is the cosine transform of type
    II, ``2 Σ x_n cos(π k (2n + 1) / 2N)`` along each axis. It runs as a fast transform, whose
    ``O(T log T)`` operations are no matrix product and so are not counted.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.fourier:FourierMix"
    width: int
    heads: int = 1
    form: Literal["dft", "dct"] = "dft"
    unitary: bool = False

    @property
    def causal(self) -> bool:
        """Every output sees every input."""
        return False
