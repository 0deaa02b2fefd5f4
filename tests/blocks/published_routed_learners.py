"""Memories that learn, one token of one memory at a time, as ``published_routed`` takes mixers.

A memory's state is a list of heads, each with how many tokens it has taken, the weights its chunk began
with, the weights now, and what else its learner keeps. Nothing here uses archdsl.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from blocks import published_miras as published
from blocks.published_miras import Memory, Weights, apart, convolved, gradient, squared, unit
from blocks.published_routed import Plain
from torch import Tensor

HEADS, CHUNK = 2, 4


@dataclass(frozen=True)
class Head:
    """One head's memory."""

    now: Memory
    start: Memory = ()
    kept: Memory = ()
    recent: tuple[Any, ...] = ()
    count: int = 0

    def moved(self, **changes: Any) -> Head:
        """Behind one more token."""
        return replace(self, count=self.count + 1, **changes)


Token = Callable[..., tuple[Head, Tensor]]


def each_head(
    token: Token, begin: Callable[[Weights, int], Head], w: Weights, state: Any, *rows: Tensor
) -> tuple[Any, Tensor]:
    """A step of all heads; a chunk begins with the weights there are."""
    heads = state or [begin(w, h) for h in range(HEADS)]
    heads = [replace(head, start=head.now) if head.count % CHUNK == 0 else head for head in heads]
    found = [token(w, h, head, *(row[h] for row in rows)) for h, head in enumerate(heads)]
    return [head for head, _ in found], torch.cat([read for _, read in found])


def rested(w: Weights, h: int) -> Head:
    memory, momentum = published.resting(w, h)
    return Head(memory, kept=momentum)


def normed(gate: Callable[[Tensor], Tensor], w: Weights, x: Tensor, read: Tensor) -> Tensor:
    return published.finish(w, apart(read, HEADS), x, gate)


def streams(w: Weights, x: Tensor) -> list[Tensor]:
    return [apart(convolved(w, name, x), HEADS) for name in ("query", "key", "value")]


# --- Titans: momentum, forgetting, two layers ---------------------------------------------------------


def titans_writes(w: Weights, x: Tensor) -> list[Tensor]:
    q, k, v = streams(w, x)
    theta = 0.5 / CHUNK * torch.sigmoid(x @ w["rate.weight"].T)
    eta = torch.sigmoid(x @ w["momentum.weight"].T + w["momentum.bias"])
    keep = torch.sigmoid(x @ w["decay.weight"].T + w["decay_gate.bias"])
    return [unit(q), unit(k), v, theta, eta, keep]


def titans_token(
    w: Weights, h: int, head: Head, q: Tensor, k: Tensor, v: Tensor, theta: Tensor, eta: Tensor,
    keep: Tensor,
) -> tuple[Head, Tensor]:  # fmt: skip
    found = gradient(lambda a: squared(published.plain_mlp(a, k), v), head.start)
    s = tuple(eta * a - theta * g for a, g in zip(head.kept, found, strict=True))
    m = tuple(keep * a + b for a, b in zip(head.now, s, strict=True))
    return head.moved(now=m, kept=s), published.plain_mlp(m, q)


def titans_idle(w: Weights, state: Any, *rows: Tensor) -> Any:
    keep = rows[-1]
    return [replace(s, now=tuple(keep[h] * a for a in s.now)) for h, s in enumerate(state)]


# --- TTT: a mean of gradients, a bias and a norm inside -----------------------------------------------


def ttt_writes(w: Weights, x: Tensor) -> list[Tensor]:
    q, k, v = streams(w, x)
    eta = 1 / 64 * torch.sigmoid(x @ w["rate.weight"].T)
    return [published.turned(q, CHUNK), published.turned(k, CHUNK), v, eta]


def ttt_begin(w: Weights, h: int) -> Head:
    return Head(published.starts(w, h))


def ttt_token(
    w: Weights, h: int, head: Head, q: Tensor, k: Tensor, v: Tensor, eta: Tensor
) -> tuple[Head, Tensor]:
    def model(m: Memory, z: Tensor) -> Tensor:
        y = m[0][:, :-1] @ z + m[0][:, -1]
        return z + published.layer_norm(y, w["memory.gain"][h], w["memory.offset"][h])

    place = head.count % CHUNK
    step = (1 / (place + 1) + w["memory.position"][place]).clamp(min=0)
    (found,) = gradient(lambda a: squared(model(a, k), v), head.start)
    total = eta * found + (head.kept[0] if place else 0)
    m = (head.start[0] - step * total,)
    return head.moved(now=m, kept=(total,)), model(m, q)


def ttt_finish(w: Weights, x: Tensor, read: Tensor) -> Tensor:
    centred = read - read.mean(-1, keepdim=True)
    y = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
    return (y * w["norm.weight"] + w["norm.bias"]) @ w["out.weight"].T


# --- OmegaNet: a window of writes ---------------------------------------------------------------------

