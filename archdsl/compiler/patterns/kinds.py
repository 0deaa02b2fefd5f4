"""The one form of a pattern: mixers and channel mixers in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics import ArchError, Diagnostic

if TYPE_CHECKING:
    from archdsl.compiler.spaces.arch import Arch
    from archdsl.compiler.terms.elements import Element

CHANNELS = {"swiglu": "mlp", "mlp": "mlp", "moe": "moe"}
"""Channel mixers, by the name of their component."""

ATTENTION = {"attention": "attention", "latent_attention": "mla"}
"""Attention, likewise."""

SILENT = ("embed", "rms_norm", "layer_norm", "lm_head", "classifier", "conv", "token_shift", "linear",
          "activation")  # fmt: skip
"""Layers of which no pattern speaks."""

PLAIN = ("residual", "stack", "repeat", "hyper", "mhc", "scaled_init")
"""Containers that only say where layers stand."""


@dataclass(frozen=True)
class Kind:
    """One mixer or channel mixer in place.

    Args:
        name: ``attention``, ``mamba2``, ``gated_deltanet``, …, ``mlp`` or ``moe``.
        window: of attention, in tokens.
        group: the set of weights it shares with others of the same number.
    """

    name: str
    window: int | None = None
    group: int | None = None

    @property
    def channel(self) -> bool:
        """Whether it mixes channels and not positions."""
        return self.name in CHANNELS.values()

    @property
    def label(self) -> str:
        """What a layer of it is called: ``attention``, ``window_512``, ``shared_0``."""
        if self.group is not None:
            return f"shared_{self.group}"
        return self.name if self.window is None else f"window_{self.window}"


@dataclass(frozen=True)
class Sizes:
    """What a pattern's file needs besides the pattern.

    Args:
        width: channels.
        symbols: of the vocabulary.
        heads: of attention; ``kv_heads`` of its keys and values, each ``head_dim`` wide.
        kv_heads: likewise.
        head_dim: likewise.
        latent: channels that latent attention compresses keys and values to.
        memory_heads: of memories.
        experts: of a mixture, of which a token uses ``top``.
        top: likewise.
        expand: inner width of a channel mixer over the outer one; ``narrow`` of an expert.
        narrow: likewise.
        adapter: rank of what a shared layer has of its own at each place.
    """

    width: int = 128
    symbols: int = 256
    heads: int = 4
    kv_heads: int | None = None
    head_dim: int | None = None
    latent: int | None = None
    memory_heads: int = 4
    experts: int = 8
    top: int = 2
    expand: Fraction | None = None
    narrow: Fraction | None = None
    adapter: int | None = None


Layer = tuple[Kind, ...]
"""A mixer, a channel mixer, or one of each in this order."""


def layers_of(kinds: Sequence[Kind]) -> list[Layer]:
    """A layer for each mixer with its channel mixer, where every mixer has one; else one a kind."""
    pairs = list(zip(kinds[::2], kinds[1::2], strict=False))
    paired = len(kinds) % 2 == 0 and all(c.channel and not m.channel for m, c in pairs)
    return list(pairs) if paired else [(kind,) for kind in kinds]


# --- from an architecture -----------------------------------------------------------------------------


def of_arch(arch: Arch) -> list[Kind]:
    """The kinds of an architecture, in order.

    Raises:
        ArchError: it has layers of which no pattern speaks.
    """
    found = [kind for element in arch.root for kind in _kinds(element, None)]
    if not found:
        raise refused("this architecture has no layers of which a pattern speaks")
    return found


def _kinds(element: Element, group: int | None) -> Iterator[Kind]:
    name, component = element.name, element.component
    if name in CHANNELS:
        yield Kind(CHANNELS[name], group=group)
    elif name in ATTENTION:
        yield Kind(ATTENTION[name], getattr(component, "window", None), group)
    elif name == "residual" and _named(element) == ["conv"]:
        yield Kind("conv", group=group)
    elif element.visits and component.name in PLAIN:
        tied: Sequence[str] = getattr(component, "tied", ())
        for visit in element.visits:
            inner = tied.index(visit.label) if visit.label in tied else group
            for child in visit.elements:
                yield from _kinds(child, inner)
    elif element.origin is not None or component.name == "miras":
        yield Kind(name, group=group)
    elif name not in SILENT:
        raise refused(f"a pattern of layers has no word for `{name}`")


def _named(residual: Element) -> list[str]:
    """The layers of a residual branch besides its norms: of one with a lone convolution that is the mixer."""
    inside = [child.name for visit in residual.visits for child in visit.elements]
    return [name for name in inside if name not in ("rms_norm", "layer_norm")]


def sizes_of_arch(arch: Arch) -> Sizes:
    """Widths, heads and experts of an architecture: of each kind of layer the first one's."""
    found: dict[str, Any] = {}
    for element in walk(arch.root):
        names = SIZES.get(element.component.name, {})
        for size, argument in names.items():
            found.setdefault(size, getattr(element.component, argument))
    return Sizes(**{size: value for size, value in found.items() if value is not None})


