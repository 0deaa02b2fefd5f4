"""Kinds → other tools' notations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from archdsl.compiler.patterns.kinds import Kind, Layer, Sizes, layers_of, refused
from archdsl.compiler.patterns.reading import ALONE, FLA, FLAT, LINEAR, SYMBOLS, read

Keys = dict[str, Any]


def write(kinds: Sequence[Kind], form: str, sizes: Sizes | None = None) -> str:
    """A pattern in another tool's notation: a string, or the keys of a JSON configuration.

    Args:
        kinds: the pattern.
        form: one of ``FORMATS``.
        sizes: what a configuration says besides.

    Raises:
        ArchError: the notation cannot say it, or would be read as something else.
    """
    made = FORMATS[form](kinds)
    if not isinstance(made, str):
        made = json.dumps(made | _sizes(sizes, made), indent=2)
    _says(made, kinds, form)
    return made


def _says(made: str, kinds: Sequence[Kind], form: str) -> None:
    """Whether what was written is read as what was meant."""
    pairs = enumerate(zip_longest(read(made)[0], kinds))
    lost = [(number, meant) for number, (found, meant) in pairs if found != meant]
    if lost:
        number, meant = lost[0]
        what = "nothing more" if meant is None else f"`{meant.label}`"
        raise refused(f"`--as {form}` cannot say that there is {what} at place {number} (from 0)")


def _sizes(sizes: Sizes | None, made: Keys) -> Keys:
    """The keys of widths, heads and, where there are experts, their numbers."""
    if sizes is None:
        return {}
    keys = {
        "hidden_size": sizes.width,
        "vocab_size": sizes.symbols,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads or sizes.heads,
        "head_dim": sizes.head_dim,
        "kv_lora_rank": sizes.latent,
    }
    experts = {"num_experts": sizes.experts, "num_experts_per_tok": sizes.top}
    sparse = "num_experts" in made or "expert_layer_period" in made
    return {key: value for key, value in keys.items() if value} | (experts if sparse else {})


def megatron(kinds: Sequence[Kind]) -> str:
    """A symbol for each mixer and channel mixer."""
    symbols = {name: symbol for symbol, name in SYMBOLS.items()}
    for kind in kinds:
        if kind.name not in symbols or kind.window is not None or kind.group is not None:
            raise refused(f"Megatron's patterns have no symbol for `{kind.label}`")
    return "".join(symbols[kind.name] for kind in kinds)


def nemotron(kinds: Sequence[Kind]) -> Keys:
    """The same string under its key, and as a list."""
    names = {"mamba2": "mamba"}
    return {
        "model_type": "nemotron_h",
        "hybrid_override_pattern": megatron(kinds),
        "layers_block_type": [names.get(kind.name, kind.name) for kind in kinds],
        "num_hidden_layers": len(kinds),
    }


def layer_types(kinds: Sequence[Kind]) -> Keys:
    """Hugging Face's list of names."""
    mixers = _mixers(kinds, "`layer_types`")
    linear = _one({k.name for k in mixers} - {"attention"}, "`layer_types`")
    window = _one({k.window for k in mixers if k.window is not None}, "`layer_types`")
    paired = {model: name for model, name in LINEAR.items() if model not in FLAT + ALONE}
    models = {name: model for model, name in reversed(paired.items())}
    keys: Keys = {"layer_types": [_type(kind) for kind in mixers], "num_hidden_layers": len(mixers)}
    if linear:
        keys |= {"model_type": models[linear]} if linear in models else {"mixer": linear}
    return keys | ({"sliding_window": window} if window else {}) | _experts(kinds)


def _type(kind: Kind) -> str:
    if kind.name == "attention":
        return "full_attention" if kind.window is None else "sliding_attention"
    named = {"mamba": "mamba", "mamba2": "mamba", "rg_lru": "recurrent", "conv": "conv"}
    return named.get(kind.name, "linear_attention")


def jamba(kinds: Sequence[Kind]) -> Keys:
    """Two pairs of period and offset."""
    layers = _layers(kinds, "Jamba's keys")
    if {mixer.label for mixer, _ in layers} - {"attention", "mamba"}:
        raise refused("Jamba's keys know `mamba` and full `attention` alone")
    attention = _period([mixer.name == "attention" for mixer, _ in layers], "attention")
    experts = [channel.name == "moe" for _, channel in layers]
    keys = {"attn_layer_period": attention[0], "attn_layer_offset": attention[1]}
    if any(experts):
        every = _period(experts, "experts")
        keys |= {"expert_layer_period": every[0], "expert_layer_offset": every[1]}
    return {"model_type": "jamba", "num_hidden_layers": len(layers), **keys}


def _period(chosen: Sequence[bool], what: str) -> tuple[int, int]:
    found = _periods(chosen)
    if found is None:
        raise refused(f"no period and offset give these layers of {what}")
    return found


def _periods(chosen: Sequence[bool]) -> tuple[int, int] | None:
    """Every how many layers one is chosen, and the first of them."""
    size = len(chosen)
    every = ((period, offset) for period in range(1, size + 1) for offset in range(period))
    return next(
        (
            (period, offset)
            for period, offset in every
            if list(chosen) == [layer % period == offset for layer in range(size)]
        ),
        None,
    )


