"""The diagonal recurrence as written, one token at a time: `h_t = a_t * h_{t-1} + b_t`.

The core of minGRU and minLSTM (arXiv 2410.01201), HGRN (2311.04823), LRU (2303.06349), RG-LRU
(2402.19427), S4D (2206.11893), S5 (2208.04933), Mamba's S6 (2312.00752) and GateLoop (2311.01927).
"""

from torch import Tensor

from archdsl.kernels.common import in_time


def reference(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return h [B, T, ...] and the last h [B, ...]; a, b [B, T, ...], `state` [B, ...] is the h before."""
    outputs = []
    for factor, write in zip(a.unbind(1), b.unbind(1), strict=True):
        state = factor * state + write
        outputs.append(state)
    return in_time(outputs, b), state
