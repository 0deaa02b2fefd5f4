"""What a memory that learns is called: its published name, or its parts in words."""

from __future__ import annotations

from collections.abc import Callable

from archdsl.kernels.learner.rule import Rule


def _deep(rule: Rule) -> bool:
    return len(rule.store.shapes) > 1


def _ttt(rule: Rule) -> bool:
    inner = rule.store.norm == "layer" and rule.store.residual and rule.store.bias
    return inner and rule.learn.average and rule.loss.form == "l2"


def _is(
    loss: str, keep: str, form: str = "gd", window: bool = False, decay: bool | None = None
) -> Callable[[Rule], bool]:
    def fits(rule: Rule) -> bool:
        decays = decay is None or decay == (rule.keep.decay != "none")
        same = rule.loss.form.startswith(loss) and rule.keep.form == keep
        return same and decays and rule.learn.form == form and window == (rule.learn.window > 1)

    return fits


PUBLISHED: tuple[tuple[str, Callable[[Rule], bool]], ...] = (
    ("TTT-Linear", lambda r: _ttt(r) and not _deep(r)),
    ("TTT-MLP", lambda r: _ttt(r) and _deep(r)),
    (
        "Titans' long-term memory",
        lambda r: _deep(r) and _is("l2", "none", "momentum", decay=True)(r),
    ),
    ("Moneta", lambda r: _deep(r) and _is("lp", "lq_printed")(r)),
    ("Yaad", lambda r: _deep(r) and _is("huber_mixed", "none", decay=True)(r)),
    ("Memora", lambda r: _deep(r) and _is("l2", "simplex")(r)),
    ("OmegaNet", lambda r: _deep(r) and _is("l2", "none", window=True, decay=True)(r)),
    ("ATLAS", lambda r: _deep(r) and _is("l2", "none", "muon", window=True, decay=True)(r)),
    ("DeepTransformer", lambda r: _deep(r) and _is("dot", "none", decay=False)(r)),
    ("Lattice", lambda r: r.store.form == "slots" and _is("l2", "sphere")(r)),
    ("a mesa layer", lambda r: r.learn.form == "closed"),
)
"""Names of points whose four parts are those of a paper, the first that fits."""


def described(rule: Rule) -> str:
    """``MLP memory, Huber bias, elastic-net retention: no published name``, or a name in its place."""
    name = next((name for name, fits in PUBLISHED if fits(rule)), "no published name")
    parts = ", ".join(part for part in rule.words if part)
    return f"{name}: {parts}" if name != "no published name" else f"{parts}: {name}"


def learning(rule: Rule) -> str:
    """Why the learner family, and how it runs."""
    if rule.learn.form == "closed":
        return "a linear system a token, so family `learner`"
    chunk = rule.learn.chunk
    gradients = (
        "a gradient a write" if chunk == 1 else f"gradients at the start of every {chunk} writes"
    )
    return f"{gradients}, so family `learner`"
