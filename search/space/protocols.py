"""What the search asks of a space and of an architecture: the compiler's public interface, no more.

The compiler's :class:`Space` and :class:`Arch` fit as they are, and so may anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from archdsl.blocks.asking import SearchSection, Task, TrainSection


class Site(Protocol):
    """A place of the spec where a choice is made."""

    @property
    def path(self) -> str:
        """Stable and readable: ``model.stack.linear.memory``."""

    @property
    def size(self) -> int:
        """How many alternatives there are."""

    @property
    def kind(self) -> str:
        """``choice`` among unordered alternatives, or ``range`` of ordered numbers."""

    def text(self, index: int) -> str:
        """An alternative as it is written."""


class Cost(Protocol):
    """What an architecture costs, known before anything is built."""

    @property
    def params(self) -> int:
        """Number of parameters."""

    def flops(self, length: int, mode: Any) -> float:
        """Floating-point operations."""

    def state_bytes(self, length: int) -> int:
        """Bytes of the decoding state."""


class Arch(Protocol):
    """A closed architecture."""

    @property
    def assignment(self) -> Mapping[str, int]:
        """Site path → index of the alternative taken, for the active sites."""

    @property
    def choices(self) -> Mapping[str, str]:
        """Site path → the alternative as it is written."""

    @property
    def hash(self) -> str:
        """Equal for two spellings of one architecture."""

    @property
    def text(self) -> str:
        """The closed ``.arch`` file."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """What it is asked to learn, by name."""

    @property
    def train(self) -> TrainSection:
        """How it is trained."""

    @property
    def cost(self) -> Cost:
        """What it costs."""

    @property
    def requirements(self) -> Sequence[Any]:
        """Its constraints; see ``archdsl.compiler.reading.quantities.Requirement``."""

    def compile(self, device: Any = "cpu", dtype: Any = "float32", seed: int = 0) -> Any:
        """The model: an ``nn.Module`` of tokens."""


class Space(Protocol):
    """All architectures a file describes."""

    @property
    def text_hash(self) -> str:
        """Changes when the file's meaning does."""

    @property
    def search(self) -> SearchSection:
        """The ``search`` section."""

    @property
    def objectives(self) -> Sequence[Any]:
        """What to make large or small; see ``archdsl.compiler.reading.quantities.Objective``."""

    def to_json(self) -> str:
        """The space as text, of which the compiler makes it again."""

    def count(self) -> int:
        """How many architectures there are, constraints aside."""

    def arch(self, assignment: Mapping[str, int]) -> Any:
        """The architecture of an assignment."""

    def decide(self, choose: Callable[[Any], int]) -> Any:
        """The architecture of a chooser that is asked once for each active site, in fixed order."""

    def sample(self, seed: int) -> Any:
        """A uniform draw under the constraints."""

    def feasible(self, arch: Any) -> bool:
        """Whether it keeps every ``require``."""

    def mutate(self, arch: Any, seed: int) -> Any:
        """A feasible neighbour: one choice drawn again, and what that makes active."""

    def crossover(self, a: Any, b: Any, seed: int) -> Any:
        """A feasible child: each choice from one of the two."""
