"""The closed equations of a ``cell``: what is left of its body when every choice is made.

Arithmetic and named functions over names. ``x`` is the input, ``x_conv`` what a short convolution makes
of it; a state's name means its value at the previous step until it is assigned; ``linear(a, b, …)`` is
``W_a a + W_b b + …`` with weights of its own; ``parameter(start)`` is one learned number a channel, whose
initial values are themselves an equation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

INPUTS = ("x", "x_conv")
"""What a cell is given; the second is the first where it has no convolution."""

ARITHMETIC = ("add", "sub", "mul", "div", "neg")

ELEMENTWISE: dict[str, int] = {
    "sigmoid": 1,
    "tanh": 1,
    "relu": 1,
    "silu": 1,
    "gelu": 1,
    "softplus": 1,
    "exp": 1,
    "expm1": 1,
    "log": 1,
    "cos": 1,
    "sin": 1,
    "sqrt": 1,
    "abs": 1,
    "leaky_relu": 1,
    "elu1": 1,
    "max": 2,
    "min": 2,
}
"""Elementwise functions of the language's cells and how many arguments each takes."""

DRAWS: dict[str, int] = {
    "uniform": 2, "normal": 0, "linspace": 2, "index": 0, "hippo": 0, "s4d_lin": 0, "s4d_inv": 0,
}  # fmt: skip
"""What only the start of a ``parameter`` may call, and how many arguments each takes.

Uniform between two numbers, normal, evenly spaced from one number to another, ``0, 1, …``, and
frequencies of complex states, of ``N`` the ``N/2`` that are not conjugates: the positive ones of
HiPPO-LegS's normal part (arXiv 2208.04933 §3.2; S4D-LegS) in rising order, S4D-Lin's ``π n`` and S4D-Inv's
``N/π (N/(2n + 1) - 1)`` (arXiv 2206.11893 §4.1).
"""

LINEAR_OPTIONS = (
    "bias", "diagonal", "blocks", "copies", "rank", "norm", "init", "bias_init", "gain",
)  # fmt: skip
"""``linear(…, bias = false)``; ``diagonal`` is one weight a channel (``a ⊙ h``), ``blocks`` a block a
head, ``rank`` a product of two thin matrices, ``copies`` gives one number a copy in place of a channel.
``norm`` is an RMS norm with a gain behind every matrix, or between two thin ones.
``init`` is normal or uniform with the variance (or bound) of one over the inputs, or zeros; ``bias_init``
is the same for the bias, by default zeros; ``gain`` multiplies both."""

PARAMETER_OPTIONS = ("copies",)
"""``copies = true`` is one number a channel and copy."""

INITIALISATIONS = ("normal", "uniform", "zeros")
"""Of the weights of a ``linear``."""

MARK = "mark"
"""An option the compiler puts on what owns weights, to tell it from an equal one; never printed."""

OWNERS = ("linear", "parameter")
"""Functions with weights of their own."""

FUNCTIONS = (*ELEMENTWISE, "linear", "parameter", "sum", "norm", *DRAWS)
"""Every function an equation may call; ``sum`` is over a channel's copies."""

ARGUMENTS: dict[str, tuple[int, int | None]] = {
    **{name: (count, count) for name, count in (ELEMENTWISE | DRAWS).items()},
    "linear": (1, None),
    "parameter": (0, 1),
    "sum": (1, 1),
    "norm": (1, 1),
}
"""How many arguments each function takes, at least and at most."""

Setting = bool | int | str | Fraction
"""A named setting of a function."""


@dataclass(frozen=True)
class Constant:
    """A number; ``number`` is it as tensors take it, kept, for every step asks."""

    value: Fraction
    number: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", float(self.value))


@dataclass(frozen=True)
class Name:
    """``x``, a state, or something assigned above."""

    name: str


@dataclass(frozen=True)
class Apply:
    """A function or an arithmetic operation of arguments; ``options`` are its named settings."""

    function: str
    arguments: tuple[Expression, ...]
    options: tuple[tuple[str, Setting], ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Kept, for every step of a cell looks its calls up.
        object.__setattr__(self, "_hash", hash((self.function, self.arguments, self.options)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        """Without the hash, which is another one in another process."""
        return Apply, (self.function, self.arguments, self.options)


Expression = Constant | Name | Apply


@dataclass(frozen=True)
class Assignment:
    """``target = value``."""

    target: str
    value: Expression


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and everything in it, parents first."""
    yield expression
    if isinstance(expression, Apply):
        for argument in expression.arguments:
            yield from walk(argument)


_SIGN = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def text(expression: Expression, binding: int = 0) -> str:
    """The expression in the language's own spelling."""
    match expression:
        case Constant(value):
            return number_text(value) if value >= 0 or binding == 0 else f"({number_text(value)})"
        case Name(name):
            return name
        case Apply("neg", (operand,)):
            return _bracket(f"-{text(operand, 3)}", binding > 2)
        case Apply(function, (left, right)) if function in _SIGN:
            level = 1 if function in ("add", "sub") else 2
            body = f"{text(left, level)} {_SIGN[function]} {text(right, level + 1)}"
            return _bracket(body, binding > level)
        case Apply(function, arguments, options):
            named = [f"{k} = {_setting_text(value)}" for k, value in options if k != MARK]
            return f"{function}({', '.join([*map(text, arguments), *named])})"


def _setting_text(value: Setting) -> str:
    return number_text(value) if isinstance(value, Fraction) else str(value).lower()


def _bracket(body: str, needed: bool) -> str:
    return f"({body})" if needed else body


def number_text(value: Fraction) -> str:
    """A number as the language spells it: ``3``, ``0.125``, ``8/3``, ``1e-300``.

    It parses back to the same value where :func:`spellable` says so.
    """
    if value.denominator == 1:
        return _whole_text(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest == 1 and places > 12:
        mantissa = _mantissa(value.numerator * 10**places // value.denominator)
        if len(str(abs(mantissa[0]))) <= LONGEST:
            return f"{mantissa[0]}e{mantissa[1] - places}"
    if rest != 1 or places > 12:
        return f"{_whole_text(value.numerator)}/{_whole_text(value.denominator)}"
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


LONGEST = 30
"""How many digits a number of the language has at most, powers of ten behind them aside."""


def spellable(value: Fraction) -> bool:
    """Whether a number can be written down: as digits and a power of ten, or one such over another."""
    return all(
        len(digits.lstrip("-")) <= LONGEST and abs(int(power or "0")) <= 300
        for part in number_text(value).split("/")
        for digits, _, power in [part.replace(".", "").partition("e")]
    )


def _whole_text(value: int) -> str:
    if abs(value) < 10**LONGEST:
        return str(value)
    digits, power = _mantissa(value)
    return f"{digits}e{power}"


def _mantissa(value: int) -> tuple[int, int]:
    """Digits without zeros at their end, and the power of ten they are times."""
    text = str(value)
    digits = text.rstrip("0") or "0"
    return int(digits), len(text) - len(digits)
