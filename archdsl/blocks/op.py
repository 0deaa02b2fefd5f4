"""Operations: what a lowered architecture is made of.

A component of the language says what the user may write; it *lowers* to operations, and an operation
says everything the compiler needs without torch: its output types, its parameters and state (exact),
its matrix-product FLOPs, and where its ``nn.Module`` lives. A fused operation is one more operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

DType = Literal["model", "float32", "int64"]
Shape = tuple[int, ...]

BYTES = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int64": 8,
}


Form = Literal["text", "every", "packed"]


@dataclass(frozen=True)
class Routed:
    """How a value stands inside a container that routes tokens to memories or experts.

    Args:
        within: the container's name.
        copies: memories (or experts), the shared ones included.
        chosen: copies a token goes to, the shared ones included.
        form: ``text`` is one row a token ``[B, T, D]``; ``every`` one a token and copy
            ``[B, T·copies, D]``; ``packed`` one a token and copy it goes to, sorted by (copy, sequence)
            ``[1, chosen·B·T, D]``.
        own: whether each memory has projections of its own.
        neighbours: what a convolution in front of a memory sees: the text, or what the memory took.
        idle: what a memory does with a token that goes elsewhere: keep its state, or decay it.
        written: whether a memory stands before here.
        refusing: whether memories may refuse tokens, which are then rows of a sequence of their own.
    """

    within: str
    copies: int
    chosen: int
    form: Form = "text"
    own: bool = True
    neighbours: Literal["text", "routed"] = "text"
    idle: Literal["keep", "decay"] = "keep"
    written: bool = False
    refusing: bool = False

    def work(self, work: Work) -> Work:
        """What is asked of an operation on this form, in place of one row a token."""
        if self.form == "every":
            return replace(work, batch=work.batch * self.copies)
        if self.form == "packed" and work.steps > 1:
            packed = work.batch * self.copies + self.refusing
            return replace(work, batch=1, length=work.tokens * self.chosen, packed=packed)
        return replace(work, batch=work.batch * self.chosen) if self.form == "packed" else work


@dataclass(frozen=True)
class Type:
    """What flows along an edge: ``[B, T, width]`` features, or ``[B, T]`` tokens (width = vocabulary).

    Args:
        kind: ``features``, ``tokens`` or ``logits``.
        width: channels a position; for tokens the number of symbols.
        dtype: ``model`` is the dtype the module is compiled for; gates are ``float32``.
        streams: residual streams carried side by side ``[B, T, streams, width]``; 1 is plain.
        embedding: symbols and width of the table the stream began in, for a tied head.
        routed: how it stands inside ``mom`` or ``moe``.
    """

    kind: Literal["features", "tokens", "logits"]
    width: int
    dtype: DType = "model"
    streams: int = 1
    embedding: tuple[int, int] | None = None
    routed: Routed | None = None

    def __str__(self) -> str:
        streams = f"×{self.streams}" if self.streams > 1 else ""
        dtype = "" if self.dtype == "model" else f":{self.dtype}"
        form = "" if self.form == "text" else f" {self.form}"
        # Tokens of no task: nobody has said how many symbols there are.
        width = f"[{self.width}{streams}]" if self.width else ""
        return f"{self.kind}{width}{dtype}{form}"

    @property
    def form(self) -> Form:
        """How its rows stand; outside of routed containers one a token."""
        return "text" if self.routed is None else self.routed.form

    def work(self, work: Work) -> Work:
        """What is asked of the operation that gives this."""
        return work if self.routed is None else self.routed.work(work)

    @property
    def copies(self) -> int:
        """States kept side by side by an operation that gives this."""
        return 1 if self.routed is None or self.routed.form == "text" else self.routed.copies


@dataclass(frozen=True)
class Buffer:
    """One tensor of a decoding state, a sequence: shape, dtype and what a fresh one is filled with."""

    shape: Shape
    dtype: DType = "float32"
    fill: float = 0.0

    def bytes(self, model_dtype: str) -> int:
        """Size of one sequence's share, in bytes; a float64 model keeps float32 states in float64."""
        follows = self.dtype == "model" or (self.dtype == "float32" and model_dtype == "float64")
        return prod(self.shape) * BYTES[model_dtype if follows else self.dtype]


