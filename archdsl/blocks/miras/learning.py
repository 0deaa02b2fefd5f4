"""Which points learn by gradient steps, and which of them mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from archdsl.blocks.base import Invalid, Rule
from archdsl.blocks.miras.bias import KL, L2
from archdsl.blocks.miras.descents import ClosedForm, Muon
from archdsl.blocks.miras.maps import ElasticNet, FDivergence, Mapped, Simplex, Sphere
from archdsl.blocks.miras.memory import Matrix, Slots, Vector
from archdsl.blocks.miras.retention import RunningSoftmax

if TYPE_CHECKING:
    from archdsl.blocks.miras.mixer import Miras


def learns(mixer: Miras) -> bool:
    """Whether a point is beyond a fast family.

    Those take a matrix or a vector, one of two losses, a decay, and one plain step a write; a Hebbian
    write does not see the memory, so any chunk of it is the same.
    """
    deep = not isinstance(mixer.stored, Matrix) and not isinstance(mixer.memory, Vector)
    mapped = isinstance(mixer.retention, Mapped) and not mixer.retention.trivial
    if deep or mapped or mixer.bias.plain is None or isinstance(mixer.learner, ClosedForm):
        return True
    return not mixer.descent.online or (mixer.descent.chunk > 1 and not mixer.hebbian)


def reading(mixer: Miras) -> Iterator[Invalid]:
    """Ways to write and read that belong to one formula."""
    if not mixer.learns:
        return
    feedback = isinstance(mixer.bias, L2) and mixer.bias.feedback == "learned"
    wanted = {
        "normaliser": mixer.normaliser != "none",
        "read": mixer.read != "after",
        "bonus": mixer.bonus != "none",
        "correction": mixer.correction,
        "key": mixer.key == "complement",
        "retention": isinstance(mixer.retention, RunningSoftmax),
        "bias": feedback,
        "learner": mixer.descent.rate in ("step", "exponential"),
    }
    for argument in (name for name, asked in wanted.items() if asked):
        yield Invalid(
            "one-formula",
            f"`{argument}` here belongs to memories with one formula for a write, and this memory learns"
            " by gradient steps",
            argument=argument,
            help="leave it out, or use a matrix memory with `bias = dot` or `l2` and a plain `gd`",
        )


def slots(mixer: Miras) -> Iterator[Invalid]:
    """What slots take, and what is theirs."""
    sphere = isinstance(mixer.retention, Sphere)
    if sphere and not isinstance(mixer.memory, Slots):
        yield Invalid(
            "sphere-without-slots",
            "`retention = sphere` keeps slots at unit length, and this memory has none",
            argument="retention",
            help="write `memory = slots(count = 16)`, or `retention = lq`",
        )
    if isinstance(mixer.memory, Slots) and isinstance(mixer.retention, Mapped) and not sphere:
        yield Invalid(
            "slots-retention",
            f"slots are read at unit length, which undoes `retention = {mixer.retention.name}`",
            argument="retention",
            help="write `retention = sphere`, `decay` or none",
        )


def distributions(mixer: Miras) -> Iterator[Invalid]:
    """Distributions need more than one number, and values that are ones."""
    lone, compared = isinstance(mixer.memory, Vector), isinstance(mixer.bias, KL)
    if lone and isinstance(mixer.retention, Simplex | FDivergence):
        why = "is a memory of one number, and a distribution over one number is always the same"
        yield _lone(why, "retention", "bregman")
    if lone and compared:
        why = "predicts one number, and `bias = kl` compares distributions"
        yield _lone(why, "bias", "l2")
    if compared and mixer.value != "softmax":
        yield Invalid(
            "values-not-distributions",
            "`bias = kl` compares distributions, and the values here are none",
            argument="bias",
            help="write `value = softmax`",
        )


def _lone(why: str, argument: str, instead: str) -> Invalid:
    return Invalid(
        "lone-distribution",
        f"every channel of a vector memory {why}",
        argument=argument,
        help=f"use `memory = matrix(heads = …)`, or `{argument} = {instead}`",
    )


def maps(mixer: Miras) -> Iterator[Invalid]:
    """Maps that have no decay of what accumulates."""
    retention = mixer.retention
    proximal = isinstance(retention, ElasticNet) and retention.form == "proximal"
    if proximal and mixer.decay is not None:
        yield Invalid(
            "map-decay",
            "the proximal `elastic_net` shrinks weights by itself, so a decay would shrink them twice",
            argument="retention",
            help="leave `decay` out, or write `elastic_net(form = sum, decay = …)`",
        )


def steps(mixer: Miras) -> Iterator[Invalid]:
    """Learners and the memories they make sense for."""
    learner = mixer.learner
    if isinstance(learner, Muon) and isinstance(mixer.memory, Vector | Slots):
        yield Invalid(
            "muon-memory",
            f"`muon` makes a matrix orthogonal, and `{mixer.memory.name}` is none",
            argument="learner",
            help="use `momentum`, or a matrix or `mlp` memory",
        )
    if mixer.descent.rate == "channel" and (mixer.descent.summed > 1 or isinstance(learner, Muon)):
        yield Invalid(
            "window-rate",
            "a step that sums several writes, or is made orthogonal, has no channels of one key",
            argument="learner",
            help="write `rate = token`",
        )
    yield from _averages(mixer)
    yield from _closed(mixer)


def _averages(mixer: Miras) -> Iterator[Invalid]:
    plain = mixer.retention is None and not mixer.descent.learn.carries
    if mixer.descent.average and not (plain and mixer.descent.summed == 1):
        yield Invalid(
            "average-alone",
            "`average` is the mean of a chunk's gradients, which a retention, a momentum or a window"
            " would no longer make one",
            argument="learner",
            help="leave `average` out, or use `gd` without a retention",
        )
    if mixer.descent.average and isinstance(mixer.memory, Slots):
        yield Invalid(
            "average-alone",
            "`average` is for memories of layers, and these are slots",
            argument="learner",
            help="leave `average` out",
        )


def _closed(mixer: Miras) -> Iterator[Invalid]:
    if not isinstance(mixer.learner, ClosedForm):
        return
    if not isinstance(mixer.stored, Matrix) or mixer.bias.plain != ("l2", 1):
        yield Invalid(
            "no-closed-form",
            "only a matrix memory with the squared error has a minimiser in closed form",
            argument="learner",
            help="write `memory = matrix(heads = …), bias = l2`, or `learner = gd`",
        )
    if isinstance(mixer.retention, Mapped | RunningSoftmax) or mixer.per() == "channel":
        yield Invalid(
            "no-closed-form",
            "the closed form weighs whole writes, so its retention is none, or a decay a head",
            argument="retention",
            help="write `retention = decay(per = head)`",
        )


RULES: tuple[Rule, ...] = (reading, slots, distributions, maps, steps)
"""Complaints about points that learn."""
