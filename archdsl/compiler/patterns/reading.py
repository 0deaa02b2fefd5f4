"""Other tools' notations → kinds. A configuration that says a thing twice must say the same twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import zip_longest

from archdsl.compiler.patterns.config import Config, config_of
from archdsl.compiler.patterns.kinds import Kind, Layer, Sizes, disagree, layers_of, refused

SYMBOLS = {
    "M": "mamba2", "G": "gated_deltanet", "*": "attention", "+": "mla", "D": "dsa", "-": "mlp", "E": "moe",
}  # fmt: skip
"""Megatron-LM's hybrid layer pattern: one symbol a layer."""

TYPES = {
    "full_attention": "attention", "attention": "attention", "attn": "attention",
    "sliding_attention": "window", "swa": "window", "chunked_attention": "window",
    "mamba": "mamba", "mamba2": "mamba2", "recurrent": "rg_lru", "mlp": "mlp", "moe": "moe",
    "hybrid": "hybrid", "conv": "conv", "jet": "gated_deltanet",
}  # fmt: skip
"""Names of layers in ``layer_types``, ``layers_block_type`` and ``block_types``."""

LINEAR = {
    "qwen3_next": "gated_deltanet", "qwen3_5": "gated_deltanet", "olmo_hybrid": "gated_deltanet",
    "kimi_linear": "kda", "minimax": "retnet", "nemotron_h": "mamba2", "zamba2": "mamba2",
    "bamba": "mamba2", "granitemoehybrid": "mamba2", "jamba": "mamba", "zamba": "mamba", "lfm2": "conv",
}  # fmt: skip
"""What a model's ``linear_attention``, ``mamba`` or other layers are, by its ``model_type``."""

FLA = {
    "delta_net": "deltanet",
    "linear_attn": "linear_attention",
    "gated_deltaproduct": "deltaproduct",
}
"""flash-linear-attention's names of memories, where they are not ours."""

MEMORIES = (
    "gla", "retnet", "linear_attention", "deltanet", "gated_deltanet", "deltaproduct", "kda", "comba",
    "mamba", "mamba2", "hgrn", "hgrn2", "lightnet", "rwkv6", "rwkv7", "mlstm", "rg_lru",
)  # fmt: skip
"""What a ``model_type`` of flash-linear-attention may name."""

FLAT = ("nemotron_h",)
"""Models in whose lists mixers and channel mixers are layers of their own."""

ALONE = ("zamba", "zamba2", "mamba2", "mamba")
"""Models whose recurrent layers have no channel mixer."""


def read(text: str) -> tuple[list[Kind], Sizes]:
    """The pattern and the sizes in a Megatron string or a JSON configuration.

    Raises:
        ArchError: it is neither, or it says a thing twice and differently.
    """
    if not text.lstrip().startswith("{"):
        return megatron(text.strip()), Sizes()
    config = config_of(text)
    given = [key for key in READERS if getattr(config, key) is not None]
    if not given:
        keys = ", ".join(f"`{key}`" for key in READERS)
        raise refused("this configuration has no pattern of layers", help=f"one of {keys} is read")
    first, *others = [(key, READERS[key](config)) for key in given]
    for other in others:
        _compare(first, other)
    _count(first, config)
    return [kind for layer in _whole(first, config) for kind in layer], sizes_of(config)


# --- redundancy ---------------------------------------------------------------------------------------

Found = tuple[str, list[Layer]]
"""A key, and the layers it says."""


def _compare(first: Found, second: Found) -> None:
    """Two keys must name the same mixers."""
    pairs = zip_longest(*([layer[0].label for layer in layers] for _, layers in (first, second)))
    for number, (a, b) in enumerate(pairs):
        if a != b:
            raise disagree(
                f"`{first[0]}` and `{second[0]}` disagree at layer {number} (from 0):"
                f" {_said(a)} and {_said(b)}",
                help="remove one of the two keys",
            )


def _said(label: str | None) -> str:
    return "no layer" if label is None else f"`{label}`"


def _count(found: Found, config: Config) -> None:
    said, key = config.num_hidden_layers, found[0]
    number = len(layers_of([k for layer in found[1] for k in layer])) if key in STRINGS else 0
    if said is not None and said not in (len(found[1]), number):
        raise disagree(
            f"`{key}` has {len(found[1])} layers, and `num_hidden_layers` says {said}",
            help="give one of them, or make them agree",
        )


# --- channel mixers -----------------------------------------------------------------------------------


def _whole(found: Found, config: Config) -> Iterator[Layer]:
    """The layers with the channel mixers behind them, of which most keys do not speak."""
    key, layers = found
    flat = key in STRINGS or _family(config) in FLAT
    alone = key != "attn" and _family(config) in ALONE
    for number, layer in enumerate(layers):
        own = layer[-1].channel or (alone and layer[-1].name != "attention")
        yield layer if flat or own else (*layer, Kind(_channel(number, config)))


