"""A convolution whose filters come with the tokens, as one operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from archdsl.blocks.op import Buffer, Op


class DynamicConvolution(Op):
    """``y_t = Σ_k softmax(w_t)_k x_{t-K+1+k}`` a head: x ``[B, T, width]``, w ``[B, T, heads · kernel]``.

    Every head has one filter a token (arXiv 1901.10430 §4). Causal, or centred and zero beyond the
    ends. Decoding keeps the last ``kernel - 1`` inputs. Taps are multiplied elementwise, which no
    counter of matrix products counts.
    """

    module: ClassVar[str] = "archdsl.blocks.nn.dynamic:DynamicConvolution"
    inputs: ClassVar[int] = 2
    width: int
    heads: int
    kernel: int
    causal_: bool = True

    @property
    def causal(self) -> bool:
        """As asked."""
        return self.causal_

    def state(self, length: int) -> Mapping[str, Buffer]:
        """The inputs within reach."""
        if not self.causal_ or self.kernel == 1:
            return {}
        return {"inputs": Buffer((self.kernel - 1, self.width), "model")}
