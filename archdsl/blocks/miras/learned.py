"""How a point beyond the fast families is lowered: its rule, and the gates that its learner reads."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from archdsl.blocks.base import Value
from archdsl.blocks.miras.descents import ClosedForm, Momentum, Windowed
from archdsl.blocks.miras.maps import Mapped
from archdsl.blocks.miras.retention import Kept
from archdsl.blocks.ops import memory as ops
from archdsl.blocks.ops.dense import Activate, Linear, RepeatHeads
from archdsl.kernels.learner.rule import Keep, Learn, Rule, Store

if TYPE_CHECKING:
    from archdsl.blocks.miras.mixer import Miras
    from archdsl.blocks.miras.shell import MatrixShell, Shell, VectorShell


def rule_of(mixer: Miras, store: Store) -> Rule:
    """The point as the learner family takes it."""
    return Rule(store, mixer.bias.loss, keep_of(mixer), learn_of(mixer), words_of(mixer))


def keep_of(mixer: Miras) -> Keep:
    """Its retention."""
    retention = mixer.retention
    if isinstance(retention, Mapped) and not retention.trivial:
        return retention.keep
    return Keep(decay=mixer.per())


def learn_of(mixer: Miras) -> Learn:
    """Its learner."""
    if isinstance(mixer.learner, ClosedForm):
        return mixer.learner.learn
    return mixer.descent.learn


def words_of(mixer: Miras) -> tuple[str, str, str, str]:
    """Memory, bias, retention and learner, as ``archdsl show`` says them."""
    retention = "no retention"
    if isinstance(mixer.retention, Mapped):
        retention = mixer.retention.words
    elif mixer.per() != "none":
        retention = f"a decay a {mixer.per()}"
    learner = "closed form" if isinstance(mixer.learner, ClosedForm) else mixer.descent.words
    return mixer.memory.words, mixer.bias.words, retention, learner


def lower_learner(shell: MatrixShell, query: Value, key: Value, value: Value, kept: Kept) -> Value:
    """The memory of a mixer with heads."""
    mixer, rule = shell.mixer, rule_of(shell.mixer, shell.store)
    gates = [gate for _, gate in _named(shell, rule, shell.heads, shell.key_dim)]
    point = _point(mixer, rule, shell.heads)
    decay = [] if kept.log_decay is None else [kept.log_decay]
    return shell.build.add(point, query, key, value, *decay, *gates, name="memory")


def lower_channels(shell: VectorShell, inner: int, key: Value, value: Value, kept: Kept) -> Value:
    """A vector memory: every channel is a memory of one number, and is itself what is read."""
    mixer, build = shell.mixer, shell.build
    one = build.add(ops.FixedRate(heads=inner, learned=False), shell.stream, name="query")
    decay = _each(shell, kept.log_decay, inner, "decay_each")
    store = Store((1, 1))
    if not mixer.learns:
        delta = _delta(mixer, inner)
        rate = _each(shell, _rate(shell, 1, 1, Fraction(mixer.steep)), inner, "rate_each")
        given = [one, key, value, decay, rate]
        return build.add(delta, *[port for port in given if port is not None], name="memory")
    rule = rule_of(mixer, store)
    keep = replace(rule.keep, decay="head") if rule.keep.decay == "channel" else rule.keep
    rule = replace(rule, keep=keep, learn=replace(rule.learn, rate="head"))
    named = _named(shell, rule, 1, inner)
    gates = [_each(shell, gate, inner, f"{name}_each") for name, gate in named]
    ports = [one, key, value, *([] if decay is None else [decay])]
    ports += [gate for gate in gates if gate is not None]
    return build.add(_point(mixer, rule, inner), *ports, name="memory")


def _delta(mixer: Miras, inner: int) -> ops.Memory:
    per = mixer.per()
    return ops.Memory(
        heads=inner,
        key_dim=1,
        value_dim=1,
        memory="vector",
        bias="l2",
        decay="head" if per == "channel" else per,
        rate=True,
        scale=1.0,
    )


def _point(mixer: Miras, rule: Rule, heads: int) -> ops.Memory:
    widths = rule.store.widths
    return ops.Memory(
        heads=heads,
        key_dim=widths[0],
        value_dim=widths[-1],
        memory="matrix",
        bias="l2",
        scale=None if mixer.scale is None else float(mixer.scale),
        rule=rule,
    )


def _each(shell: Shell, gate: Value | None, inner: int, name: str) -> Value | None:
    """One number for all channels, a channel."""
    if gate is None or gate.type.width == inner:
        return gate
    return shell.build.add(RepeatHeads(width=1, heads=1, times=inner), gate, name=name)


def _named(shell: Shell, rule: Rule, heads: int, channels: int) -> list[tuple[str, Value]]:
    mixer, build = shell.mixer, shell.build
    found = [("rate", _rate(shell, heads, channels, _times(mixer)))]
    source = shell.source("rate")
    if rule.learn.carries and isinstance(mixer.learner, Momentum):
        found.append(("momentum", mixer.learner.lower_momentum(build, source, heads)))
    if rule.learn.window > 1 and isinstance(mixer.learner, Windowed):
        found.append(("weight", mixer.learner.lower_weight(build, source, heads)))
    if rule.loss.token:
        found.append(("threshold", _threshold(shell, heads * rule.learn.writes)))
    return found


def _times(mixer: Miras) -> Fraction:
    """The share of the step that each of several gradients taken at one memory has."""
    if isinstance(mixer.learner, ClosedForm):
        return Fraction(1)
    return Fraction(1, mixer.descent.shared)


def _rate(shell: Shell, heads: int, channels: int, times: Fraction) -> Value:
    """The step size ``[B, T, heads]``, or one a key channel."""
    descent, build = shell.mixer.descent, shell.build
    rate = descent.lower(build, shell.source("rate"), heads, channels, None, times)
    if rate is not None:
        return rate
    largest = float(descent.beta_max * times)
    fixed = ops.FixedRate(heads=heads * descent.steps, learned=False, maximum=largest)
    return build.add(fixed, shell.stream, name="rate")


def _threshold(shell: Shell, width: int) -> Value:
    """Softplus of a projection, which starts at 1."""
    op = Linear(
        width_in=shell.stream.type.width, width_out=width, bias=True, bias_init=0.5413248546129181
    )
    logits = shell.build.add(op, shell.stream, name="threshold")
    return shell.build.add(Activate(function="softplus"), logits, name="threshold_gate")
