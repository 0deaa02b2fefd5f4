"""The learner family as defined, a write at a time: the truth that every other form is compared with.

Nothing is shared with the fast form but the maps of `retentions`: the inner gradient is autograd's, of the
loss itself, and every write's gradients are found anew at the memory its chunk began with.
"""

import torch
from torch import Tensor

from archdsl.kernels.learner import biases, learners, memories, retentions
from archdsl.kernels.learner.parts import Memory, Rules, Streams, Weights, begun
from archdsl.kernels.learner.rule import Rule

Write = tuple[Tensor, Tensor, Tensor, Tensor]
"""Key [L, K], value [L, V], weight [L], threshold [L] of one write."""


def reference(
    rules: Rules, x: Streams, memory: Memory, loss: biases.Bias, offset: int = 0
) -> tuple[Tensor, Memory]:
    """Read [L, N, V] and the memory behind the last write; `loss` is of p, v and threshold."""
    outputs = []
    for t in range(x.key.shape[1]):
        place = (offset + t) % rules.rule.learn.chunk
        out, memory = _write(rules, x.part(t, t + 1), memory, loss, place)
        outputs.append(out)
    return torch.cat(outputs, 1), memory


def _write(
    rules: Rules, x: Streams, memory: Memory, loss: biases.Bias, place: int
) -> tuple[Tensor, Memory]:
    rule = rules.rule
    if place == 0:
        memory = begun(rule, x, memory)
    recent = [*_writes(memory.recent), _now(rule, x)]
    sparse, step = _elastic(rule, x, memory)
    reach = _reach(rule, x._replace(rate=step[:, None]))
    gradient = _windowed(rules, recent, memory, loss, reach)
    keep = [f[:, None, None] if f.dim() == 1 else f for f in _decays(rule, x)]
    rate = _rates(rule, step)
    momentum, taken = _stepped(rule, x, gradient, memory, rate)
    current = tuple(a * f + s for a, f, s in zip(memory.current, keep, taken, strict=True))
    moved = current
    if rules.share is not None:
        pairs = zip(memory.start, current, strict=True)
        moved = tuple(w + rules.share[place] * (a - w) for w, a in pairs)
    weights = _weights(rule, moved, memory.start, sparse[:, None, None])
    out = _read(rules, weights, x.query)
    if place == rule.learn.chunk - 1:
        current = weights if rule.keep.fed_back else moved
    kept = recent[len(recent) - rule.learn.window + 1 :] if rule.learn.window > 1 else []
    buffers = tuple(torch.stack(s, 1) for s in zip(*kept, strict=True)) if kept else ()
    return out, Memory(current, memory.start, momentum, buffers, sparse)


def _writes(recent: tuple[Tensor, ...]) -> list[Write]:
    return list(zip(*(s.unbind(1) for s in recent), strict=True)) if recent else []


def _now(rule: Rule, x: Streams) -> Write:
    one = x.key.new_ones(x.key.shape[0])
    weight = one if x.weight is None else x.weight[:, 0]
    threshold = one * rule.loss.threshold if x.threshold is None else x.threshold[:, 0]
    return x.key[:, 0], x.value[:, 0], weight, threshold


def _windowed(
    rules: Rules, recent: list[Write], memory: Memory, loss: biases.Bias, reach: Tensor
) -> list[Tensor]:
    """The weighted sum of the window's gradients to each layer [L, out, in]."""
    sums = [torch.zeros_like(w) for w in memory.start]
    for write in recent:
        for layer, gradient in enumerate(_gradient(rules, write, memory.start, loss, reach)):
            sums[layer] = sums[layer] + gradient * write[2][:, None, None]
    return sums


def _gradient(
    rules: Rules, write: Write, start: Weights, loss: biases.Bias, reach: Tensor
) -> list[Tensor]:
    """dL/dW of one write at the start weights, cut as the learner says."""
    rule, (key, value, _, threshold) = rules.rule, write
    fixed = rule.keep.sparse if rule.keep.form == "elastic_sum" else 0.0
    weights = _weights(rule, start, start, key.new_full((1, 1, 1), fixed))
    with torch.enable_grad():
        probed = tuple(
            w.clone() if w.requires_grad else w.detach().requires_grad_() for w in weights
        )
        lanes = torch.arange(len(key), device=key.device)
        prediction = _predicted(rules, probed, key)
        total = loss(prediction, value, threshold[:, None])[lanes].sum()
        flow, *found = torch.autograd.grad(
            total, [prediction, *probed], create_graph=True, allow_unused=False
        )
    square = sum((g.square().sum((-2, -1)) for g in found), start=key.new_zeros(()))
    if rule.store.form == "slots":
        square = flow.square().sum(-1) * _slot_square(key, start[0])
    size = _cut(rule, reach, square, flow, prediction - value)
    return [g * size[:, None, None] for g in found]


def _slot_square(key: Tensor, start: Tensor) -> Tensor:
    return (key[:, None] / retentions.columns(start)).square().sum((-2, -1))