def _channel(layer: int, config: Config) -> str:
    """``moe`` where a layer has experts: by Jamba's period, or wherever it is not said to be dense."""
    experts = config.num_experts
    if config.expert_layer_period:
        first = config.expert_layer_offset
        return "moe" if experts != 1 and layer % config.expert_layer_period == first else "mlp"
    dense = layer < config.first_k_dense_replace or layer in config.mlp_only_layers
    sparse = not dense and (layer + 1) % config.sparse_step == 0
    return "moe" if experts and experts > 1 and sparse else "mlp"


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
    if not body:
        raise refused("the pattern has no layers before its prediction tails")
    return [Kind(SYMBOLS[symbol]) for symbol in body]


def _string(key: str) -> Callable[[Config], list[Layer]]:
    return lambda config: [(kind,) for kind in megatron(getattr(config, key))]


def _types(key: str) -> Callable[[Config], list[Layer]]:
    """A list of names; Griffin's is shorter than the model, and repeated."""

    def reader(config: Config) -> list[Layer]:
        names: Sequence[str] = getattr(config, key)
        if config.num_hidden_layers and "recurrent" in names:
            names = [names[layer % len(names)] for layer in range(config.num_hidden_layers)]
        return list(_named(names, config))

    return reader


def _named(names: Sequence[str], config: Config) -> Iterator[Layer]:
    hybrids = 0
    for name in names:
        kind = _kind(name, config)
        if kind.name == "hybrid":
            group = hybrids % config.num_mem_blocks
            yield (Kind("attention", group=group), Kind(_linear(config)))
            hybrids += 1
        else:
            yield (kind,)


def _kind(name: str, config: Config) -> Kind:
    if name == "linear_attention":
        return Kind(_linear(config))
    if name == "mamba":
        return Kind(LINEAR.get(_family(config), "mamba"))
    known = TYPES.get(name, name if name in LINEAR.values() else None)
    if known is None:
        raise refused(
            f"`{name}` is no kind of layer that is known", help=f"known: {', '.join(TYPES)}"
        )
    local = known == "attention" and _family(config) == "recurrent_gemma"
    return _windowed(config) if known == "window" or local else Kind(known)


def _family(config: Config) -> str:
    """The ``model_type`` without what tells versions apart: ``qwen3_5_moe_text`` is of ``qwen3_5``."""
    named = (known for known in LINEAR if config.model_type.startswith(f"{known}_"))
    return next(named, config.model_type.removesuffix("_text"))


def _linear(config: Config) -> str:
    return config.mixer or LINEAR.get(_family(config), "linear_attention")


def _windowed(config: Config) -> Kind:
    named = config.efficient_attention_config.get("swa")
    window = config.window or (named.window_size if named else None)
    if window is None:
        raise refused(
            "some layers see a window, and nothing says how large it is",
            help="give `sliding_window`",
        )
    return Kind("attention", window=window)


def _chosen(full: Sequence[bool], config: Config) -> list[Layer]:
    """Attention where it is chosen, and the model's linear mixer elsewhere."""
    return [(Kind("attention" if chosen else _linear(config)),) for chosen in full]


def _interval(config: Config) -> list[Layer]:
    """Qwen3-Next: every so-many-th layer is full attention, the last of each group."""
    every = config.full_attention_interval or 1
    return _chosen([(layer + 1) % every == 0 for layer in range(_depth(config))], config)


def _sliding(config: Config) -> list[Layer]:
    """Gemma 3: every so-many-th layer sees everything; EXAONE 4: ``LLLG``, local and global."""
    said = config.sliding_window_pattern or 1
    names = "L" * (said - 1) + "G" if isinstance(said, int) else said
    if set(names) - {"L", "G"}:
        raise refused(f"`sliding_window_pattern` is `{said}`", help="write a number, or L and G")
    kinds = {"G": Kind("attention")} | ({"L": _windowed(config)} if "L" in names else {})
    return [(kinds[names[layer % len(names)]],) for layer in range(_depth(config))]


def _periodic(config: Config) -> list[Layer]:
    """Jamba: layer ``i`` is attention where ``i % period == offset``; Zamba: likewise from the fourth."""
    period, depth = config.attn_layer_period or 1, _depth(config)
    if _family(config) != "zamba":
        full = [layer % period == config.attn_layer_offset for layer in range(depth)]
        return [(Kind("attention" if chosen else "mamba"),) for chosen in full]
    later = (layer % period == config.attn_layer_offset for layer in range(max(depth - 3, 0)))
    hybrid = ["mamba", "mamba", "hybrid", *("hybrid" if chosen else "mamba" for chosen in later)]
    return list(_named(hybrid[:depth], config))


def _kimi(config: Config) -> list[Layer]:
    """Both kinds listed, counted from 1; attention is latent where a rank of it is given."""
    given = config.linear_attn_config
    assert given is not None, "a reader is called where its key is given"
    lists = {
        "mla" if config.kv_lora_rank else "attention": given.full_attn_layers,
        "kda": given.kda_layers,
    }
    return [(kind,) for kind in _listed(lists, config, 1)]