WINDOW = 3


def omega_writes(w: Weights, x: Tensor) -> list[Tensor]:
    q, k, v = streams(w, x)
    basis = published.symmetric(q.shape[-1], len(w["query_powers.weight"]) - 1, x.dtype)

    def features(z: Tensor, name: str) -> Tensor:
        rows = [
            [basis @ published.powers(head, w[f"{name}_powers.weight"]) for head in row]
            for row in z
        ]
        return torch.stack([torch.stack(row) for row in rows])

    eta = 1 / 8 / (CHUNK * WINDOW) * torch.sigmoid(x @ w["rate.weight"].T)
    keep = torch.sigmoid(x @ w["decay.weight"].T + w["decay_gate.bias"])
    gamma = torch.sigmoid(x @ w["weight.weight"].T + w["weight.bias"])
    return [features(unit(q), "query"), features(unit(k), "key"), v, eta, gamma, keep]


def omega_token(
    w: Weights, h: int, head: Head, q: Tensor, k: Tensor, v: Tensor, eta: Tensor, gamma: Tensor,
    keep: Tensor,
) -> tuple[Head, Tensor]:  # fmt: skip
    recent = (*head.recent, (k, v, gamma))[-WINDOW:]

    def loss(a: Memory) -> Tensor:
        terms = [g * squared(published.plain_mlp(a, key), value) for key, value, g in recent]
        return torch.stack(terms).sum()

    found = gradient(loss, head.start)
    m = tuple(keep * a - eta * g for a, g in zip(head.now, found, strict=True))
    return head.moved(now=m, recent=recent), published.plain_mlp(m, q)


# --- Lattice: slots -----------------------------------------------------------------------------------


def lattice_writes(w: Weights, x: Tensor) -> list[Tensor]:
    q, k, v = streams(w, x)
    return [unit(q), unit(k), v, 1 / CHUNK * torch.sigmoid(x @ w["rate.weight"].T)]


def columns(s: Tensor) -> Tensor:
    return s / torch.sqrt((s * s).sum(0))


def lattice_token(
    w: Weights, h: int, head: Head, q: Tensor, k: Tensor, v: Tensor, gamma: Tensor
) -> tuple[Head, Tensor]:
    start = columns(head.start[0])
    now = start if head.count % CHUNK == 0 else head.now[0]
    error = v - start @ k
    now = now + gamma * k * (error[:, None] - start * (start * error[:, None]).sum(0))
    return head.moved(now=(now,)), columns(now) @ q


# --- The closed form ----------------------------------------------------------------------------------


def mesa_writes(w: Weights, x: Tensor) -> list[Tensor]:
    q, k, v = streams(w, x)
    step = F.softplus(x @ w["decay.weight"].T + w["decay_gate.bias"])
    return [
        q,
        k,
        v,
        torch.sigmoid(x @ w["rate.weight"].T),
        torch.exp(-torch.exp(w["decay_gate.A_log"]) * step),
    ]


def mesa_begin(w: Weights, h: int) -> Head:
    size = w["key.weight"].shape[-2] // HEADS
    zeros = w["key.weight"].new_zeros
    return Head((zeros(size, size), zeros(w["value.weight"].shape[-2] // HEADS, size)))


def mesa_token(
    w: Weights, h: int, head: Head, q: Tensor, k: Tensor, v: Tensor, rate: Tensor, keep: Tensor
) -> tuple[Head, Tensor]:
    keys = keep * head.now[0] + rate * torch.outer(k, k)
    values = keep * head.now[1] + rate * torch.outer(v, k)
    read = values @ torch.linalg.inv(keys + torch.eye(len(k), dtype=k.dtype)) @ q
    return head.moved(now=(keys, values)), read * len(k) ** -0.5


SILU, SIGMOID = partial(normed, F.silu), partial(normed, torch.sigmoid)

MIXERS = {
    "titans(heads = 2, expand = 2, chunk = 4, rate = 1/2, bound = none)": Plain(
        titans_writes, partial(each_head, titans_token, rested), SILU, titans_idle
    ),
    "ttt_linear(heads = 2, chunk = 4, rate = 1/64, bound = none)": Plain(
        ttt_writes, partial(each_head, ttt_token, ttt_begin), ttt_finish
    ),
    "omeganet(heads = 2, expand = 1, window = 3, chunk = 4, rate = 1/8, bound = none)": Plain(
        omega_writes, partial(each_head, omega_token, rested), SILU, titans_idle
    ),
    "lattice(heads = 2, count = 3, chunk = 4, bound = none)": Plain(
        lattice_writes, partial(each_head, lattice_token, rested), SILU
    ),
    "miras(memory = matrix(heads = 2), bias = l2, retention = decay(per = head), learner = closed_form,"
    " gate = silu)": Plain(
        mesa_writes, partial(each_head, mesa_token, mesa_begin), SILU, titans_idle
    ),
}
