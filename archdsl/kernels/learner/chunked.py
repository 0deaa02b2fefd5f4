"""The learner family: a chunk's gradients at the memory it started with, all its tokens at once.

With start weights W, gradients g_s = slope_s input_s^T of every layer (`memories`), and steps that are
sums of gradients, every token's accumulated weights are

    A_t = b_t A + m_t S + sum_s c_ts g_s

with coefficients from `learners`. Where the map to weights is the identity a token reads through the
coefficients (`_dual`), no weights of its own are formed: A h = b A h + m S h + sum_s c_ts (input_s . h)
slope_s, layer by layer, TTT's dual form (arXiv 2407.04620 §2.5) with decays and momentum. Else every
token's weights are formed, a chunk at a time (`_formed`). One token is a chunk's part of length one, so
decoding and any prefill compute the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archdsl.kernels.learner import biases, learners, memories, retentions
from archdsl.kernels.learner.parts import (
    Memory,
    Offset,
    Part,
    Rules,
    Streams,
    Weights,
    begun_where,
    factors_of,
)
from archdsl.kernels.learner.rule import Rule

SPAN = 16
"""Writes whose chunks are computed again together in the backward pass, at least."""


class Gradients(NamedTuple):
    """Factors a layer [L, S, out], [L, S, in], and each write's step size [L, S] or weight."""

    slopes: list[Tensor]
    inputs: list[Tensor]
    size: Tensor


def run(rules: Rules, x: Streams, memory: Memory, offset: int) -> tuple[Tensor, Memory]:
    """Read [L, N, V] and the memory behind N writes, the first of which is number `offset` of a chunk."""
    count, chunk = x.key.shape[1], rules.rule.learn.chunk
    span = chunk * max(1, SPAN // chunk)
    outputs, first = [], 0
    while first < count:
        last = min(count, first + span - offset)
        out, memory = kept(rules, x.part(first, last), memory, offset, last - first < count)
        outputs.append(out)
        first, offset = last, 0
    return _joined(outputs), memory


def _joined(outputs: list[Tensor]) -> Tensor:
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)


def kept(
    rules: Rules, x: Streams, memory: Memory, offset: Offset, several: bool, width: int = 0
) -> tuple[Tensor, Memory]:
    """Some chunks, `width` writes wide where lanes differ.

    In training only the memory between several is kept, and the rest is computed again; but for long
    chunks that form no token's weights: what they keep is as small.
    """
    small = rules.rule.dual and rules.rule.learn.chunk >= SPAN
    if several and not small and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        found: tuple[Tensor, Memory] = checkpoint(
            _parts, rules, x, memory, offset, width,
            use_reentrant=False, preserve_rng_state=False, determinism_check="none",
        )  # fmt: skip
        return found
    return _parts(rules, x, memory, offset, width)


def _parts(
    rules: Rules, x: Streams, memory: Memory, offset: Offset, width: int
) -> tuple[Tensor, Memory]:
    count, wide = x.key.shape[1], width or rules.rule.learn.chunk
    outputs, first = [], 0
    while first < count:
        last = min(count, first + wide - (offset if isinstance(offset, int) else 0))
        out, memory = part(rules, x.part(first, last), memory, offset)
        outputs.append(out)
        first, offset = last, 0
    return _joined(outputs), memory


def part(rules: Rules, x: Streams, memory: Memory, offset: Offset) -> tuple[Tensor, Memory]:
    """Writes of one chunk, the first of them number `offset`."""
    rule = rules.rule
    memory = begun_where(rule, x, memory, offset)
    x, soft = _shrinking(rule, x, memory)
    used = _used(rule, _weights(rule, memory.start, memory.start, _start_threshold(rule, x)))
    seen = _windowed(rule, x, memory)
    found = _channelled(rule, x, _gradients(rules, x, seen, used, memory))
    read = _dual if rule.dual else _formed
    out, current, momentum = read(Part(rules, x, memory, offset, soft), found)
    return out, Memory(current, memory.start, momentum, _recent(rule, x, seen), soft[:, -1])


