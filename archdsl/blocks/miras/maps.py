"""Retentions beyond a decay: maps from what gradients accumulate to the weights (mirror descent)."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archdsl.blocks.base import Real
from archdsl.blocks.miras.retention import Decay, Retention
from archdsl.kernels.learner.rule import Keep

Positive = Annotated[Real, Field(gt=0)]


class Mapped(Retention):
    """A map, and where asked a ``decay`` of what accumulates; the base of those below."""

    @property
    def forgets(self) -> Decay | None:
        """Its decay."""
        found: Decay | None = getattr(self, "decay", None)
        return found

    @property
    def keep(self) -> Keep:
        """As the learner family takes it."""
        raise AssertionError(f"{type(self).__name__} does not say what it is")

    @property
    def per(self) -> Literal["none", "constant", "head", "channel"]:
        """What its decay is one number for."""
        return "none" if self.forgets is None else self.forgets.per

    @property
    def trivial(self) -> bool:
        """Whether the map is none."""
        return False

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return f"{self.name} retention"


class Lq(Mapped):
    """Weights that are small in the q-norm: ``A`` accumulates, ``W`` follows from it.

    ``form = printed`` is the paper's ``W = A / ‖A‖_q^(q-2)`` (Moneta, arXiv 2504.13173 eq. 24);
    ``exact`` is the minimiser of the rule it is derived from,
    ``(q-1) sign(A) |A|^(p-1) / ‖A‖_p^(p-2)`` with ``p = q / (q-1)``: the two agree at ``q = 2`` only.
    Norms are those of a layer's weights, and count as ``floor`` where they are smaller, which keeps
    weights from growing without end as ``A`` goes to zero.
    """

    name: ClassVar[str] = "lq"
    q: Annotated[Real, Field(gt=1, le=16)] = Fraction(4)
    form: Literal["printed", "exact"] = "printed"
    floor: Positive = Fraction(1)
    decay: Decay | None = None

    @property
    def keep(self) -> Keep:
        """Its power."""
        form = "lq" if self.form == "exact" else "lq_printed"
        return Keep(form, self.per, power=float(self.q), floor=float(self.floor))

    @property
    def trivial(self) -> bool:
        """The map of ``q = 2`` is the identity."""
        return self.q == 2

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return f"l{self.q} retention"


class ElasticNet(Mapped):
    """Small steps that also pull weights to zero: ``l2`` shrinks them, ``l1`` takes a constant off.

    ``proximal`` is ``W = S_g(λ W - ηλ ∇)`` with ``λ = 1/(1 + η l2)``, ``g = ηλ l1`` and ``S`` the soft
    threshold (arXiv 2504.13173 eq. 21); within a chunk ``g`` adds up as the steps do. ``sum`` keeps all
    gradients and thresholds what they add up to by ``l1``.
    """

    name: ClassVar[str] = "elastic_net"
    l1: Annotated[Real, Field(ge=0, le=10)] = Fraction(1, 100)
    l2: Annotated[Real, Field(ge=0, le=10)] = Fraction(1, 100)
    form: Literal["proximal", "sum"] = "proximal"
    decay: Decay | None = None

    @property
    def keep(self) -> Keep:
        """Its penalties."""
        if self.form == "sum":
            return Keep("elastic_sum", self.per, sparse=float(self.l1))
        return Keep("elastic_net", "none", sparse=float(self.l1), ridge=float(self.l2))

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return "elastic-net retention"


class Simplex(Mapped):
    """Weights that are distributions: ``W = total · softmax(A)`` (Memora, arXiv 2504.13173 eq. 26).

    ``log W`` decays and moves against the gradient, which is what the Kullback-Leibler divergence to
    the weights before gives. A distribution is over the inputs of an output; the paper names neither
    the axis nor the total.
    """

    name: ClassVar[str] = "kl"
    total: Positive = Fraction(1)
    decay: Decay | None = None

    @property
    def keep(self) -> Keep:
        """A softmax."""
        return Keep("simplex", self.per, total=float(self.total))

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return "KL retention"


class FDivergence(Mapped):
    """Weights that stay near the last ones in an f-divergence: ``W = W' ⊙ g(-ζ - η∇)``.

    ``g`` inverts the slope of ``f``, and ``ζ`` keeps a distribution over the inputs of an output
    (arXiv 2504.13173 §5.2). The divergence is from the weights the chunk began with.
    """

    name: ClassVar[str] = "f_divergence"
    f: Literal["kl", "chi_squared", "reverse_kl", "hellinger"] = "chi_squared"
    total: Positive = Fraction(1)

    @property
    def keep(self) -> Keep:
        """Its f."""
        return Keep("divergence", self.per, total=float(self.total), potential=self.f)

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return f"{self.f} divergence retention"


class Bregman(Mapped):
    """``W = (F')⁻¹(F'(W') - η∇)``: weights between 0 and 1 (``logistic``) or -1 and 1 (``tanh``).

    ``F`` is the sum of a potential of each weight (arXiv 2504.13173 §5.2).
    """

    name: ClassVar[str] = "bregman"
    potential: Literal["logistic", "tanh"] = "tanh"
    decay: Decay | None = None

    @property
    def keep(self) -> Keep:
        """Its potential."""
        return Keep("bregman", self.per, potential=self.potential)

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return "Bregman retention"


class Sphere(Mapped):
    """Slots at unit length behind every chunk: gradient steps on a sphere.

    The renormalised orthogonal update is Riemannian gradient descent (Lattice, arXiv 2504.05646
    prop. 3.1).
    """

    name: ClassVar[str] = "sphere"

    @property
    def keep(self) -> Keep:
        """A normalisation."""
        return Keep("sphere", self.per)

    @property
    def words(self) -> str:
        """As ``archdsl show`` says it."""
        return "unit-length retention"
