"""Recurrent memories: the Miras point as one operation, and the families that compute it.

``Memory`` says what is meant; the compiler's recognition pass replaces it by the family that computes
exactly that, and records why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from archdsl.blocks.op import Buffer, Op, Shape, Type, Work
from archdsl.kernels.decay import flops as decay
from archdsl.kernels.delta import flops as delta

Per = Literal["none", "constant", "head", "channel"]
"""What a decay is one number for: nothing, a fixed number a head, a token and head, … and channel."""

NN = "archdsl.blocks.nn.memory:"


class Recurrence(Op):
    """What every memory operation has: heads, widths a head, a decay and a write rate.

    Inputs in order: query, key, value ``[B, T, H·K or H·V]``; then, where the attributes say so, the
    log decay ``[B, T, H]`` or ``[B, T, H·K]`` and the write rate ``[B, T, H]``.
    """

    heads: int
    key_dim: int
    value_dim: int
    decay: Per = "none"
    rate: bool = False
    scale: float | None = None
    lower: float | None = None

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """What is read: ``[B, T, H·V]``."""
        return (replace(inputs[0], width=self.heads * self.value_dim, dtype="model"),)

    def state(self, length: int) -> Mapping[str, Buffer]:
        """One matrix a head, in float32."""
        return {"memory": Buffer((self.heads, self.key_dim, self.value_dim))}


class Memory(Recurrence):
    """A point of the Miras space (arXiv 2504.13173): memory × bias × retention × learner.

    For a ``vector`` memory ``key_dim`` is 1, there is one head, ``value_dim`` channels, and the inputs
    are the key (a write strength a channel), the value and the decay a channel.
    """

    memory: Literal["vector", "matrix"]
    bias: Literal["dot", "l2"]
    normaliser: Literal["none", "sum"] = "none"

    @property
    def point(self) -> tuple[str, str, str, str]:
        """Memory, bias, retention and learner, as the language writes them."""
        retention = "none" if self.decay == "none" else f"decay(per = {self.decay})"
        return self.memory, self.bias, retention, "gd(rate = token)" if self.rate else "gd"


class DecayMemory(Recurrence):
    """``S_t = D_t S_{t-1} + k_t v_tᵀ``, read ``o_t = scale · S_tᵀ q_t``."""

    module: ClassVar[str] = NN + "DecayMemory"
    normaliser: Literal["none", "sum"] = "none"

    def parameters(self) -> Mapping[str, Shape]:
        """None: a constant decay is fixed."""
        return {}

    def state(self, length: int) -> Mapping[str, Buffer]:
        """The matrix, and the sum of keys where it normalises."""
        matrix = dict(super().state(length))
        keys = {"normaliser": Buffer((self.heads, self.key_dim))}
        return matrix | (keys if self.normaliser == "sum" else {})

    def flops(self, work: Work) -> int:
        """What the form that runs multiplies; see the kernel family."""
        sizes = (self.heads, self.key_dim, self.value_dim)
        normalised = self.normaliser != "none"
        if work.steps == 1:
            return decay.step_flops(work.batch, *sizes, normalised=normalised)
        return decay.flops(
            work.batch,
            work.steps,
            *sizes,
            per_channel=self.decay == "channel",
            normalised=normalised,
        )


class DeltaMemory(Recurrence):
    """``S_t = (I - β k kᵀ) D_t S_{t-1} + β k vᵀ``: one gradient step on ``½‖Sᵀk - v‖²`` a token."""

    module: ClassVar[str] = NN + "DeltaMemory"

    def flops(self, work: Work) -> int:
        """What the form that runs multiplies; see the kernel family."""
        sizes = (self.heads, self.key_dim, self.value_dim)
        if work.steps == 1:
            return delta.step_flops(work.batch, *sizes)
        return delta.flops(work.batch, work.steps, *sizes, per_channel=self.decay == "channel")


class ScanMemory(Op):
    """``h_t = a_t ⊙ h_{t-1} + k_t ⊙ v_t`` a channel; inputs key, value, and the log decay if any."""

    module: ClassVar[str] = NN + "ScanMemory"
    width: int
    decay: Per = "channel"

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The states."""
        return (replace(inputs[1], dtype="model"),)

    def state(self, length: int) -> Mapping[str, Buffer]:
        """One number a channel, in float32."""
        return {"memory": Buffer((self.width,))}


class DecayGate(Op):
    """A log decay (≤ 0, float32) from a projection ``[B, T, width]``.

    ``softplus``: ``-exp(A) · softplus(x + b)`` with A a head and b a number of the projection
    (Mamba-2, arXiv 2405.21060). ``sigmoid``: ``log(lower + (upper - lower) · σ(x)) / temperature``
    (GLA, arXiv 2312.06635; HGRN, arXiv 2311.04823). With ``step`` the second output is the step size
    ``softplus(x + b)``.
    """

    module: ClassVar[str] = NN + "DecayGate"
    width: int
    heads: int
    form: Literal["softplus", "sigmoid"]
    temperature: float = 1.0
    lower: float = 0.0
    upper: float = 1.0
    step: bool = False
    largest: float = 16.0

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The log decay, and the step size where asked."""
        gate = replace(inputs[0], dtype="float32")
        return (gate, gate) if self.step else (gate,)

    def parameters(self) -> Mapping[str, Shape]:
        """``A_log [heads]`` and ``bias [width]`` of the softplus form."""
        return {"A_log": (self.heads,), "bias": (self.width,)} if self.form == "softplus" else {}


class Complement(Op):
    """``1 - exp(g)`` of a log decay: a key tied to the decay (HGRN2, arXiv 2404.07904)."""

    module: ClassVar[str] = NN + "Complement"

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """In the model's dtype."""
        return (replace(inputs[0], dtype="model"),)


class FixedRate(Op):
    """A write rate that does not depend on the token: 1, or learned a head in ``(0, maximum)``.

    ``[B, T, …]`` → ``[B, T, heads]``.
    """

    module: ClassVar[str] = NN + "FixedRate"
    heads: int
    learned: bool
    maximum: float = 1.0

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """One number a head."""
        return (replace(inputs[0], width=self.heads, dtype="float32"),)

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [heads]`` where learned."""
        return {"weight": (self.heads,)} if self.learned else {}