def _recent(rule: Rule, x: Streams, seen: "Seen") -> tuple[Tensor, ...]:
    """The last window - 1 of the writes that there are."""
    window = rule.learn.window - 1
    if not window:
        return ()
    if x.present is None:
        return tuple(s[:, s.shape[1] - window :] for s in seen)
    place = x.present.sum(1)[:, None] + torch.arange(window, device=x.key.device)
    lanes = torch.arange(len(place), device=place.device)[:, None]
    return tuple(s[lanes, place] for s in seen)


def _shrinking(rule: Rule, x: Streams, memory: Memory) -> tuple[Streams, Tensor]:
    """The elastic net's step: decay and threshold follow from the rate; thresholds so far [L, N].

    With step eta, l2 penalty b and l1 penalty a: shrink by 1 / (1 + eta b), step eta / (1 + eta b),
    threshold eta a / (1 + eta b) (arXiv 2504.13173 eq. 21).
    """
    rate = x.rate if x.rate.dim() == 2 else x.rate.mean(-1)
    if rule.keep.form != "elastic_net":
        return x, memory.sparse[:, None].expand_as(rate)
    log = -torch.log1p(rate * rule.keep.ridge)
    step = x.rate * (log.exp() if x.rate.dim() == 2 else log.exp()[..., None])
    between, before = learners.pairs(log, rate.shape[1], rate)
    added = (between * (rate * log.exp() * rule.keep.sparse)[:, None]).sum(-1)
    return x._replace(rate=step, decay=log), before * memory.sparse[:, None] + added


def _start_threshold(rule: Rule, x: Streams) -> Tensor:
    """The threshold of the start weights: a fed-back net's are thresholded already."""
    fixed = rule.keep.sparse if rule.keep.form == "elastic_sum" else 0.0
    return x.key.new_full((1, 1, 1), fixed)


def _weights(rule: Rule, moved: Weights, start: Weights, sparse: Tensor) -> Weights:
    if not rule.keep.mapped:
        return moved
    pairs = zip(moved, start, strict=True)
    return tuple(retentions.weights(rule.keep, a, w, sparse) for a, w in pairs)


def _used(rule: Rule, weights: Weights) -> Weights:
    """Slots are read at unit length."""
    if rule.store.form != "slots":
        return weights
    return tuple(retentions.unit_columns(w) for w in weights)


class Seen(NamedTuple):
    """The writes whose gradients are needed, those of the window before the part too [L, S, …]."""

    key: Tensor
    value: Tensor
    weight: Tensor
    threshold: Tensor


def _windowed(rule: Rule, x: Streams, memory: Memory) -> Seen:
    ones = x.key.new_ones(x.key.shape[:2])
    now = Seen(
        x.key,
        x.value,
        ones if x.weight is None else x.weight,
        ones * rule.loss.threshold if x.threshold is None else x.threshold,
    )
    if not memory.recent:
        return now
    return Seen(*(torch.cat(both, 1) for both in zip(memory.recent, now, strict=True)))


def _gradients(rules: Rules, x: Streams, seen: Seen, used: Weights, memory: Memory) -> Gradients:
    store = rules.rule.store
    prediction, tape = memories.through(store, rules.norm, seen.key, memories.plain(used))
    flow = rules.gradient(prediction, seen.value, seen.threshold[..., None])
    slopes = memories.slopes(store, rules.norm, tape, used, flow)
    error = prediction - seen.value
    size = _sizes(rules.rule, x, slopes, tape.inputs, flow, error, memory)
    return Gradients(slopes, tape.inputs, seen.weight if size is None else seen.weight * size)


def _sizes(
    rule: Rule,
    x: Streams,
    slopes: list[Tensor],
    inputs: list[Tensor],
    flow: Tensor,
    error: Tensor,
    memory: Memory,
) -> Tensor | None:
    """By how much each write's step is cut [L, S]; `None` where it never is.

    |g|² = sum over layers of |slope|² |input|². To first order a step of size eta changes the
    prediction by eta |g|² / |dL/dp| along dL/dp. `error` keeps that below twice the error, shared by
    the gradients that are taken at one memory: beyond, a step would leave more error than it found. A
    Hebbian write has no error; its |g| stays below twice |dL/dp| so.
    """
    learn = rule.learn
    if not learn.cuts:
        return None
    if rule.store.form == "slots":
        inputs = [inputs[0] / retentions.columns(memory.start[0])]
    parts = [d.square().sum(-1) * a.square().sum(-1) for d, a in zip(slopes, inputs, strict=True)]
    square = torch.stack(parts).sum(0)
    size = torch.ones_like(square)
    if learn.clip is not None:
        size = learn.clip * torch.rsqrt(square.clamp(min=learn.clip**2))
    if not learn.bounds:
        return size
    pull = biases.norm(flow)[..., 0]
    if rule.loss.form == "dot":
        steep = (square + biases.TINY).sqrt() / pull
    else:
        steep = square / (pull * biases.norm(error)[..., 0])
    return size * learners.LARGEST / (steep * _reach(rule, x)).clamp(min=learners.LARGEST)


