"""Recurrent memories: the Miras point as one operation, and the families that compute it.

``Memory`` says what is meant; the compiler's recognition pass replaces it by the family that computes
exactly that, and records why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Annotated, ClassVar, Literal

from pydantic import SkipValidation

from archdsl.blocks.op import Buffer, Op, Shape, Type, Work
from archdsl.blocks.ops.learner import rule_ports
from archdsl.kernels.decay import flops as decay
from archdsl.kernels.delta import flops as delta
from archdsl.kernels.learner.rule import Rule

Per = Literal["none", "constant", "head", "channel"]
"""What a decay is one number for: nothing, a fixed number a head, a token and head, … and channel."""

Start = Literal["none", "zeros", "steps", "open", "ramp", "zigzag"]
"""How the bias of a decay starts."""

NN = "archdsl.blocks.nn.memory:"


class Recurrence(Op):
    """What every memory operation has: heads, widths a head, a decay, and how it writes and reads.

    Args:
        heads: matrices side by side.
        key_dim: key channels a head.
        value_dim: value channels a head.
        decay: what has its own decay.
        rate: whether writes have a rate a head; in the ``general`` form it is a key of its own.
        scale: of what is read; ``key_dim^-1/2`` where not given.
        lower: a proven lower bound of the decay a step.
        normaliser: what is read is divided by nothing, the read sum of keys, or the mLSTM's maximum.
        read: whether a token reads behind its own write or before it.
        bonus: whether a token that reads before its write also reads itself, weighted a key channel.
        steps: writes a token, one after the other.
        erase: whether what is corrected is read by a key of its own.
        general: the erase reads the memory before its decay, and ``rate`` is the key it is written by.
    """

    heads: int
    key_dim: int
    value_dim: int
    decay: Per = "none"
    rate: bool = False
    scale: float | None = None
    lower: float | None = None
    normaliser: Literal["none", "sum", "max"] = "none"
    read: Literal["after", "before"] = "after"
    bonus: bool = False
    steps: int = 1
    erase: bool = False
    general: bool = False

    @property
    def ports(self) -> tuple[str, ...]:
        """What the inputs are, in order.

        ``query``, ``key``, ``value`` ``[B, T, H·K or H·V]`` (``steps`` times as wide but for the
        query), the log ``decay`` ``[B, T, H]`` or ``[B, T, H·K]``, the logarithm of the ``input``
        gate ``[B, T, H]``, the write ``rate`` ``[B, T, H]`` or a key, the ``erase`` key.
        """
        given = {
            "decay": self.decay in ("head", "channel"),
            "input": self.normaliser == "max",
            "rate": self.rate,
            "erase": self.erase,
        }
        return ("query", "key", "value", *[name for name, there in given.items() if there])

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """What is read: ``[B, T, H·V]``."""
        return (replace(inputs[0], width=self.heads * self.value_dim, dtype="model"),)

    def parameters(self) -> Mapping[str, Shape]:
        """``bonus [heads, key_dim]`` where there is one; a constant decay is fixed."""
        return {"bonus": (self.heads, self.key_dim)} if self.bonus else {}

    def state(self, length: int) -> Mapping[str, Buffer]:
        """One matrix a head, the sum of keys where it normalises, its maximum; in float32."""
        found = {"memory": Buffer((self.heads, self.key_dim, self.value_dim))}
        if self.normaliser != "none":
            found["normaliser"] = Buffer((self.heads, self.key_dim))
        if self.normaliser == "max":
            found["maximum"] = Buffer((self.heads,))
        return found


class Memory(Recurrence):
    """A point of the Miras space (arXiv 2504.13173): memory × bias × retention × learner.

    For a ``vector`` memory ``key_dim`` is 1, there is one head, ``value_dim`` channels, and the inputs
    are the key (a write strength a channel), the value and the decay a channel.

    A point beyond a step on one of the two biases has its ``rule`` and the inputs of a ``LearnerMemory``.
    """

    memory: Literal["vector", "matrix"]
    bias: Literal["dot", "l2"]
    rule: Annotated[Rule | None, SkipValidation] = None

    @property
    def ports(self) -> tuple[str, ...]:
        """Those of its family."""
        return super().ports if self.rule is None else rule_ports(self.rule)

    @property
    def point(self) -> tuple[str, str, str, str]:
        """Memory, bias, retention and learner, as the language writes them."""
        if self.rule is not None:
            memory, bias, retention, learner = self.rule.words
            return memory, bias, retention, learner or "gd"
        retention = "none" if self.decay == "none" else f"decay(per = {self.decay})"
        return self.memory, self.bias, retention, "gd(rate = token)" if self.rate else "gd"


class DecayMemory(Recurrence):
    """``S_t = D_t S_{t-1} + k_t v_tᵀ``, read ``o_t = scale · S_tᵀ q_t``.

    With ``read = before`` it is ``scale · (S_{t-1} + diag(u) k_t v_tᵀ)ᵀ q_t`` (RWKV-6, arXiv 2404.05892
    eq. 19), ``u`` the ``bonus``.
    """

    module: ClassVar[str] = NN + "DecayMemory"

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
    """``S_t = (I - β k kᵀ) D_t S_{t-1} + β k vᵀ``: one gradient step on ``½‖Sᵀk - v‖²`` a token.

    ``steps`` are several such writes behind one decay (DeltaProduct, arXiv 2502.10297); an ``erase``
    key ``e`` gives ``β k eᵀ`` in place of ``β k kᵀ`` (Comba, arXiv 2506.02475). ``general`` is
    ``S_t = D_t S_{t-1} + b (eᵀ S_{t-1}) + k vᵀ`` with ``b`` the rate (RWKV-7, arXiv 2503.14456).
    """

    module: ClassVar[str] = NN + "DeltaMemory"

    def flops(self, work: Work) -> int:
        """What the form that runs multiplies; see the kernel family."""
        sizes = (self.heads, self.key_dim, self.value_dim)
        if work.steps == 1:
            return delta.step_flops(work.batch, *sizes, rank=self.steps, general=self.general)
        return delta.flops(
            work.batch,
            work.steps,
            *sizes,
            rank=self.steps,
            per_channel=self.decay == "channel",
            general=self.general,
        )


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
    (GLA, arXiv 2312.06635; HGRN, arXiv 2311.04823). ``exponential``: ``-exp(x + b)`` (RWKV-6,
    arXiv 2404.05892). ``bounded``: ``log(lower) · σ(x + b)`` (RWKV-7, arXiv 2503.14456). With ``step``
    the second output is the step size ``softplus(x + b)``.

    Args:
        width: of the projection.
        heads: over which the width is shared out.
        form: as above.
        temperature: divides the log decay of ``sigmoid``.
        lower: least decay a step.
        upper: largest decay a step.
        deepening: whether the lower bound is learned a channel and starts larger in deeper layers.
        step: whether the step size is asked for.
        smallest: least rate ``exp(A)`` at the start.
        largest: largest rate at the start.
        start: how the bias starts; ``none`` is no bias. ``steps`` gives Mamba's step sizes, ``open``
            is 3 to 6 over the heads (xLSTM), ``ramp`` and ``zigzag`` are RWKV-6's and RWKV-7's.
        cap: bounds the biased logits softly, ``cap · tanh(x / cap)``.
    """

    module: ClassVar[str] = NN + "DecayGate"
    width: int
    heads: int
    form: Literal["softplus", "sigmoid", "exponential", "bounded"]
    temperature: float = 1.0
    lower: float = 0.0
    upper: float = 1.0
    deepening: bool = False
    step: bool = False
    smallest: float = 1.0
    largest: float = 16.0
    start: Start = "none"
    cap: float | None = None

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The log decay, and the step size where asked."""
        gate = replace(inputs[0], dtype="float32")
        return (gate, gate) if self.step else (gate,)

    def parameters(self) -> Mapping[str, Shape]:
        """``A_log [heads]`` of the softplus form, ``bias`` and ``bound [width]`` where asked."""
        rates: dict[str, Shape] = {"A_log": (self.heads,)} if self.form == "softplus" else {}
        bias: dict[str, Shape] = {"bias": (self.width,)} if self.start != "none" else {}
        return rates | bias | ({"bound": (self.width,)} if self.deepening else {})


class RunningSoftmax(Op):
    """A decay and a key that keep a softmax over all tokens so far (LightNet, arXiv 2405.21022).

    Of logits ``x [B, T, width]``, with ``z_t = log Σ_{s≤t} exp(x_s)``: the log decay ``z_{t-1} - z_t``
    (0 at the first token) and the key ``exp(x_t - z_t)``.
    """

    module: ClassVar[str] = NN + "RunningSoftmax"
    width: int

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """The log decay in float32, and the key."""
        return (replace(inputs[0], dtype="float32"), replace(inputs[0], dtype="model"))

    def state(self, length: int) -> Mapping[str, Buffer]:
        """``z`` a channel."""
        return {"total": Buffer((self.width,), fill=-inf)}


class RemovalKeys(Op):
    """The three keys of an in-context learning rate a channel (RWKV-7, arXiv 2503.14456 eq. 7-10).

    Of a key ``k`` and rates ``a``, both ``[B, T, H·K]``: the write key ``k ⊙ (1 + (a - 1) ⊙ α)``, the
    erase key ``-κ`` and the key ``κ ⊙ a`` it is written by, where ``κ`` is ``k ⊙ ξ`` at unit length in
    each head. ``ξ`` is ``removal``, ``α`` is ``mix``.
    """

    module: ClassVar[str] = NN + "RemovalKeys"
    inputs: ClassVar[int] = 2
    width: int
    heads: int

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """Three keys."""
        return (replace(inputs[0], dtype="model"),) * 3

    def parameters(self) -> Mapping[str, Shape]:
        """``removal [width]`` and ``mix [width]``."""
        return {"removal": (self.width,), "mix": (self.width,)}


class ReadBonus(Op):
    """``y + (Σ q ⊙ k ⊙ ρ) v`` a head: the current token, added behind the norm (RWKV-7, eq. 20).

    Inputs: what is read ``[B, T, H·V]``, query and key ``[B, T, H·K]``, value ``[B, T, H·V]``.
    """

    module: ClassVar[str] = NN + "ReadBonus"
    inputs: ClassVar[int] = 4
    heads: int
    key_dim: int

    def parameters(self) -> Mapping[str, Shape]:
        """``weight [heads, key_dim]``."""
        return {"weight": (self.heads, self.key_dim)}


class ValueResidual(Op):
    """``v + (v_first - v) ⊙ σ(b + W₂ W₁ x)``, ``v_first`` the first such layer's (RWKV-7, eq. 6).

    The first layer to run hands its values on by a ``FirstValue`` in place of this.
    """

    module: ClassVar[str] = NN + "ValueResidual"
    inputs: ClassVar[int] = 2
    width: int
    width_in: int
    rank: int

    def parameters(self) -> Mapping[str, Shape]:
        """``bias [width]``, ``down [rank, in]``, ``up [width, rank]``."""
        return {
            "bias": (self.width,),
            "down": (self.rank, self.width_in),
            "up": (self.width, self.rank),
        }

    def flops(self, work: Work) -> int:
        """Two matrix products."""
        return 2 * work.tokens * self.rank * (self.width_in + self.width)


class FirstValue(Op):
    """Hands the values to every ``ValueResidual`` of that width behind it, and gives them as they are."""

    module: ClassVar[str] = NN + "FirstValue"
    width: int


class SoftCap(Op):
    """``cap · tanh(x / cap)``."""

    module: ClassVar[str] = NN + "SoftCap"
    cap: float


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
