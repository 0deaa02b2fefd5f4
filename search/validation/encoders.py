"""The encoder space of "Training-free Neural Architecture Search for RNNs and Transformers".

Serianni and Kalita (ACL 2023, §4.2): ELECTRA-small with 2 or 4 layers, each with one operation and one
stack of feed-forward layers; the target is the mean GLUE score after training. Their code scored every
network at width 256 with 1024 inner units; here each has the widths it was trained with. Every
operation is followed by a projection, the residual sum and a layer norm, as in the code that trained
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.search.validation.base import Entry, Format

VOCAB, EMBEDDING, POSITIONS = 30_522, 128, 512
"""ELECTRA-small's: symbols, width of the table, learned positions."""

SCORED = {"vocab": 1_000, "positions": 32}

PAPER = {
    "head_confidence": 0.478, "params": 0.454, "activation_distance(published = true)": 0.222,
    "softmax_confidence": 0.216, "synaptic_saliency": 0.188, "head_importance": 0.164,
    "synaptic_diversity(mean = false)": 0.156, "jacobian_covariance": 0.042, "jacobian_cosine": 0.004,
    "spectral_capacity": 0.695,
}  # fmt: skip
"""|τ| on all 500 networks, from the paper's data; the last is NSC's, from its authors."""

OPERATIONS = {
    ("SA", "SDP"): "attention(heads = {heads}, causal = false, bias = true)",
    ("SA", "WMA"): "attention(heads = {heads}, causal = false, bias = true, product = weighted)",
    ("LT", "DFT"): "linear(bias = true) fourier(dft, heads = {heads}) linear(bias = true)",
    ("LT", "DCT"): "linear(bias = true) fourier(dct, heads = {heads}) linear(bias = true)",
}


def _entry(record: Mapping[str, Any]) -> Entry:
    width, layers = record["hidden_size"], record["encoder_layers"]
    return Entry(
        name=str(record["id"]),
        text=encoder(width, layers, VOCAB, POSITIONS),
        scored=encoder(width, layers, **SCORED),
        reached=record["scores"]["glue"],
        stratum=f"{len(layers)} layers, {width} wide",
        tables=VOCAB * (EMBEDDING + 1) + POSITIONS * EMBEDDING,
    )


def encoder(width: int, layers: list[Mapping[str, Any]], vocab: int, positions: int) -> str:
    """A network as a text: table, layers, and ELECTRA's head over tokens."""
    start = [
        f"embed(dim = {EMBEDDING}, vocab = {vocab}, position = learned, positions = {positions})",
        "layer_norm",
        *([f"linear(dim = {width}, bias = true)"] if width != EMBEDDING else []),
    ]
    body = [line for layer in layers for line in _layer(width, layer)]
    end = [
        f"linear(dim = {EMBEDDING}, bias = true) activation(gelu) layer_norm",
        "lm_head(tied = true, bias = true)",
    ]
    return "model {\n" + "".join(f"    {line}\n" for line in [*start, *body, *end]) + "}\n"


def _layer(width: int, layer: Mapping[str, Any]) -> list[str]:
    """An operation and a stack of feed-forward layers, each with its residual sum and norm."""
    inner = f"linear(dim = {layer['feed_forward_dimension']}, bias = true) activation(gelu)"
    stack = " ".join([inner] * layer["num_feed_forward"])
    return [
        f"residual {{ {operation(layer)} }} layer_norm",
        f"residual {{ {stack} linear(dim = {width}, bias = true) }} layer_norm",
    ]


def operation(layer: Mapping[str, Any]) -> str:
    """What mixes the positions of a layer."""
    kind, parameter, heads = (
        layer[key] for key in ("operation_type", "operation_parameter", "num_operation_heads")
    )
    if kind == "DSC":
        return f"span_attention(heads = {heads}, kernel = {parameter}, causal = false, bias = true)"
    return OPERATIONS[kind, parameter].format(heads=heads)


FORMAT = Format(
    name="FlexiBERT encoders (GLUE)",
    entry=_entry,
    vocab=SCORED["vocab"],
    length=16,
    sequences=8,
    reached="mean GLUE score",
    paper=PAPER,
)
