"""Where each token of a batch goes: sorted by (memory, sequence, time), with packed offsets.

Letters: R tokens over the batch, K copies a token goes to, C copies (memories or experts), S sequences,
N = R K routed rows. Every shape depends on these alone, so nothing waits for a result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """A routing. Member ``c * S + s`` holds the tokens of sequence ``s`` that copy ``c`` takes.

    Args:
        token: token of each routed row [N].
        copy: copy each routed row was to go to [N].
        member: member of each routed row [N]; ``copies * sequences`` for one that was refused.
        inverse: routed row of each token's K places [R, K].
        bounds: packed offsets of the members [C S + 1]; with refusals one more, for those.
        weights: what each place counts for [R, K]; gradients flow to it.
        copies: C.
        sequences: S.
    """

    token: Tensor
    copy: Tensor
    member: Tensor
    inverse: Tensor
    bounds: Tensor
    weights: Tensor
    copies: int
    sequences: int

    @property
    def members(self) -> int:
        """Sequences the packed rows are made of: C S, and one of refused rows where there are any."""
        return self.bounds.shape[0] - 1

    @property
    def refusing(self) -> bool:
        """Whether rows may be refused."""
        return self.members > self.copies * self.sequences

    @property
    def groups(self) -> Tensor:
        """Packed offsets of the copies [C + 1], refused rows with the last one."""
        first = torch.arange(self.copies, device=self.bounds.device) * self.sequences
        return torch.cat([self.bounds[first], self.bounds[-1:]])


def choose_top(scores: Tensor, top: int) -> Tensor:
    """The ``top`` largest of scores [R, C] as indices [R, top], the earlier of equal ones first.

    ``topk`` leaves ties to chance, and a token must go the same way alone and among others.
    """
    return scores.sort(stable=True, dim=-1, descending=True).indices[:, :top]


def route(chosen: Tensor, weights: Tensor, sequence: Tensor, copies: int, sequences: int) -> Plan:
    """Sort tokens by where they go.

    chosen [R, K] copies of each token, no copy twice; weights [R, K]; sequence [R] each token's.
    """
    keys = (chosen * sequences + sequence[:, None]).flatten()
    return _sorted(keys, chosen.flatten(), weights, copies, sequences, copies * sequences)


def refuse(plan: Plan, allowed: Tensor) -> Plan:
    """The plan without the routed rows that are not ``allowed`` [N]: they count for nothing."""
    last = plan.copies * plan.sequences
    places = plan.inverse.flatten()
    keys = plan.member.masked_fill(~allowed, last)[places]
    kept = allowed[plan.inverse]
    weights = plan.weights.masked_fill(~kept, 0)
    return _sorted(keys, plan.copy[places], weights, plan.copies, plan.sequences, last + 1)


def rank_in_member(plan: Plan) -> Tensor:
    """How many rows of the same member stand before each routed row [N]."""
    rows = torch.arange(plan.token.shape[0], device=plan.token.device)
    return rows - plan.bounds[plan.member]


def _sorted(
    keys: Tensor, chosen: Tensor, weights: Tensor, copies: int, sequences: int, members: int
) -> Plan:
    member, order = keys.sort(stable=True)
    places = weights.shape[1]
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.shape[0], device=order.device)
    edges = torch.arange(members + 1, device=order.device)
    return Plan(
        token=order // places,
        copy=chosen[order],
        member=member,
        inverse=inverse.view(-1, places),
        bounds=torch.searchsorted(member, edges),
        weights=weights,
        copies=copies,
        sequences=sequences,
    )
