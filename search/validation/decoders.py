"""Decoders of "LiteTransformerSearch: Training-free Neural Architecture Search for Language Models".

Javaheripi et al. (NeurIPS 2022, arXiv 2203.02094): Transformer-XL's layers or GPT-2's, with heads and inner
widths of their own in every layer; the target is the perplexity after training, on the validation text
where the file has it. Whose layers they are the records' parameters say, and no other field: those of the
random samples are Transformer-XL's, of GPT-2's table or of its own, and those of GPT-2's Pareto sets GPT-2's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from archdsl.search.validation.base import Entry, Format

SCORED_VOCAB, SCORED_SHARE = 1_000, 2
"""What networks are scored with: symbols, and every width divided by so much."""

POSITIONS = 32
"""Of GPT-2's table of positions; the published length of a sequence (``tgt_len``)."""


def _entry(record: Mapping[str, Any]) -> Entry:
    config = record["config"]
    written = gpt2 if _is_gpt2(record) else decoder
    return Entry(
        name=str(record["id"]),
        text=written(config, config["n_token"]),
        scored=written(_narrowed(config), SCORED_VOCAB),
        reached=_reached(record.get("ppl")),
        stratum=f"{config['n_layer']} layers, {config['d_model']} wide",
        tables=_tables(config) + (POSITIONS * config["d_model"] if written is gpt2 else 0),
        params=int(record["params"]["nonembedding"]),
    )


def _is_gpt2(record: Mapping[str, Any]) -> bool:
    """Whether attention has the parameters of GPT-2's: four matrices with a bias each, no positions."""
    layers, width = int(record["config"]["n_layer"]), int(record["config"]["d_model"])
    return bool(record["params"].get("Attn") == layers * 4 * (width * width + width))


def _reached(perplexity: float | Mapping[str, float] | None) -> float | None:
    if isinstance(perplexity, Mapping):
        perplexity = perplexity.get("valid_ppl", perplexity.get("test_ppl"))
    return None if not perplexity else -log(perplexity)


def _narrowed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **config,
        "d_model": config["d_model"] // SCORED_SHARE,
        "d_inner": [inner // SCORED_SHARE for inner in config["d_inner"]],
    }


def _tables(config: Mapping[str, Any]) -> int:
    """The table; and the map behind it, where the published table has one."""
    width = int(config["d_model"])
    return int(config["n_token"]) * width + (width * width if config["div_val"] > 1 else 0)


def decoder(config: Mapping[str, Any], vocab: int) -> str:
    """A network of Transformer-XL's layers as a text.

    One table stands for the published one, which is cut by frequency.
    """
    arguments, norm = "position = relative", bool(config["pre_lnorm"])
    layers = _layers(config, arguments, "relu", pre=norm)
    return _model(config, f"vocab = {vocab}", [*layers, "lm_head(tied = true)"])


def gpt2(config: Mapping[str, Any], vocab: int) -> str:
    """A network of GPT-2's layers as a text; one table stands for the published one, as above."""
    layers = _layers(config, "bias = true", "gelu", pre=True)
    head = ["layer_norm", "lm_head(tied = true)"]
    table = f"vocab = {vocab}, position = learned, positions = {POSITIONS}"
    return _model(config, table, [*layers, *head])


def _model(config: Mapping[str, Any], table: str, layers: Sequence[str]) -> str:
    mapped = ["linear"] if config["div_val"] > 1 else []
    lines = [f"embed(dim = {config['d_model']}, {table})", *mapped, *layers]
    return "model {\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def _layers(config: Mapping[str, Any], attention: str, activation: str, *, pre: bool) -> list[str]:
    pairs = zip(config["n_head"], config["d_inner"], strict=True)
    width = config["d_model"]
    return [
        line
        for heads, inner in pairs
        for line in _layer(
            f"attention(heads = {heads}, {attention})",
            f"linear(dim = {inner}, bias = true) activation({activation}) "
            f"linear(dim = {width}, bias = true)",
            pre=pre,
        )
    ]


def _layer(mixer: str, channel: str, *, pre: bool) -> list[str]:
    if pre:
        return [f"residual {{ layer_norm {mixer} }}", f"residual {{ layer_norm {channel} }}"]
    return [f"residual {{ {mixer} }} layer_norm", f"residual {{ {channel} }} layer_norm"]


FORMAT = Format(
    name="LiteTransformerSearch decoders",
    entry=_entry,
    vocab=SCORED_VOCAB,
    length=16,
    sequences=8,
    reached="minus the logarithm of the perplexity",
)
