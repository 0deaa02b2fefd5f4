"""Routing: which rows go where, without a host's knowledge of it, and products of sorted rows."""

from archdsl.kernels.routing.filter import filters, routed_filter
from archdsl.kernels.routing.grouped import grouped_linear
from archdsl.kernels.routing.idle import idle_decay
from archdsl.kernels.routing.plan import Plan, choose_top, rank_in_member, refuse, route
from archdsl.kernels.routing.rows import (
    Place,
    combine_rows,
    gather_rows,
    join_rows,
    spread_rows,
    take_rows,
)

__all__ = [
    "Place",
    "Plan",
    "choose_top",
    "combine_rows",
    "filters",
    "gather_rows",
    "grouped_linear",
    "idle_decay",
    "join_rows",
    "rank_in_member",
    "refuse",
    "route",
    "routed_filter",
    "spread_rows",
    "take_rows",
]