def _striped(config: Config) -> list[Layer]:
    """StripedHyena: both kinds listed, counted from 0."""
    lists = {"attention": config.attn_layer_idxs or (), "conv": config.hyena_layer_idxs}
    return [(kind,) for kind in _listed(lists, config, 0)]


def _listed(lists: Mapping[str, Sequence[int]], config: Config, base: int) -> list[Kind]:
    depth = config.num_hidden_layers or sum(map(len, lists.values()))
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


def _indices(key: str) -> Callable[[Config], list[Layer]]:
    """Bamba, LFM2: attention is listed, counted from 0."""

    def reader(config: Config) -> list[Layer]:
        ids = _within(key, getattr(config, key), _depth(config))
        return _chosen([layer in ids for layer in range(_depth(config))], config)

    return reader


def _within(key: str, indices: Sequence[int], depth: int) -> Sequence[int]:
    """The indices, if there are so many layers."""
    outside = [index for index in indices if index >= depth]
    if outside:
        raise disagree(f"`{key}` lists layer {outside[0]}, and the layers are 0 to {depth - 1}")
    return indices


def _binary(config: Config) -> list[Layer]:
    """MiniMax-01: 1 for attention, 0 for its linear kind."""
    return _chosen([bool(kind) for kind in config.attn_type_list or ()], config)


def _fla(config: Config) -> list[Layer]:
    """flash-linear-attention: listed layers are attention, each dictionary with a window of its own."""
    depth, found = _depth(config), dict[int, Kind]()
    for one in config.attn or ():
        kind = Kind("attention", window=one.window_size)
        for index in _within("attn", one.layers, depth):
            if found.setdefault(index, kind) != kind:
                raise disagree(f"`attn` lists layer {index} with two windows")
    own = FLA.get(config.model_type, config.model_type or _linear(config))
    if own not in MEMORIES and len(found) < depth:
        raise refused(
            f"`{own}` is no memory that is known", help=f"known: {', '.join((*FLA, *MEMORIES))}"
        )
    return [(found.get(layer, Kind(own)),) for layer in range(depth)]


def _zamba(config: Config) -> list[Layer]:
    """Zamba2: listed layers have one of the shared blocks, in turn, in front of their Mamba-2."""
    depth = _depth(config)
    ids = _within("hybrid_layer_ids", config.hybrid_layer_ids or (), depth)
    own = Kind(LINEAR.get(_family(config), "mamba2"))
    blocks = config.num_mem_blocks
    return [
        (Kind("attention", group=ids.index(layer) % blocks), own) if layer in ids else (own,)
        for layer in range(depth)
    ]


def _depth(config: Config) -> int:
    lists = (config.layer_types or (), config.layers_block_type or ())
    known = config.num_hidden_layers or max(map(len, lists))
    if not known:
        raise refused("this configuration does not say how many layers there are",
                      help="give `num_hidden_layers`")  # fmt: skip
    return known


STRINGS = ("hybrid_layer_pattern", "hybrid_override_pattern")

READERS: Mapping[str, Callable[[Config], list[Layer]]] = {
    **{key: _string(key) for key in STRINGS},
    "hybrid_layer_ids": _zamba,
    "layers_block_type": _types("layers_block_type"),
    "layer_types": _types("layer_types"),
    "linear_attn_config": _kimi,
    "attn_layer_period": _periodic,
    "full_attention_interval": _interval,
    "sliding_window_pattern": _sliding,
    "block_types": _types("block_types"),
    "attn_layer_idxs": _striped,
    "attn_layer_indices": _indices("attn_layer_indices"),
    "full_attn_idxs": _indices("full_attn_idxs"),
    "attn_type_list": _binary,
    "attn": _fla,
}
"""Keys that say a pattern, and what they say; where a configuration has several they must agree."""


def sizes_of(config: Config) -> Sizes:
    """Widths and heads, as far as a configuration names them."""
    plain, attn, lists = Sizes(), config.attn or (), config.linear_attn_config
    width = config.hidden_size or plain.width
    inner = config.intermediate_size
    narrow = config.moe_intermediate_size or inner
    heads = config.num_attention_heads or (attn[0].num_heads if attn else None) or config.num_heads
    kv_heads = config.num_key_value_heads or (attn[0].num_kv_heads if attn else None)
    own = config.num_heads or (lists.num_heads if lists else None)
    heads = heads or plain.heads
    return Sizes(
        width=width,
        symbols=config.vocab_size or plain.symbols,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=config.head_dim if config.num_attention_heads else None,
        latent=config.kv_lora_rank,
        memory_heads=own or heads,
        experts=config.num_experts or plain.experts,
        top=config.num_experts_per_tok or plain.top,
        expand=Fraction(inner, width) if inner else None,
        narrow=Fraction(narrow, width) if narrow else None,
        adapter=config.adapter_rank,
    )
