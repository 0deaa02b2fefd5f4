"""Several residual streams side by side: how a branch reads them, and how it writes to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from archdsl.blocks.op import Op, Shape, Type, Work

NN = "archdsl.blocks.nn.streams:"


class Expand(Op):
    """``[B, T, D]`` → ``streams`` equal streams ``[B, T, N, D]``."""

    module: ClassVar[str] = NN + "Expand"
    streams: int

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The same on several streams."""
        return (replace(inputs[0], streams=self.streams),)


class Collapse(Op):
    """Streams ``[B, T, N, D]`` → their mean or sum ``[B, T, D]``."""

    module: ClassVar[str] = NN + "Collapse"
    reduce: Literal["mean", "sum"]

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """One stream."""
        return (replace(inputs[0], streams=1),)


class Connect(Op):
    """What a branch reads of the streams, what they carry on, and how the branch is written back.

    From ``H [B, T, N, D]``: ``Σ_i m_i H_i [B, T, D]``, ``Σ_i r_ij H_i [B, T, N, D]`` and ``w [B, T, N]``.
    The base of hyper-connections and of their constrained form, which differ in ``m``, ``r`` and ``w``.
    """

    streams: int
    width: int

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The branch's input, the streams carried on, the weights of writing."""
        one = replace(inputs[0], streams=1)
        return one, inputs[0], replace(one, width=self.streams)

    def flops(self, work: Work) -> int:
        """Mixing the streams, and what the mixing depends on."""
        mixing = 2 * self.streams**2 * self.width
        return work.tokens * (mixing + self.product)

    @property
    def product(self) -> int:
        """FLOPs a token of the product that the mixing depends on."""
        return 0


class HyperConnect(Connect):
    """Hyper-connections (arXiv 2409.19606 eq. 10-13): ``m``, ``w`` and ``r`` learned, and moved by ``H``.

    ``m = M + s tanh(W_m Ĥ)``, ``r = R + s tanh(W_r Ĥ)``, ``w = B + s' tanh(W_w Ĥ)``, ``Ĥ`` the layer
    norm of each stream, without a gain of its own; row ``i`` of ``r`` comes from stream ``i``. At the
    start ``W = 0``, ``B = 1``, ``R`` the identity, and ``M`` takes stream ``k mod N`` for branch ``k``.
    """

    module: ClassVar[str] = NN + "HyperConnect"
    dynamic: bool = True
    tanh: bool = True

    def parameters(self) -> Mapping[str, Shape]:
        """``read [N]``, ``write [N]``, ``carry [N, N]``; ``dynamic [N + 2, D]`` and ``scale [2]``."""
        n = self.streams
        fixed: dict[str, Shape] = {"read": (n,), "write": (n,), "carry": (n, n)}
        moved: dict[str, Shape] = {"moving": (n + 2, self.width), "scale": (2,)}
        return fixed | (moved if self.dynamic else {})

    @property
    def product(self) -> int:
        """One projection of each stream."""
        return 2 * self.streams * self.width * (self.streams + 2) if self.dynamic else 0


class ManifoldConnect(Connect):
    """Manifold-constrained hyper-connections (arXiv 2512.24880 eq. 6-9).

    Of ``v̂``, the RMS norm over all streams at once: ``m = σ(a₁ φ₁ v̂ + b₁)``, ``w = 2σ(a₂ φ₂ v̂ + b₂)``, and
    ``rᵀ`` the exponential of ``a₃ φ₃ v̂ + b₃`` after ``rounds`` of Sinkhorn-Knopp, columns before rows, so
    that what a stream carries on is a mean. At the start ``φ = 0`` and ``a = 0.01``; ``b`` makes ``m`` a
    mean of the streams, ``w`` one, and ``r`` all but the identity. With ``dynamic`` off there is no ``φ``.
    """

    module: ClassVar[str] = NN + "ManifoldConnect"
    rounds: int = 20
    dynamic: bool = True

    @property
    def maps(self) -> int:
        """Numbers a token that the mixing needs."""
        return self.streams * (self.streams + 2)

    def parameters(self) -> Mapping[str, Shape]:
        """``bias [N (N + 2)]``; ``moving [N (N + 2), N D]`` and ``scale [3]``."""
        found: dict[str, Shape] = {"bias": (self.maps,)}
        if self.dynamic:
            found |= {"moving": (self.maps, self.streams * self.width), "scale": (3,)}
        return found

    @property
    def product(self) -> int:
        """One projection of all streams."""
        return 2 * self.maps * self.streams * self.width if self.dynamic else 0


class Disperse(Op):
    """``H_j + w_j y``: a branch's output ``[B, T, D]`` written to streams ``[B, T, N, D]``."""

    module: ClassVar[str] = NN + "Disperse"
    inputs: ClassVar[int] = 3

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The streams."""
        return (inputs[1],)