def _reach(rule: Rule, x: Streams) -> Tensor | float:
    """The step that gradients taken at one memory share, at most [L, N]."""
    if rule.learn.window > 1:
        return rule.learn.largest * rule.learn.shared
    rate = x.rate if x.rate.dim() == 2 else x.rate.amax(-1)
    return rate * rule.learn.shared


class Steps(NamedTuple):
    """Step t = sum_s `of` [L, N, S] (or the diagonal `own` [L, N]) g_s + `carried` [L, N] S."""

    own: Tensor | None
    of: Tensor | None
    carried: Tensor | None


def _steps(rule: Rule, x: Streams, size: Tensor) -> Steps:
    """The coefficients of gradients in each write's step; for `muon` in its momentum."""
    count = x.key.shape[1]
    muon = rule.learn.form == "muon"
    rate = -torch.ones_like(size[:, -count:]) if muon or x.rate.dim() == 3 else -x.rate
    if x.present is not None:
        rate = rate * x.present
    if rule.learn.window == 1:
        own, of = rate * size, None
    else:
        mask = learners.window_mask(count, rule.learn.window, rate)
        own, of = None, rate[..., None] * mask * size[:, None]
    if not rule.learn.carries:
        return Steps(own, of, None)
    between, before = learners.pairs(x.momentum, count, rate)
    of = between * own[:, None] if own is not None else torch.bmm(between, _there(of))
    return Steps(None, of, before)


def _there(x: Tensor | None) -> Tensor:
    assert x is not None
    return x


def _channelled(rule: Rule, x: Streams, found: Gradients) -> Gradients:
    """A rate a key channel scales the gradients' own factors."""
    if x.rate.dim() == 2:
        return found
    factors = factors_of(rule, x.rate, True)
    slopes, inputs = list(found.slopes), list(found.inputs)
    for layer, factor in enumerate(factors):
        if factor.shape[-2] == 1:
            inputs[layer] = inputs[layer] * factor[..., 0, :]
        else:
            slopes[layer] = slopes[layer] * factor[..., 0]
    return found._replace(slopes=slopes, inputs=inputs)


Found = tuple[Tensor, Weights, Weights]


def _dual(given: Part, found: Gradients) -> Found:
    """Read [L, N, V], accumulated weights, momentum: no token's weights are formed."""
    rules, x, memory = given.rules, given.x, given.memory
    rule, count = rules.rule, x.key.shape[1]
    steps = _steps(rule, x, found.size)
    between, before = learners.pairs(x.decay, count, found.size)
    if x.present is not None:
        between = between * x.present[:, None]
    of = (
        between * steps.own[:, None]
        if steps.own is not None
        else torch.bmm(between, _there(steps.of))
    )
    carried = None if steps.carried is None else (between * steps.carried[:, None]).sum(-1)
    last = of[:, -1]
    share = given.share
    if share is not None:
        of = of * share[..., None]

    def product(layer: int, h: Tensor) -> Tensor:
        base = before if share is None else before * share
        y = torch.bmm(h, memory.current[layer].mT) * base[..., None]
        if share is not None:
            y = y + torch.bmm(h, memory.start[layer].mT) * (1 - share)[..., None]
        if carried is not None:
            y = y + torch.bmm(h, memory.momentum[layer].mT) * carried[..., None]
        scores = torch.bmm(h, found.inputs[layer].mT) * of
        return y + torch.bmm(scores, found.slopes[layer])

    out, _ = memories.through(rule.store, rules.norm, x.query, product)
    current = _sums(
        found, last, [(memory.current, before[:, -1]), (memory.momentum, _last(carried))]
    )
    if rules.share is not None:
        pairs = zip(current, memory.start, strict=True)
        current = given.ended(tuple(w + (a - w) * rules.share[-1] for a, w in pairs), current)
    if steps.of is None or not rule.learn.carries:
        return out, current, memory.momentum
    momentum = _sums(found, steps.of[:, -1], [(memory.momentum, _last(steps.carried))])
    return out, current, momentum


