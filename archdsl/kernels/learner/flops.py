"""Matrix products of the learner family, as PyTorch's counter counts them; free of torch."""

from collections.abc import Sequence

from archdsl.kernels.learner.rule import Rule

CLOSED_SPAN = 16
"""Writes whose sums the closed form forms together."""


def flops(rule: Rule, batch: int, length: int, heads: int) -> int:
    """Of the forward pass over `length` tokens from the start of a chunk."""
    writes = length * rule.learn.writes
    span = CLOSED_SPAN if rule.learn.form == "closed" else rule.learn.chunk
    whole, rest = divmod(writes, span)
    each = _closed if rule.learn.form == "closed" else part_flops
    return batch * heads * (whole * each(rule, span) + (each(rule, rest) if rest else 0))


def step_flops(rule: Rule, batch: int, heads: int, position: int) -> int:
    """Of one token behind `position` others, whose writes may end a chunk."""
    each = _closed if rule.learn.form == "closed" else part_flops
    span = CLOSED_SPAN if rule.learn.form == "closed" else rule.learn.chunk
    place = 0 if rule.learn.form == "closed" else position * rule.learn.writes % span
    left, total = rule.learn.writes, 0
    while left:
        count = min(left, span - place)
        total, left, place = total + each(rule, count), left - count, 0
    return batch * heads * total


def packed_flops(rule: Rule, heads: int, sizes: Sequence[int], width: int, span: int) -> int:
    """Of packed sequences in blocks of so many members, each with `span` places, `width` for a chunk."""
    if rule.learn.form == "closed":
        return sum(sizes) * heads * _closed(rule, span)
    return sum(sizes) * heads * (span // width) * part_flops(rule, width)


def part_flops(rule: Rule, n: int) -> int:
    """`n` writes of one chunk."""
    seen = n + rule.learn.window - 1
    layers = [(out, into) for out, into in rule.store.shapes]
    predicted = sum(2 * seen * out * into for out, into in layers)
    back = sum(2 * seen * out * (into - rule.store.bias) for out, into in layers[1:])
    carried = 2 * n * n * seen if rule.learn.carries and rule.learn.window > 1 else 0
    read = _dual(rule, n, seen) if rule.dual else _formed(rule, n, seen)
    return predicted + back + carried + read


def _dual(rule: Rule, n: int, seen: int) -> int:
    diagonal = rule.learn.window == 1 and not rule.learn.carries
    total = 0 if diagonal else 2 * n * n * seen
    bases = 1 + rule.learn.carries + rule.learn.average
    sums = 1 + rule.learn.carries
    for out, into in rule.store.shapes:
        total += bases * 2 * n * out * into + 2 * n * seen * (out + into)
        total += sums * 2 * seen * out * into
    return total


def _formed(rule: Rule, n: int, seen: int) -> int:
    diagonal = rule.learn.window == 1 and not rule.learn.carries
    summed = rule.keep.decay in ("constant", "head") or rule.keep.form == "elastic_net"
    total = 0
    for out, into in rule.store.shapes:
        total += 0 if diagonal else 2 * n * seen * out * into
        total += 2 * n * n * out * into if summed else 0
        total += _orthogonal(rule, n, out, into) if rule.learn.form == "muon" else 0
        total += 2 * n * out * into
    return total


def _orthogonal(rule: Rule, n: int, out: int, into: int) -> int:
    short, long = min(out, into), max(out, into)
    return n * rule.learn.newton * (4 * short * short * long + 2 * short**3)


def _closed(rule: Rule, n: int) -> int:
    key, value = rule.store.widths[0], rule.store.widths[-1]
    return 2 * n * n * key * (key + value) + 2 * n * key * value
