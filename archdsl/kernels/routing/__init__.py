"""Routing: which rows go where, without a host's knowledge of it, and products of sorted rows."""

from archdsl.kernels.routing.grouped import grouped_linear
from archdsl.kernels.routing.idle import idle_decay
from archdsl.kernels.routing.plan import Plan, choose_top, rank_in_member, refuse, route
from archdsl.kernels.routing.rows import combine_rows, gather_rows, put_rows, take_rows

__all__ = [
    "Plan",
    "choose_top",
    "combine_rows",
    "gather_rows",
    "grouped_linear",
    "idle_decay",
    "put_rows",
    "rank_in_member",
    "refuse",
    "route",
    "take_rows",
]