def _last(x: Tensor | None) -> Tensor | None:
    return None if x is None else x[:, -1]


def _sums(found: Gradients, of: Tensor, bases: Sequence[tuple[Weights, Tensor | None]]) -> Weights:
    """Weights [L, out, in] of a layer: bases times factors [L], and gradients times `of` [L, S]."""
    sums = []
    for layer, (slope, into) in enumerate(zip(found.slopes, found.inputs, strict=True)):
        total = torch.bmm((slope * of[..., None]).mT, into)
        for weights, factor in bases:
            if factor is not None:
                total = total + weights[layer] * factor[:, None, None]
        sums.append(total)
    return tuple(sums)


def _formed(given: Part, found: Gradients) -> Found:
    """Read [L, N, V], accumulated weights, momentum: every token's weights are formed."""
    rules, x, memory, _, soft = given
    rule = rules.rule
    steps = _steps(rule, x, found.size)
    taken = [_step(rule, found, steps, memory, layer) for layer in range(len(memory.start))]
    momentum = tuple(s[:, -1] for s in taken) if rule.learn.carries else memory.momentum
    if rule.learn.form == "muon":
        taken = [_orthogonal(rule, s) * x.rate[..., None, None] for s in taken]
    if x.present is not None:
        taken = [s * x.present[..., None, None] for s in taken]
    moved = _accumulated(rule, x, taken, memory)
    limits = soft[..., None, None] if rule.keep.form == "elastic_net" else _start_threshold(rule, x)
    start = tuple(w[:, None] for w in memory.start)
    weights = _weights(rule, moved, start, limits)
    out, _ = memories.through(rule.store, rules.norm, x.query, memories.own(_used(rule, weights)))
    last = tuple(w[:, -1] for w in moved)
    if rule.keep.fed_back:
        last = given.ended(tuple(w[:, -1] for w in weights), last)
    return out, last, momentum


def _step(rule: Rule, found: Gradients, steps: Steps, memory: Memory, layer: int) -> Tensor:
    """What each write adds to a layer, or its momentum [L, N, out, in]."""
    slope, into = found.slopes[layer], found.inputs[layer]
    if steps.own is not None:
        step = (slope * steps.own[..., None])[..., None] * into[..., None, :]
    else:
        single = slope[..., None] * into[..., None, :]
        of = _there(steps.of)
        step = memories.split(torch.bmm(of, single.flatten(2)), 2, single.shape[2:])
    if rule.store.form == "slots":
        step = retentions.pulled_back(step, memory.start[layer][:, None])
    if steps.carried is not None:
        step = step + memory.momentum[layer][:, None] * steps.carried[..., None, None]
    return step


def _orthogonal(rule: Rule, x: Tensor) -> Tensor:
    turned = learners.orthogonal(x.flatten(0, 1), rule.learn.newton)
    return memories.split(turned, 0, x.shape[:2])


def _accumulated(rule: Rule, x: Streams, taken: list[Tensor], memory: Memory) -> Weights:
    """A_t = decay_t A_{t-1} + step_t, a layer [L, N, out, in]."""
    current = memory.current
    if x.decay is None:
        return tuple(s.cumsum(1) + w[:, None] for s, w in zip(taken, current, strict=True))
    if x.decay.dim() == 2:
        between, before = learners.pairs(x.decay, x.key.shape[1], x.key)
        return tuple(
            memories.split(torch.bmm(between, s.flatten(2)), 2, s.shape[2:])
            + w[:, None] * before[..., None, None]
            for s, w in zip(taken, current, strict=True)
        )
    factors = factors_of(rule, x.decay.exp(), True)
    triples = zip(taken, current, factors, strict=True)
    return tuple(_scanned(s, w, f) for s, w, f in triples)


def _scanned(steps: Tensor, start: Tensor, factor: Tensor) -> Tensor:
    found, now = [], start
    for step, keep in zip(steps.unbind(1), factor.unbind(1), strict=True):
        now = torch.addcmul(step, now, keep)
        found.append(now)
    return torch.stack(found, 1)
