"""Decoders of "LiteTransformerSearch: Training-free Neural Architecture Search for Language Models".

Javaheripi et al. (NeurIPS 2022, arXiv 2203.02094): Transformer-XL's layers, with heads and inner widths
of their own in every layer; the target is the perplexity after training, on the validation text where
the file has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

from archdsl.search.validation.base import Entry, Format

SCORED_VOCAB, SCORED_SHARE = 1_000, 2
"""What networks are scored with: symbols, and every width divided by so much."""


def _entry(record: Mapping[str, Any]) -> Entry:
    config = record["config"]
    return Entry(
        name=str(record["id"]),
        text=decoder(config, config["n_token"]),
        scored=decoder(_narrowed(config), SCORED_VOCAB),
        reached=_reached(record.get("ppl")),
        stratum=f"{config['n_layer']} layers, {config['d_model']} wide",
        tables=_tables(config),
        params=int(record["params"]["nonembedding"]),
    )


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
    """A network as a text. One table stands for the published one, which is cut by frequency."""
    width = config["d_model"]
    mapped = ["linear"] if config["div_val"] > 1 else []
    layers = [
        line
        for heads, inner in zip(config["n_head"], config["d_inner"], strict=True)
        for line in _layer(width, heads, inner, pre=config["pre_lnorm"])
    ]
    lines = [f"embed(dim = {width}, vocab = {vocab})", *mapped, *layers, "lm_head(tied = true)"]
    return "model {\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def _layer(width: int, heads: int, inner: int, *, pre: bool) -> list[str]:
    mixer = f"attention(heads = {heads}, position = relative)"
    channel = (
        f"linear(dim = {inner}, bias = true) activation(relu) linear(dim = {width}, bias = true)"
    )
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
