"""Other tools' notations → kinds. A configuration that says a thing twice must say the same twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import zip_longest
from typing import Any

from archdsl.compiler.patterns.kinds import Kind, Layer, Sizes, disagree, layers_of, refused

Config = Mapping[str, Any]

SYMBOLS = {
    "M": "mamba2", "G": "gated_deltanet", "*": "attention", "+": "mla", "D": "dsa", "-": "mlp", "E": "moe",
}  # fmt: skip
"""Megatron-LM's hybrid layer pattern: one symbol a layer."""

TYPES = {
    "full_attention": "attention", "attention": "attention", "attn": "attention",
    "sliding_attention": "window", "swa": "window", "chunked_attention": "window",
    "mamba": "mamba", "mamba2": "mamba2", "recurrent": "rg_lru", "mlp": "mlp", "moe": "moe",
    "hybrid": "hybrid",
}  # fmt: skip
"""Names of layers in ``layer_types``, ``layers_block_type`` and ``block_types``."""

LINEAR = {
    "qwen3_next": "gated_deltanet", "qwen3_5": "gated_deltanet", "kimi_linear": "kda",
    "minimax": "retnet", "nemotron_h": "mamba2", "zamba2": "mamba2", "bamba": "mamba2",
    "granitemoehybrid": "mamba2", "jamba": "mamba",
}  # fmt: skip
"""What a model's ``linear_attention`` or ``mamba`` layers are, by its ``model_type``."""

FLAT = ("nemotron_h",)
"""Models in whose lists mixers and channel mixers are layers of their own."""

ALONE = ("zamba2", "mamba2", "mamba")
"""Models whose recurrent layers have no channel mixer."""


def read(text: str) -> tuple[list[Kind], Sizes]:
    """The pattern and the sizes in a Megatron string or a JSON configuration.

    Raises:
        ArchError: it is neither, or it says a thing twice and differently.
    """
    if not text.lstrip().startswith("{"):
        return megatron(text.strip()), Sizes()
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise refused(f"this is no JSON: {error.msg} in line {error.lineno}") from None
    config = {**config, **config.get("text_config", {})} if isinstance(config, dict) else {}
    found = [(key, list(reader(config))) for key, reader in READERS.items() if _given(config, key)]
    if not found:
        keys = ", ".join(f"`{key}`" for key in READERS)
        raise refused("this configuration has no pattern of layers", help=f"one of {keys} is read")
    for key, layers in found[1:]:
        _compare(found[0], (key, layers))
    _count(found[0], config)
    return [kind for layer in found[0][1] for kind in layer], sizes_of(config)


def _given(config: Config, key: str) -> bool:
    return config.get(key) is not None and config[key] != []


# --- redundancy ---------------------------------------------------------------------------------------


def _compare(first: tuple[str, list[Layer]], second: tuple[str, list[Layer]]) -> None:
    """Mixers must be the same; which channel mixer stands behind them only some keys know."""
    pairs = zip_longest(*([_mixer(layer) for layer in layers] for _, layers in (first, second)))
    for number, (a, b) in enumerate(pairs):
        if a != b:
            raise disagree(
                f"`{first[0]}` and `{second[0]}` disagree at layer {number} (from 0):"
                f" {_said(a)} and {_said(b)}",
                help="remove one of the two keys",
            )


def _mixer(layer: Layer) -> str:
    return layer[0].label


def _said(label: str | None) -> str:
    return "no layer" if label is None else f"`{label}`"


def _count(found: tuple[str, list[Layer]], config: Config) -> None:
    said, key = config.get("num_hidden_layers"), found[0]
    number = len(layers_of([k for layer in found[1] for k in layer])) if key in STRINGS else 0
    if said is not None and said not in (len(found[1]), number):
        raise disagree(
            f"`{key}` has {len(found[1])} layers, and `num_hidden_layers` says {said}",
            help="give one of them, or make them agree",
        )


# --- readers: a list of layers each -------------------------------------------------------------------


