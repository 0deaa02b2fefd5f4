"""What a Miras mixer needs to be one of several memories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.blocks.base import Invalid, nothing_to_decay
from archdsl.blocks.miras.learned import learn_of
from archdsl.blocks.op import Routed

if TYPE_CHECKING:
    from archdsl.blocks.miras.mixer import Miras


def fits(mixer: Miras, routed: Routed | None) -> None:
    """Raise where tokens cannot be sent to memories of this mixer as the container asks."""
    if routed is None:
        return
    if routed.neighbours == "routed" and mixer.conv and mixer.position == "rope":
        raise Invalid(
            "position-routed",
            "`neighbours = routed` lets the convolution see what a memory took, and the rotation behind"
            " it needs positions in the text",
            help="write `neighbours = text`, or leave out `conv` or `position = rope`",
        )
    if routed.idle == "decay" and not _fades(mixer):
        raise nothing_to_decay("miras")
    if routed.idle == "decay" and mixer.learns and not learn_of(mixer).decay_first:
        raise Invalid(
            "gradient-before-decay",
            "with `idle = decay` a memory forgets at the tokens that go elsewhere, and this one takes its"
            " gradients before it forgets",
            argument="learner",
            help="write `idle = keep`, or `learner = momentum(first = decay)`",
        )


def _fades(mixer: Miras) -> bool:
    """Whether its state decays by what is linear in the state alone, ahead of a write."""
    decays = mixer.decay is not None and mixer.decay.per in ("head", "channel")
    return decays and mixer.read == "after" and (mixer.learns or mixer.descent.rate != "channel")