def _cut(rule: Rule, reach: Tensor, square: Tensor, flow: Tensor, error: Tensor) -> Tensor:
    """By how much a write's step is cut [L]; `reach` is the step that a chunk's writes share."""
    size, learn = torch.ones_like(square), rule.learn
    if learn.clip is not None:
        size = learn.clip / square.clamp(min=learn.clip**2).sqrt()
    if not learn.bounds:
        return size
    pull = biases.norm(flow)[:, 0]
    steep = square / (pull * biases.norm(error)[:, 0])
    if rule.loss.form == "dot":
        steep = (square + biases.TINY).sqrt() / pull
    change = steep * reach
    return size * learners.LARGEST / change.clamp(min=learners.LARGEST)


def _reach(rule: Rule, x: Streams) -> Tensor:
    if rule.learn.window > 1:
        return x.key.new_full(x.key.shape[:1], rule.learn.largest * rule.learn.shared)
    rate = x.rate[:, 0] if x.rate.dim() == 2 else x.rate[:, 0].amax(-1)
    return rate * rule.learn.shared


def _weights(rule: Rule, moved: Weights, start: Weights, sparse: Tensor) -> Weights:
    if rule.keep.form == "elastic_sum":
        sparse = torch.full_like(sparse, rule.keep.sparse)
    pairs = zip(moved, start, strict=True)
    return tuple(retentions.weights(rule.keep, a, w, sparse) for a, w in pairs)


def _predicted(rules: Rules, weights: Weights, x: Tensor) -> Tensor:
    """M(x) of one input a lane [L, K]: [L, V]."""
    store = rules.rule.store
    if store.form == "slots":
        weights = tuple(retentions.unit_columns(w) for w in weights)
    out, _ = memories.through(store, rules.norm, x[:, None], memories.plain(weights))
    return out[:, 0]


def _read(rules: Rules, weights: Weights, query: Tensor) -> Tensor:
    return _predicted(rules, weights, query[:, 0])[:, None]


def _decays(rule: Rule, x: Streams) -> list[Tensor]:
    """The factor of each layer's accumulated weights: [L], or broadcast to [L, out, in]."""
    lanes, layers = x.key.shape[0], len(rule.store.shapes)
    if rule.keep.form == "elastic_net":
        rate = x.rate[:, 0] if x.rate.dim() == 2 else x.rate[:, 0].mean(-1)
        return [1 / (1 + rate * rule.keep.ridge)] * layers
    if x.decay is None:
        return [x.key.new_ones(lanes)] * layers
    gate = x.decay[:, 0].exp()
    return [gate] * layers if gate.dim() == 1 else _by_channel(rule, gate)


def _by_channel(rule: Rule, gate: Tensor) -> list[Tensor]:
    """A number a key channel [L, K]: on the first layer's inputs, the last one's outputs, or its mean."""
    mean, widths = gate.mean(1), rule.store.widths
    factors: list[Tensor] = [mean[:, None, None]] * (len(widths) - 1)
    columns = torch.cat([gate, mean[:, None]], 1) if rule.store.bias else gate
    factors[0] = columns[:, None, :]
    if len(widths) > 2 and widths[-1] == widths[0]:
        factors[-1] = gate[:, :, None]
    return factors


def _elastic(rule: Rule, x: Streams, memory: Memory) -> tuple[Tensor, Tensor]:
    """The threshold so far [L], and the step sizes [L] or [L, K]."""
    step = x.rate[:, 0]
    if rule.keep.form != "elastic_net":
        return memory.sparse, step
    rate = step if step.dim() == 1 else step.mean(-1)
    shrink = 1 / (1 + rate * rule.keep.ridge)
    sparse = memory.sparse * shrink + rate * shrink * rule.keep.sparse
    return sparse, step * (shrink if step.dim() == 1 else shrink[:, None])


def _rates(rule: Rule, step: Tensor) -> list[Tensor]:
    if step.dim() == 1:
        return [step[:, None, None]] * len(rule.store.shapes)
    return _by_channel(rule, step)


def _stepped(
    rule: Rule, x: Streams, gradient: list[Tensor], memory: Memory, rate: list[Tensor]
) -> tuple[Weights, Weights]:
    """The momentum behind this write, and what is added to the accumulated weights."""
    if rule.learn.form == "gd":
        return memory.momentum, tuple(-g * r for g, r in zip(gradient, rate, strict=True))
    assert x.momentum is not None
    theta = x.momentum[:, 0].exp()[:, None, None]
    if rule.learn.form == "momentum":
        triples = zip(memory.momentum, gradient, rate, strict=True)
        momentum = tuple(m * theta - g * r for m, g, r in triples)
        return momentum, momentum
    momentum = tuple(m * theta - g for m, g in zip(memory.momentum, gradient, strict=True))
    turned = (learners.orthogonal(m, rule.learn.newton) for m in momentum)
    return momentum, tuple(m * r for m, r in zip(turned, rate, strict=True))