def kimi(kinds: Sequence[Kind]) -> Keys:
    """Both kinds listed, from 1."""
    mixers = _mixers(kinds, "Kimi's lists")
    found = {kind.label for kind in mixers}
    if found - {"kda", "attention"} and found - {"kda", "mla"}:
        raise refused("Kimi's lists know `kda` and one kind of full attention alone")
    full = [layer for layer, kind in enumerate(mixers, 1) if kind.name != "kda"]
    linear = [layer for layer, kind in enumerate(mixers, 1) if kind.name == "kda"]
    lists = {"full_attn_layers": full, "kda_layers": linear}
    head: Keys = {"model_type": "kimi_linear", "num_hidden_layers": len(mixers)}
    head |= {"kv_lora_rank": 512} if "mla" in found else {}
    sparse = [kind.name == "moe" for kind in kinds if kind.channel]
    dense = sparse.index(True) if True in sparse else 0
    experts = _experts(kinds[2 * dense :]) | ({"first_k_dense_replace": dense} if dense else {})
    return {**head, "linear_attn_config": lists, **experts}


def fla(kinds: Sequence[Kind]) -> Keys:
    """A dictionary of attention for each window; a list of them where there are several."""
    mixers = _mixers(kinds, "`attn`")
    linear = _one({k.name for k in mixers} - {"attention"}, "`attn`")
    windows = dict.fromkeys(kind.window for kind in mixers if kind.name == "attention")
    dictionaries = [
        {"layers": [n for n, k in enumerate(mixers) if k == Kind("attention", window)]}
        | ({} if window is None else {"window_size": window})
        for window in windows
    ]
    theirs = {name: model for model, name in FLA.items()}
    model = theirs.get(linear, linear or "transformer")
    keys = {"model_type": model, "num_hidden_layers": len(mixers)}
    return {**keys, "attn": dictionaries[0] if len(dictionaries) == 1 else dictionaries or None}


def zamba(kinds: Sequence[Kind]) -> Keys:
    """Layers of Mamba, some behind shared attention: one block of it in Zamba, several in turn in Zamba2."""
    names: list[str] = []
    ids: list[int] = []
    groups: list[int] = []
    linear = _one({kind.name for kind in kinds if kind.group is None}, "Zamba's keys")
    for before, kind in zip([None, *kinds], kinds, strict=False):
        shared = before is not None and before.group is not None
        if kind.group is not None and kind.name == "attention" and not shared:
            groups.append(kind.group)
        elif kind.group is None and linear in ZAMBAS:
            ids += [len(names)] if shared else []
            names.append("hybrid" if shared else "mamba")
        else:
            known = " or ".join(f"`{name}`" for name in ZAMBAS)
            raise refused(f"Zamba's keys know {known} and shared attention before it alone")
    blocks = len(set(groups)) or 1
    if groups != [n % blocks for n in range(len(groups))] or len(groups) != len(ids):
        raise refused("Zamba's shared blocks stand in turn, each before a layer of Mamba")
    head = {"num_hidden_layers": len(names), "layers_block_type": names}
    return {"model_type": ZAMBAS[linear], **head, **SHARING[linear](names, ids, blocks)}


def _zamba1(names: Sequence[str], ids: Sequence[int], blocks: int) -> Keys:
    """One block; the period and the offset of its places, where they have one."""
    if blocks > 1:
        raise refused("Zamba has one shared block, and these layers have several")
    if names[:3] != ["mamba", "mamba", "hybrid"]:
        return {}
    found = _periods([name == "hybrid" for name in names[3:]])
    return {"attn_layer_period": found[0], "attn_layer_offset": found[1]} if found else {}


def _zamba2(names: Sequence[str], ids: Sequence[int], blocks: int) -> Keys:
    """The places of the blocks, and how many there are."""
    return {"hybrid_layer_ids": list(ids), "num_mem_blocks": blocks}


ZAMBAS = {"mamba": "zamba", "mamba2": "zamba2"}
"""The model of each recurrent layer that shared attention may stand before."""

SHARING: Mapping[str, Callable[[Sequence[str], Sequence[int], int], Keys]] = {
    "mamba": _zamba1,
    "mamba2": _zamba2,
}
"""What says where the shared blocks stand."""


def _layers(kinds: Sequence[Kind], what: str) -> list[tuple[Kind, Kind]]:
    layers: list[Layer] = layers_of(kinds)
    if any(len(layer) != 2 for layer in layers):
        raise refused(f"{what} need a channel mixer behind every mixer", help="use `--as megatron`")
    return [(layer[0], layer[1]) for layer in layers]


def _mixers(kinds: Sequence[Kind], what: str) -> list[Kind]:
    """The mixer of each layer; a shared one has no word here."""
    if any(kind.group is not None for kind in kinds):
        raise refused(f"{what} cannot say which layers share weights", help="use `--as zamba`")
    return [mixer for mixer, _ in _layers(kinds, what)]


def _one(found: set[Any], what: str) -> Any:
    if len(found) > 1:
        named = ", ".join(f"`{each}`" for each in sorted(map(str, found)))
        raise refused(f"{what} can name one of {named}, and these layers have several")
    return next(iter(found), None)


def _experts(kinds: Sequence[Kind]) -> Keys:
    channels = {kind.name for kind in kinds if kind.channel}
    if len(channels) > 1:
        raise refused("this notation has one channel mixer for all layers, and these have two")
    return {"num_experts": 8} if channels == {"moe"} else {}


FORMATS: Mapping[str, Callable[[Sequence[Kind]], str | Keys]] = {
    "megatron": megatron,
    "nemotron": nemotron,
    "layer-types": layer_types,
    "jamba": jamba,
    "kimi": kimi,
    "fla": fla,
    "zamba": zamba,
}
"""Notations that can be written, by the name of their option."""
