"""Fourier and cosine transforms over time and channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from archdsl.blocks.nn.base import Site, exactly, heads_apart, widened
from archdsl.blocks.ops import fourier as ops


class FourierMix(Site):
    """See ``ops.FourierMix``."""

    op: ops.FourierMix

    def __init__(self, op: ops.FourierMix) -> None:
        super().__init__(op)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` → the same."""
        if not x.numel():  # the transform takes no empty batch
            return x
        with exactly(x):
            heads = heads_apart(widened(x), self.op.heads).transpose(1, 2)
            y = self._fourier(heads) if self.op.form == "dft" else self._cosine(heads)
        return y.transpose(1, 2).flatten(-2).to(x.dtype)

    def _fourier(self, x: Tensor) -> Tensor:
        y: Tensor = torch.fft.fft2(x).real
        return y * math.sqrt(1 / (x.shape[-1] * x.shape[-2])) if self.op.unitary else y

    def _cosine(self, x: Tensor) -> Tensor:
        inner = cosine(x, unitary=self.op.unitary)
        return cosine(inner.mT, unitary=self.op.unitary).mT


def cosine(x: Tensor, *, unitary: bool) -> Tensor:
    """The cosine transform of type II over the last axis: ``2 Σ x_n cos(π k (2n + 1) / 2N)``.

    A Fourier transform of the even extension: the values, then the values backwards. The unitary one
    is over ``√2N``, its first coefficient over ``2√N``.
    """
    count = x.shape[-1]
    spectrum = torch.fft.fft(torch.cat([x, x.flip(-1)], -1))[..., :count]
    place = torch.arange(count, device=x.device, dtype=x.dtype)
    angle = place * (math.pi / (2 * count))
    y: Tensor = spectrum.real * angle.cos() + spectrum.imag * angle.sin()
    if not unitary:
        return y
    first = (place == 0).to(x.dtype)
    return y * (1 - (1 - math.sqrt(0.5)) * first) * math.sqrt(1 / (2 * count))