SIZES: Mapping[str, Mapping[str, str]] = {
    "embed": {"width": "dim", "symbols": "vocab"},
    "attention": {"heads": "heads", "kv_heads": "kv_heads", "head_dim": "head_dim"},
    "latent_attention": {"heads": "heads", "head_dim": "head_dim", "latent": "latent"},
    "moe": {"experts": "experts", "top": "top"},
}
"""The arguments of components that say the sizes."""


def walk(elements: Sequence[Element]) -> Iterator[Element]:
    """Every element, those in front first."""
    for element in elements:
        yield element
        for visit in element.visits:
            yield from walk(visit.elements)


# --- to a file of the language -------------------------------------------------------------------------

MIXERS = {
    "attention": "attention(heads = {heads}{kv_heads}{head_dim}, position = rope{window})",
    "mla": "latent_attention(heads = {heads}{latent}{head_dim})",
    "dsa": "attention(heads = {heads}{head_dim}, position = rope)",
    "mamba": "mamba",
    "rg_lru": "rg_lru",
    "hgrn": "hgrn",
    "conv": "conv(kernel = 4)",
    "mlp": "swiglu{expand}",
    "moe": "moe(experts = {experts}, top = {top}) {{ swiglu{narrow} }}",
}
"""How a kind is written; other mixers are ``name(heads = …)``."""

STAND_INS = {
    "dsa": "Full attention stands in for sparse attention.",
    "conv": "A short convolution stands in for a gated or a long one.",
}
"""Kinds that another one stands in for."""


def arch_text(kinds: Sequence[Kind], sizes: Sizes, source: str) -> str:
    """A file of the language with a stack of this pattern.

    Args:
        kinds: the pattern.
        sizes: widths, heads and so on.
        source: what it was read from, for the first line.
    """
    layers = layers_of(kinds)
    labels = [_label(layer) for layer in layers]
    bodies = {label: _body(layer, sizes) for label, layer in zip(labels, layers, strict=True)}
    shared = [label for label in bodies if label.startswith("shared_")]
    tied = f", tied = [{', '.join(shared)}]" if shared else ""
    tied += f", adapter = {sizes.adapter}" if shared and sizes.adapter else ""
    width = max(map(len, bodies)) + 1
    notes = [f"# Layers of {source}: the pattern, and the sizes it names; all else is by default."] + [
        f"# {what}" for name, what in STAND_INS.items()
        if any(kind.name == name for kind in kinds)
    ]  # fmt: skip
    return "\n".join([
        *notes, "",
        *(("def block(mixer, channel) {", "    residual { rms_norm  mixer }",
           "    residual { rms_norm  channel }", "}") if any(len(x) == 2 for x in layers)
          else ("def layer(mixer) { residual { rms_norm  mixer } }",)), "",
        "model {",
        f"    embed(dim = {sizes.width}, vocab = {sizes.symbols})",
        f"    stack(depth = {len(layers)}{_order(labels)}{tied}) {{",
        *(f"        {f'{label}:':{width}} {body}" for label, body in bodies.items()),
        "    }", "    rms_norm", "    lm_head", "}", "",
    ])  # fmt: skip


def _label(layer: Layer) -> str:
    moe = "_moe" if len(layer) == 2 and layer[1].name == "moe" else ""
    return layer[0].label + moe


def _body(layer: Layer, sizes: Sizes) -> str:
    parts = [_written(kind, sizes) for kind in layer]
    return f"block({', '.join(parts)})" if len(parts) == 2 else f"layer({parts[0]})"


def _written(kind: Kind, sizes: Sizes) -> str:
    form = MIXERS.get(kind.name, f"{kind.name}(heads = {{memory_heads}})")
    return form.format(
        heads=sizes.heads,
        kv_heads="" if sizes.kv_heads in (None, sizes.heads) else f", kv_heads = {sizes.kv_heads}",
        head_dim="" if sizes.head_dim is None else f", head_dim = {sizes.head_dim}",
        latent="" if sizes.latent is None else f", latent = {sizes.latent}",
        memory_heads=sizes.memory_heads,
        window="" if kind.window is None else f", window = {kind.window}",
        experts=sizes.experts,
        expand="" if sizes.expand is None else f"(expand = {sizes.expand})",
        narrow="" if sizes.narrow is None else f"(expand = {sizes.narrow})",
        top=sizes.top,
    )


def _order(labels: Sequence[str]) -> str:
    """The shortest spelling of an order: nothing, a ratio, or its period as a cycle."""
    kinds = list(dict.fromkeys(labels))
    if len(kinds) == 1:
        return ""
    size = len(labels)
    period = next(
        p
        for p in range(1, size + 1)
        if size % p == 0 and list(labels) == list(labels[:p]) * (size // p)
    )
    once = labels[:period]
    if len(kinds) == 2 and once == sorted(once, key=kinds.index):
        return f", ratio = {once.count(kinds[0])}:{once.count(kinds[1])}"
    return f", cycle = [{', '.join(once)}]"


def refused(message: str, help: str = "") -> ArchError:
    """A pattern that cannot be read or written."""
    return ArchError(Diagnostic("unknown-pattern", message, help=help))


def disagree(message: str, help: str = "") -> ArchError:
    """Two keys of one configuration that say different things."""
    return ArchError(Diagnostic("keys-disagree", message, help=help))
