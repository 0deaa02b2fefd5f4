"""The keys of other tools' configurations that a pattern or its sizes are read from, and their types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from archdsl.compiler.patterns.kinds import refused
from archdsl.diagnostics import ArchError, Diagnostic

Count = Annotated[int, Field(ge=1, le=10**9)]
Depth = Annotated[int, Field(ge=1, le=10_000)]
Index = Annotated[int, Field(ge=0, le=10_000)]
Indices = tuple[Index, ...]
Names = tuple[str, ...]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Attn(_Keys):
    """One dictionary of flash-linear-attention's ``attn``."""

    layers: Indices
    window_size: Count | None = None
    num_heads: Count | None = None
    num_kv_heads: Count | None = None


class Lists(_Keys):
    """Kimi's two lists, counted from 1."""

    full_attn_layers: Indices
    kda_layers: Indices
    num_heads: Count | None = None


class Window(_Keys):
    """What Jet-Nemotron says of one kind of layer."""

    window_size: Count | None = None


class Config(_Keys):
    """A model's configuration. A key that is ``null`` is not given; unknown keys are ignored."""

    model_type: str = ""
    mixer: str | None = None
    num_hidden_layers: Depth | None = Field(
        None, validation_alias=AliasChoices("num_hidden_layers", "num_layers", "n_layer")
    )

    # patterns
    hybrid_layer_pattern: str | None = None
    hybrid_override_pattern: str | None = None
    hybrid_layer_ids: Indices | None = None
    layers_block_type: Names | None = None
    layer_types: Names | None = None
    block_types: Names | None = None
    linear_attn_config: Lists | None = None
    attn_layer_period: Count | None = None
    attn_layer_offset: Index = 0
    full_attention_interval: Count | None = None
    sliding_window_pattern: Count | str | None = Field(
        None, validation_alias=AliasChoices("sliding_window_pattern", "_sliding_window_pattern")
    )
    attn_layer_idxs: Indices | None = None
    hyena_layer_idxs: Indices = ()
    attn_layer_indices: Indices | None = None
    full_attn_idxs: Indices | None = None
    attn_type_list: Indices | None = None
    attn: tuple[Attn, ...] | None = None
    num_mem_blocks: Count = 1

    # which layers have experts
    num_experts: Annotated[int, Field(ge=0, le=10**6)] | None = Field(
        None,
        validation_alias=AliasChoices("num_experts", "num_local_experts", "n_routed_experts"),
    )
    num_experts_per_tok: Index | None = Field(
        None, validation_alias=AliasChoices("num_experts_per_tok", "num_experts_per_token")
    )
    expert_layer_period: Count | None = None
    expert_layer_offset: Index = 0
    first_k_dense_replace: Index = 0
    mlp_only_layers: Indices = ()
    sparse_step: Count = Field(
        1, validation_alias=AliasChoices("decoder_sparse_step", "interleave_moe_layer_step")
    )

    # sizes
    hidden_size: Count | None = None
    vocab_size: Count | None = None
    intermediate_size: Count | None = None
    moe_intermediate_size: Count | None = None
    num_attention_heads: Count | None = None
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    kv_lora_rank: Count | None = None
    num_heads: Count | None = None
    adapter_rank: Count | None = None
    window: Count | None = Field(
        None,
        validation_alias=AliasChoices(
            "sliding_window", "window_size", "attention_window_size", "attention_chunk_size"
        ),
    )
    efficient_attention_config: dict[str, Window] = Field(default_factory=dict)


def config_of(text: str) -> Config:
    """The configuration in a JSON object; what an inner ``text_config`` says comes first.

    Raises:
        ArchError: it is no JSON, or a key holds something else than it should.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused(f"this is no JSON: {error}") from None
    inner = found.get("text_config") or {}
    if not isinstance(inner, dict):
        raise refused("`text_config` is no object", help="it holds the keys of the language model")
    try:
        return Config.model_validate_json(json.dumps(_given({**found, **inner})))
    except ValidationError as error:
        raise ArchError([_said(one) for one in error.errors()[:8]]) from None


def _given(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Without keys that say nothing; ``attn`` as a list, empty where no layer is attention."""
    said = {key: value for key, value in keys.items() if value is not None and value != []}
    if "attn" in keys:
        attn = keys["attn"] or []
        said["attn"] = [attn] if isinstance(attn, dict) else attn
    return said


def _said(error: Any) -> Diagnostic:
    """A complaint of the schema in our words."""
    place = ".".join(map(str, error["loc"]))
    what = error["msg"].removeprefix("Input ")
    what = "is missing" if error["type"] == "missing" else what
    return Diagnostic("unknown-pattern", f"`{place}` of this configuration {what}")
