"""Components as plain data, for messages between processes."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from archdsl.blocks.base import Component, Kind
from archdsl.blocks.registry import find


def written(component: Component) -> dict[str, Any]:
    """A component's name and its arguments that are not the defaults, as JSON can hold them."""
    given = {key: getattr(component, key) for key in type(component).model_fields}
    defaults = {key: field.default for key, field in type(component).model_fields.items()}
    arguments = {key: _plain(v) for key, v in given.items() if v != defaults[key]}
    return {"name": component.name, "arguments": arguments}


def read(kind: Kind, data: Mapping[str, Any]) -> Component:
    """The component of :func:`written`.

    Raises:
        LookupError: no component has that name.
    """
    cls = find(kind, data["name"])
    if cls is None:
        raise LookupError(f"there is no {kind} `{data['name']}`")
    return cls(**{key: _number(value) for key, value in data["arguments"].items()})


def _plain(value: Any) -> Any:
    return {"fraction": str(value)} if isinstance(value, Fraction) else value


def _number(value: Any) -> Any:
    return Fraction(value["fraction"]) if isinstance(value, dict) else value
