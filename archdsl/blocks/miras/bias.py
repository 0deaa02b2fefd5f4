"""Attentional biases: the inner objective a memory descends."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Component, Formula, Invalid, Kind, Real
from archdsl.blocks.equations import ARITHMETIC, ELEMENTWISE, Apply, Name, text, walk
from archdsl.kernels.learner.rule import Loss

Plain = tuple[Literal["dot", "l2"], int]
"""A bias of the fast families, and how many times as steep as theirs one is."""


class Bias(Component):
    """An inner loss of prediction and target; the base of all biases.

    A class says what it is ``called``, and ``fast`` where the fast families compute it.
    """

    kind: ClassVar[Kind] = "bias"
    called: ClassVar[str]
    fast: ClassVar[Plain | None] = None

    @property
    def loss(self) -> Loss:
        """As the learner family takes it: the form of its name."""
        return Loss(self.name)

    @property
    def plain(self) -> Plain | None:
        """The bias of the fast families that it is, and how many times as steep."""
        return self.fast

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return f"{self.called} bias"


class Dot(Bias):
    """``-⟨M(k), v⟩``: write what comes, whatever is there (Hebbian)."""

    name: ClassVar[str] = "dot"
    called: ClassVar[str] = "dot-product"
    fast: ClassVar[Plain | None] = ("dot", 1)


class L2(Bias):
    """``½‖M(k) - v‖²``: write the error (the delta rule).

    ``feedback = learned`` weighs what is corrected by a number a head in (0, 1): the error is
    ``v - M(σ(b) k)`` (Comba, arXiv 2506.02475).
    """

    name: ClassVar[str] = "l2"
    called: ClassVar[str] = "squared-error"
    fast: ClassVar[Plain | None] = ("l2", 1)
    feedback: Literal["full", "learned"] = "full"


class Lp(Bias):
    """``Σ |M(k) - v|^p``: with large ``p`` the largest error counts most (arXiv 2504.13173 §5.1).

    From ``p = 2`` on exactly; below, ``|e|`` is ``√(e² + 10⁻⁶)``, since the gradient has no slope at 0.
    """

    name: ClassVar[str] = "lp"
    p: Annotated[Real, Field(ge=1, le=4)] = Fraction(3)

    @property
    def loss(self) -> Loss:
        """Its power."""
        return Loss("lp", power=float(self.p))

    @property
    def plain(self) -> Plain | None:
        """``p = 2`` is twice the squared error."""
        return ("l2", 2) if self.p == 2 else None

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return f"l{self.p} bias"


class Huber(Bias):
    """The squared error while it is small, its size beyond ``delta``: outliers pull no harder.

    ``over = channel`` clips each channel's error, ``norm`` the error's length, ``mixed`` takes its sign
    where the length is above ``delta`` (Yaad, arXiv 2504.13173 eq. 25). ``delta = token`` is softplus of
    a projection of the token; the paper says only that it comes from the token.
    """

    name: ClassVar[str] = "huber"
    called: ClassVar[str] = "Huber"
    delta: Annotated[Real, Field(gt=0)] | Literal["token"] = Fraction(1)
    over: Literal["channel", "norm", "mixed"] = "channel"

    @property
    def loss(self) -> Loss:
        """Its form and threshold."""
        form = {"channel": "huber", "norm": "huber_norm", "mixed": "huber_mixed"}[self.over]
        if self.delta == "token":
            return Loss(form, token=True)
        return Loss(form, threshold=float(self.delta))


class Robust(Bias):
    """``max ½‖M(k) - v - d‖²`` over shifts ``d`` of the value no longer than ``shift``.

    ``½‖e‖² + shift ‖e‖`` and a constant (arXiv 2504.13173 §5.1, robust to value shifts).
    """

    name: ClassVar[str] = "robust"
    called: ClassVar[str] = "shift-robust"
    shift: Annotated[Real, Field(gt=0)] = Fraction(1, 10)

    @property
    def loss(self) -> Loss:
        """Its shift."""
        return Loss("robust", threshold=float(self.shift))


class KL(Bias):
    """The divergence of the value from the softmax of what the memory gives: cross-entropy.

    For values that are distributions (``value = softmax``); what is read is a distribution too.
    """

    name: ClassVar[str] = "kl"
    called: ClassVar[str] = "cross-entropy"


class Written(Bias):
    """A loss of the user's own: the sum over channels of an expression of ``prediction`` and ``target``.

    ``written(abs(prediction - target))``; elementwise functions and arithmetic, as in a ``cell``. Its
    gradient is that of the expression.
    """

    name: ClassVar[str] = "written"
    expression: Annotated[Any, Formula(("prediction", "target"))]

    def verify(self) -> None:
        """Elementwise, and about the prediction."""
        parts = list(walk(self.expression))
        calls = [part for part in parts if isinstance(part, Apply)]
        wide = next((c for c in calls if c.function not in {*ARITHMETIC, *ELEMENTWISE}), None)
        if wide is not None:
            what = f"a loss is elementwise, and `{text(wide)}` is not"
            raise self._refused(what, f"functions: {', '.join(ELEMENTWISE)}")
        if Name("prediction") not in parts:
            what = f"`{text(self.expression)}` does not depend on what the memory predicts"
            raise self._refused(
                what, "write `prediction` in it, such as `abs(prediction - target)`"
            )

    def _refused(self, what: str, instead: str) -> Invalid:
        return Invalid("written-loss", what, argument="expression", help=instead)

    @property
    def loss(self) -> Loss:
        """The expression."""
        return Loss("expression", expression=self.expression)

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return f"bias `{text(self.expression)}`"
