"""Learners beyond a gradient step: momentum, a window of writes, Newton-Schulz, the closed form."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Builder, Real, Value
from archdsl.blocks.miras.learner import GradientDescent, Learner
from archdsl.blocks.ops.dense import Activate, Linear
from archdsl.blocks.ops.memory import DecayGate
from archdsl.kernels.learner.rule import Learn

Form = Literal["gd", "momentum", "muon"]
"""How a step follows from gradients (``Learn.form``)."""

Window = Annotated[int, Field(ge=1, le=256)]


class Windowed(GradientDescent):
    """A learner that may sum the gradients of several writes, each weighed by its token.

    ``window`` is how many of the latest; a class says which ``form`` its steps take.
    """

    form: ClassVar[Form] = "gd"
    called: ClassVar[str]
    window: Window = 1

    @property
    def learn(self) -> Learn:
        """With a form and a window."""
        return replace(super().learn, form=self.form, window=self.window)

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return self.called + (f" over {self.window} writes" if self.window > 1 else "")

    def lower_weight(self, build: Builder, stream: Value, heads: int) -> Value:
        """Weights in (0, 1) of writes within the window ``[B, T, heads]``."""
        logits = self._logits(build, stream, heads, "weight")
        return build.add(Activate(function="sigmoid"), logits, name="weight_gate")

    def _logits(self, build: Builder, stream: Value, heads: int, name: str) -> Value:
        """A number a write whose sigmoid starts at 0.88 ``[B, T, heads]``."""
        width = heads * self.steps
        op = Linear(width_in=stream.type.width, width_out=width, bias=True, bias_init=2.0)
        return build.add(op, stream, name=name)


class Momentum(Windowed):
    """``S_t = θ_t S_{t-1} - η_t ∇``, ``M_t = α_t M_{t-1} + S_t`` (Titans, arXiv 2501.00663 eq. 9-14).

    ``θ`` is the sigmoid of a projection of the token, which starts at 0.88; the paper calls it ``η``
    and the step size ``θ``. ``window`` sums the gradients of the latest writes.
    """

    name: ClassVar[str] = "momentum"
    form: ClassVar[Form] = "momentum"
    called: ClassVar[str] = "momentum"

    def lower_momentum(self, build: Builder, stream: Value, heads: int) -> Value:
        """The logarithm of the momentum ``[B, T, heads]``."""
        logits = self._logits(build, stream, heads, "momentum")
        width = logits.type.width
        gate = DecayGate(width=width, heads=width, form="sigmoid")
        return build.add(gate, logits, name="momentum_gate")


class Omega(Windowed):
    """``M_t = α_t M_{t-1} - η_t Σ_i γ_i ∇ℓ(k_i, v_i)`` over the last ``window`` writes.

    The Omega rule (arXiv 2505.23735 eq. 9, 10): ``window = 1`` is the delta rule. ``γ`` is the sigmoid of
    a projection of each token. The paper gives no one window; 8 is ours.
    """

    name: ClassVar[str] = "omega"
    called: ClassVar[str] = "Omega rule"
    window: Window = 8


class Muon(Momentum):
    """``S_t = θ_t S_{t-1} - Σ γ ∇``, ``M_t = α_t M_{t-1} + η_t NS(S_t)`` (ATLAS, arXiv 2505.23735 §5).

    ``NS`` turns each layer's momentum towards the nearest orthogonal matrix by ``newton`` steps of
    Newton-Schulz. The paper prints the gradient's sign and the step size in two places; here the step
    goes down the gradient, and ``η`` stands outside.
    """

    name: ClassVar[str] = "muon"
    form: ClassVar[Form] = "muon"
    called: ClassVar[str] = "Muon"
    newton: Annotated[int, Field(ge=1, le=10)] = 5

    @property
    def learn(self) -> Learn:
        """With orthogonal steps."""
        return replace(super().learn, newton=self.newton)


class ClosedForm(Learner):
    """The exact minimiser of all writes so far, each weighed by its ``rate``, with ``ridge ‖M‖²``.

    Recursive least squares (as a layer: arXiv 2309.05858). For a matrix and the squared error; the state
    is the sums of key and of value products.
    """

    name: ClassVar[str] = "closed_form"
    rate: Literal["fixed", "head", "token"] = "token"
    ridge: Annotated[Real, Field(gt=0, le=1000)] = Fraction(1)

    @property
    def learn(self) -> Learn:
        """The closed form."""
        return Learn("closed", ridge=float(self.ridge))