Mode = Literal["train", "prefill", "decode"]


@dataclass(frozen=True)
class Work:
    """How much is asked of an operation: ``batch`` sequences of ``length`` tokens.

    In ``decode`` one token is computed for each sequence after ``length - 1`` earlier ones. Of one row
    ``packed`` says how many sequences are packed in it.
    """

    length: int
    batch: int = 1
    mode: Mode = "prefill"
    packed: int = 0

    @property
    def steps(self) -> int:
        """Positions computed in each sequence."""
        return 1 if self.mode == "decode" else self.length

    @property
    def tokens(self) -> int:
        """Positions computed, over the whole batch."""
        return self.batch * self.steps


class Op(BaseModel):
    """One typed operation with frozen attributes. Subclasses are data; see the module docstring.

    ``module`` is the import path of the ``nn.Module`` class, built as ``cls(op)``. A stateful module's
    ``forward(*inputs, state, context)`` returns ``(outputs, state)``; a stateless one's
    ``forward(*inputs)`` returns its outputs. An operation with regions is built as
    ``cls(op, regions)`` with one module for each copy of weights, unless its class is itself a region
    module (see ``nn.structure``); it is always called as stateful.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    module: ClassVar[str] = ""
    inputs: ClassVar[int] = 1
    transparent: ClassVar[bool] = False
    """Whether the parameters' names already say all, so that the node's own last name is left out."""

    @classmethod
    def kind(cls) -> str:
        """The operation's name in printed graphs: the class name in snake case."""
        name = cls.__name__
        return "".join(
            f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name)
        )

    def outputs(self, inputs: Sequence[Type]) -> tuple[Type, ...]:
        """Types of the outputs; by default the first input's."""
        return (inputs[0],)

    def parameters(self) -> Mapping[str, Shape]:
        """Shapes of the parameters the operation owns, by name in its ``state_dict``."""
        return {}

    @property
    def estimated(self) -> bool:
        """Whether its FLOPs depend on what tokens are, and :meth:`flops` takes a likely case."""
        return False

    @property
    def common(self) -> Mapping[str, Shape]:
        """Parameters that all operations of a model with the same ones share, by name."""
        return {}

    @property
    def active(self) -> int:
        """How many of its own parameters one token uses."""
        return sum(map(prod, self.parameters().values()))

    def state(self, length: int) -> Mapping[str, Buffer]:
        """State of one sequence after ``length`` tokens; empty for a stateless operation."""
        return {}

    def flops(self, work: Work) -> int:
        """Forward FLOPs in matrix products (2 a multiply-add), as PyTorch's counter counts them."""
        return 0

    def activations(self, work: Work) -> int:
        """Elements kept for the backward pass, besides inputs that are other operations' outputs."""
        return 0

    @property
    def causal(self) -> bool:
        """Whether output ``t`` depends on inputs up to ``t`` only."""
        return True

    @property
    def stateful(self) -> bool:
        """Whether it carries something along time."""
        return bool(self.state(1))

    def weights(self, regions: int) -> tuple[int, ...]:
        """Which region each copy of weights is of, for an operation with ``regions`` regions."""
        return tuple(range(regions))

    def runs(self, regions: int) -> tuple[int, ...]:
        """Which copy of weights each run uses, in order; state is kept a run, not a copy."""
        return tuple(range(len(self.weights(regions))))

    @property
    def trained(self) -> Op:
        """The operation as far as gradients flow through it: what the backward pass costs."""
        return self

    @property
    def attributes(self) -> str:
        """``name=value`` of everything that is not the default, for printing."""
        return ", ".join(
            f"{name}={getattr(self, name)}"
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.default
        )
