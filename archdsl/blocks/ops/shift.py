"""Token shift: every reader of a stream sees its own mix of the token and the one before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from archdsl.blocks.op import Buffer, Op, Shape, Type, Work


class TokenShift(Op):
    """``x_t + μ ⊙ (x_{t-1} - x_t)`` for each of several readers: ``[B, T, D]`` → one a reader.

    With a ``rank`` the token decides: ``μ + W₂ tanh(W₁ (x_t + μ₀ ⊙ (x_{t-1} - x_t)))`` in place of
    ``μ`` (RWKV-6, arXiv 2404.05892 eq. 14-16; RWKV-7, arXiv 2503.14456 eq. 3, has no rank).

    Args:
        width: of the stream.
        names: of the readers.
        exponents: ``μ`` starts at ``1 - (i/D)^(exponent · r^power)``, with ``r`` from 1 for the first
            layer towards 0 for the last.
        offsets: what is taken off that in the last layer, in proportion in those before it.
        rank: of the map that lets the token decide; it starts at zero.
        power: see ``exponents``.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.shift:TokenShift"
    width: int
    names: tuple[str, ...]
    exponents: tuple[float, ...]
    offsets: tuple[float, ...]
    rank: int | None = None
    power: int = 1

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """One a reader, each like the input."""
        return (inputs[0],) * len(self.names)

    def parameters(self) -> Mapping[str, Shape]:
        """``mix [n, D]``; with a rank also ``mix_input [D]``, ``down [n·R, D]``, ``up [n, D, R]``."""
        count = len(self.names)
        mix: dict[str, Shape] = {"mix": (count, self.width)}
        if self.rank is None:
            return mix
        return mix | {
            "mix_input": (self.width,),
            "down": (count * self.rank, self.width),
            "up": (count, self.width, self.rank),
        }

    def state(self, length: int) -> Mapping[str, Buffer]:
        """The last token's stream."""
        return {"last": Buffer((self.width,), "model")}

    def flops(self, work: Work) -> int:
        """Two matrix products where the token decides."""
        return 4 * work.tokens * self.width * len(self.names) * (self.rank or 0)