def megatron(pattern: str) -> list[Kind]:
    """Megatron-LM's string: ``|`` cuts pipeline stages, ``/`` begins multi-token-prediction tails."""
    odd = [symbol for symbol in pattern if symbol not in "|/" and symbol not in SYMBOLS]
    if odd or not pattern:
        raise refused(
            f"`{odd[0]}` is no symbol of a layer pattern" if odd else "the pattern is empty",
            help=f"Megatron's symbols are {' '.join(SYMBOLS)}, and `|` and `/` between them",
        )
    body, *tails = pattern.replace("|", "").split("/")
    if len(set(tails)) > 1:
        raise disagree(
            "the pattern's prediction tails differ", help="write the same tail each time"
        )
    if len({"*", "+", "D"} & set(body)) > 1:
        raise refused("attention, latent and sparse attention do not stand in one pattern")
    return [Kind(SYMBOLS[symbol]) for symbol in body]


def _string(key: str) -> Callable[[Config], list[Layer]]:
    return lambda config: [(kind,) for kind in megatron(config[key])]


def _types(key: str) -> Callable[[Config], list[Layer]]:
    """A list of names; a shorter one than the model is repeated, as Griffin's is."""

    def reader(config: Config) -> list[Layer]:
        names, depth = list(config[key]), config.get("num_hidden_layers")
        if key == "block_types" and depth:
            names = [names[layer % len(names)] for layer in range(depth)]
        return list(_named(names, config))

    return reader


def _named(names: Sequence[str], config: Config) -> Iterable[Layer]:
    hybrids = 0
    for name in names:
        kind = _kind(name, config)
        if kind.name == "hybrid":
            yield (Kind("attention", group=hybrids % config.get("num_mem_blocks", 1)),
                   Kind(_linear(config)))  # fmt: skip
            hybrids += 1
        else:
            yield _with_channel(kind, config)


def _kind(name: str, config: Config) -> Kind:
    if name == "linear_attention":
        return Kind(_linear(config))
    if name == "mamba":
        return Kind(LINEAR.get(config.get("model_type", ""), "mamba"))
    known = TYPES.get(name, name if name in LINEAR.values() else None)
    if known is None:
        raise refused(
            f"`{name}` is no kind of layer that is known", help=f"known: {', '.join(TYPES)}"
        )
    return _windowed(config) if known == "window" else Kind(known)


def _linear(config: Config) -> str:
    return str(config.get("mixer") or LINEAR.get(config.get("model_type", ""), "linear_attention"))


def _windowed(config: Config) -> Kind:
    return Kind(
        "attention", window=config.get("sliding_window") or config.get("window_size") or 4096
    )


def _with_channel(kind: Kind, config: Config, channel: str | None = None) -> Layer:
    model = config.get("model_type", "")
    if kind.channel or model in FLAT or (model in ALONE and kind.name != "attention"):
        return (kind,)
    return (kind, Kind(channel or ("moe" if config.get("num_experts") else "mlp")))


def _interval(config: Config) -> list[Layer]:
    """Qwen3-Next: every so-many-th layer is full attention, the last of each group."""
    every = config["full_attention_interval"]
    full = [(layer + 1) % every == 0 for layer in range(_depth(config))]
    kinds = (Kind("attention") if is_full else Kind(_linear(config)) for is_full in full)
    return [_with_channel(kind, config) for kind in kinds]


def _sliding(config: Config) -> list[Layer]:
    """Gemma 3: every so-many-th layer sees everything, the others a window."""
    every = config["sliding_window_pattern"]
    full = [(layer + 1) % every == 0 for layer in range(_depth(config))]
    kinds = (Kind("attention") if is_full else _windowed(config) for is_full in full)
    return [_with_channel(kind, config) for kind in kinds]


def _jamba(config: Config) -> list[Layer]:
    """Two pairs: layer ``i`` is attention where ``i % period == offset``, and has experts likewise."""
    period, offset = config["attn_layer_period"], config.get("attn_layer_offset", 0)
    every, first = config.get("expert_layer_period"), config.get("expert_layer_offset", 0)
    return [
        (
            Kind("attention" if layer % period == offset else "mamba"),
            Kind("moe" if every and layer % every == first else "mlp"),
        )
        for layer in range(_depth(config))
    ]


def _kimi(config: Config) -> list[Layer]:
    """Both kinds listed, counted from 1."""
    given = config["linear_attn_config"]
    lists = {"attention": given["full_attn_layers"], "kda": given["kda_layers"]}
    kinds = _listed(lists, config, 1)
    dense = config.get("first_k_dense_replace", 0)
    return [
        _with_channel(kind, config, "mlp" if layer < dense else None)
        for layer, kind in enumerate(kinds)
    ]


