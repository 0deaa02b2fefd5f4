"""What a memory that learns carries from token to token: names and shapes, free of torch."""

from collections.abc import Mapping

from archdsl.kernels.learner.rule import Rule

Shapes = Mapping[str, tuple[int, ...]]


def state_shapes(rule: Rule, heads: int) -> Shapes:
    """Shapes of one sequence's state, in float32.

    `memory_l` is what has accumulated in layer l; `start_l` what the chunk began with, where a chunk is
    longer than one write; `momentum_l`; the writes of the window before; the soft threshold so far. The
    closed form keeps the sum of key products and the sum of value-key products.
    """
    key, value = rule.store.widths[0], rule.store.widths[-1]
    if rule.learn.form == "closed":
        return {"keys": (heads, key, key), "values": (heads, value, key)}
    found: dict[str, tuple[int, ...]] = {}
    kinds = ["memory"] + ["start"] * (rule.learn.chunk > 1) + ["momentum"] * rule.learn.carries
    for kind in kinds:
        for layer, shape in enumerate(rule.store.shapes):
            found[f"{kind}_{layer}"] = (heads, *shape)
    window = rule.learn.window - 1
    if window:
        found |= {"recent_keys": (heads, window, key), "recent_values": (heads, window, value)}
        found |= {"recent_weights": (heads, window), "recent_thresholds": (heads, window)}
    if rule.keep.form == "elastic_net" and rule.learn.chunk > 1:
        found["sparse"] = (heads,)
    return found
