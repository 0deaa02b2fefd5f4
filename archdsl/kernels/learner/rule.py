"""What a memory that learns at test time is, as data: its store, loss, keeping and learner.

Free of torch, so that costs and messages read the same description that the tensors follow. One value a
name in each table of `activations`, `biases` and `retentions`; a point is any four of them.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Per = Literal["none", "constant", "head", "channel"]


@dataclass(frozen=True)
class Store:
    """What is written a head.

    `layers`: M(x) = [x +] norm(W_n f(… f(W_1 x))), widths[0] key channels, widths[-1] value channels,
    f the activation; one layer without a norm is a matrix. `slots`: widths[0] slots of widths[-1]
    channels, each read at unit length: M(x) = sum_j x_j s_j / |s_j|.
    """

    widths: tuple[int, ...]
    form: Literal["layers", "slots"] = "layers"
    activation: str = "none"
    residual: bool = False
    norm: Literal["none", "layer", "rms"] = "none"
    bias: bool = False
    learned: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """[out, in] of each layer's weights; a bias is one more input, which is always 1."""
        pairs = zip(self.widths[1:], self.widths[:-1], strict=True)
        return tuple((out, into + self.bias) for out, into in pairs)

    @property
    def linear(self) -> bool:
        """Whether it is a plain matrix."""
        plain = self.norm == "none" and not self.residual and not self.bias
        return self.form == "layers" and len(self.widths) == 2 and plain

    @property
    def size(self) -> int:
        """Numbers a head."""
        return sum(out * into for out, into in self.shapes)


@dataclass(frozen=True)
class Loss:
    """The inner objective of prediction p and target v; `biases` has the equations.

    `threshold` is Huber's delta or the robust bias's shift, `token` says that the token gives it.
    `expression` is a user's own, opaque here.
    """

    form: str = "l2"
    power: float = 2.0
    threshold: float = 1.0
    token: bool = False
    expression: Any = None


@dataclass(frozen=True)
class Keep:
    """What stays: a decay, and the map from what is accumulated to the weights (`retentions`)."""

    form: str = "none"
    decay: Per = "none"
    power: float = 2.0
    floor: float = 1.0
    sparse: float = 0.0
    ridge: float = 0.0
    total: float = 1.0
    potential: str = "logistic"

    @property
    def fed_back(self) -> bool:
        """Whether the mapped weights, not what was accumulated, are what the next chunk starts with."""
        return self.form in ("elastic_net", "sphere", "divergence")

    @property
    def mapped(self) -> bool:
        """Whether weights differ from what is accumulated."""
        return self.form != "none"


@dataclass(frozen=True)
class Learn:
    """How the objective is descended.

    Args:
        form: `gd`; `momentum` S_t = theta_t S_{t-1} - eta_t g_t; `muon` with S_t orthogonalised by
            `newton` steps of Newton-Schulz; `closed` is the exact minimiser of a ridge regression.
        chunk: writes whose gradients are taken at the memory the chunk started with.
        window: latest writes whose weighted gradients one step sums (the Omega rule).
        average: whether step t of a chunk is 1/t plus a learned number times the sum so far (TTT).
        bound: `error` cuts steps that, to first order, would leave a larger error than they found.
        clip: the largest norm of a write's gradient.
        decay_first: whether gradients see the memory behind the chunk's first decay.
        writes: writes a token; it is read behind the last.
        rate: what the step size is one number for: a head, or a key channel.
        ridge: of the closed form.
        largest: step size of a write, at most.
    """

    form: Literal["gd", "momentum", "muon", "closed"] = "gd"
    chunk: int = 1
    window: int = 1
    average: bool = False
    bound: Literal["none", "error"] = "none"
    clip: float | None = None
    decay_first: bool = True
    writes: int = 1
    rate: Literal["head", "channel"] = "head"
    newton: int = 5
    ridge: float = 1.0
    largest: float = 1.0

    @property
    def shared(self) -> int:
        """Gradients taken at one memory whose steps add up."""
        return 1 if self.average else self.chunk * self.window

    @property
    def bounds(self) -> bool:
        """Whether steps are cut by the error; orthogonal ones have a size of their own."""
        return self.bound == "error" and self.form != "muon"

    @property
    def cuts(self) -> bool:
        """Whether steps are cut at all."""
        return self.bounds or self.clip is not None

    @property
    def carries(self) -> bool:
        """Whether there is a momentum."""
        return self.form in ("momentum", "muon")


@dataclass(frozen=True)
class Rule:
    """A point of the Miras space (arXiv 2504.13173) in the `learner` family; `words` name its parts."""

    store: Store
    loss: Loss = field(default_factory=Loss)
    keep: Keep = field(default_factory=Keep)
    learn: Learn = field(default_factory=Learn)
    words: tuple[str, ...] = ()

    @property
    def dual(self) -> bool:
        """Whether a chunk is read without forming a token's weights: all its updates are linear."""
        plain = not self.keep.mapped and self.keep.decay != "channel"
        return plain and self.learn.form in ("gd", "momentum") and self.store.form == "layers"