def _striped(config: Config) -> list[Layer]:
    """StripedHyena: both kinds listed, counted from 0."""
    lists = {"attention": config["attn_layer_idxs"], "conv": config["hyena_layer_idxs"]}
    return [_with_channel(kind, config) for kind in _listed(lists, config, 0)]


def _listed(lists: Mapping[str, Sequence[int]], config: Config, base: int) -> list[Kind]:
    depth = (
        config.get("num_hidden_layers") or config.get("num_layers") or sum(map(len, lists.values()))
    )
    found: dict[int, str] = {}
    for name, indices in lists.items():
        for index in indices:
            if not base <= index < depth + base:
                raise disagree(
                    f"layer {index} is listed as `{name}`, and the layers are {base} to {depth + base - 1}"
                )
            if found.setdefault(index, name) != name:
                raise disagree(f"layer {index} is listed as `{found[index]}` and as `{name}`")
    missing = [index for index in range(base, depth + base) if index not in found]
    if missing:
        raise disagree(f"layer {missing[0]} is in no list", help="list every layer once")
    return [Kind(found[index]) for index in range(base, depth + base)]


def _fla(config: Config) -> list[Layer]:
    """flash-linear-attention: listed layers are attention, each dictionary with a window of its own."""
    given = config["attn"] if isinstance(config["attn"], list) else [config["attn"]]
    kinds = [Kind(str(config.get("model_type") or _linear(config)))] * _depth(config)
    for one in given:
        for index in one["layers"]:
            if not 0 <= index < len(kinds):
                raise disagree(
                    f"`attn` lists layer {index}, and the layers are 0 to {len(kinds) - 1}"
                )
            kinds[index] = Kind("attention", window=one.get("window_size"))
    return [_with_channel(kind, {**config, "model_type": ""}) for kind in kinds]


def _zamba(config: Config) -> list[Layer]:
    """Zamba2: listed layers have one of the shared blocks, in turn, in front of their Mamba-2."""
    ids, blocks = list(config["hybrid_layer_ids"]), config.get("num_mem_blocks", 1)
    outside = [index for index in ids if not 0 <= index < _depth(config)]
    if outside:
        raise disagree(f"`hybrid_layer_ids` lists layer {outside[0]} of {_depth(config)}")
    own = Kind(_linear({"model_type": "zamba2", **config}))
    return [
        (Kind("attention", group=ids.index(layer) % blocks), own) if layer in ids else (own,)
        for layer in range(_depth(config))
    ]


def _depth(config: Config) -> int:
    known = config.get("num_hidden_layers")
    for key in ("layer_types", "layers_block_type"):
        known = known or len(config.get(key) or ())
    if not known:
        raise refused("this configuration does not say how many layers there are",
                      help="give `num_hidden_layers`")  # fmt: skip
    return int(known)


STRINGS = ("hybrid_layer_pattern", "hybrid_override_pattern")

READERS: Mapping[str, Callable[[Config], Iterable[Layer]]] = {
    **{key: _string(key) for key in STRINGS},
    "hybrid_layer_ids": _zamba,
    "layers_block_type": _types("layers_block_type"),
    "layer_types": _types("layer_types"),
    "linear_attn_config": _kimi,
    "attn_layer_period": _jamba,
    "full_attention_interval": _interval,
    "sliding_window_pattern": _sliding,
    "block_types": _types("block_types"),
    "attn_layer_idxs": _striped,
    "attn": _fla,
}
"""Keys that say a pattern, and what they say; where a configuration has several they must agree."""


def sizes_of(config: Config) -> Sizes:
    """Widths and heads, as far as a configuration names them."""
    plain = Sizes()
    attn = config.get("attn")
    attn = attn[0] if isinstance(attn, list) and attn else attn or {}
    width = config.get("hidden_size") or plain.width
    inner = config.get("intermediate_size")
    narrow = config.get("moe_intermediate_size") or inner
    return Sizes(
        width=width,
        symbols=config.get("vocab_size") or plain.symbols,
        heads=config.get("num_attention_heads") or attn.get("num_heads") or plain.heads,
        kv_heads=config.get("num_key_value_heads") or attn.get("num_kv_heads"),
        experts=config.get("num_experts") or plain.experts,
        top=config.get("num_experts_per_tok") or config.get("num_experts_per_token") or plain.top,
        expand=Fraction(inner, width) if inner else None,
        narrow=Fraction(narrow, width) if narrow else None,
        adapter=config.get("adapter_rank"),
    )
