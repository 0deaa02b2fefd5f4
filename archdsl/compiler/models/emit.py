"""Lowered graph → torch module. Each region becomes a :class:`RegionModule`, the root a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from torch import nn

from archdsl.blocks.nn.dense import Embedding, Head, MergedLinear
from archdsl.blocks.nn.routing import RoutedFilter, Router
from archdsl.blocks.nn.structure import RegionModule, Step
from archdsl.compiler.graphs.graph import INPUT, Graph, Node


def fill(module: RegionModule, graph: Graph, made: list[nn.Module]) -> None:
    """Give a region module the modules and the program of a graph; add what is made to a list."""
    cls = type(module)
    program, result = graph.once(cls, lambda: _program(graph, cls))
    vars(module).update(program=program, result=result)  # plain data: torch need not look at it
    for step, node in zip(module.program, graph.nodes(), strict=True):
        _attach(module, step.path, build(node, made))


def _program(graph: Graph, cls: type[nn.Module]) -> tuple[tuple[Step, ...], int]:
    """How a region runs in a module of a class, one step a node, and where its output is then."""
    registers, last = _registers(graph), _last_readers(graph)
    steps = tuple(
        Step(
            path=tuple(_free(cls, part) for part in node.name.split(".")),
            name=node.name,
            call=module_class(node.op.module).call,
            inputs=tuple(registers[value.node, value.port] for value in node.inputs),
            outputs=tuple(registers[node.name, port] for port in range(len(node.types))),
            last=tuple(registers[key] for key in last.get(node.name, ())),
            routed=node.types[0].routed,
        )
        for node in graph.nodes()
    )
    return steps, registers[graph.output.node, graph.output.port]


def build(node: Node, made: list[nn.Module]) -> Any:
    """The module of one node, with its regions."""
    module = _built(node, made)
    made.append(module)
    return module


def _built(node: Node, made: list[nn.Module]) -> nn.Module:
    cls = module_class(node.op.module)
    if not node.regions:
        return cls(node.op)  # type: ignore[no-any-return]
    if issubclass(cls, RegionModule):
        hosting = cls(node.op)
        fill(hosting, node.regions[0], made)
        return hosting
    copies = node.op.weights(len(node.regions))
    return cls(node.op, [_region(node.regions[i], made) for i in copies])  # type: ignore[no-any-return]


@cache
def module_class(path: str) -> type[Any]:
    """The class an operation's import path names."""
    module, _, name = path.partition(":")
    cls: type[Any] = getattr(import_module(module), name)
    return cls


def tie(modules: Sequence[nn.Module]) -> None:
    """Let the modules of a model share what several of them have in common."""
    _tie_heads(modules)
    _tie_routers(modules)


def _tie_heads(modules: Sequence[nn.Module]) -> None:
    """Tied heads read the table of the model's embedding."""
    tables = [module for module in modules if isinstance(module, Embedding)]
    for module in modules:
        if isinstance(module, Head) and module.weight is None:
            module.tie(tables[0])


def _tie_routers(modules: Sequence[nn.Module]) -> None:
    """Recurrent routers of one rank use the GRU of the first."""
    first: dict[int, Router] = {}
    for module in modules:
        if isinstance(module, Router) and module.op.form == "recurrent":
            owner = first.setdefault(module.op.rank, module)
            if owner is not module:
                module.share(owner)


def _region(graph: Graph, made: list[nn.Module]) -> RegionModule:
    module = RegionModule()
    fill(module, graph, made)
    return module


def _free(cls: type[nn.Module], name: str) -> str:
    """A name that no attribute of the module class has."""
    return f"{name}_" if hasattr(cls, name) else name


def _put(holder: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """A submodule of a name that no class attribute has, which torch would look for again at a price."""
    assert name not in vars(holder), f"{type(holder).__name__} has an attribute {name}"
    holder._modules[name] = module
    return module


def _attach(root: nn.Module, path: tuple[str, ...], module: nn.Module) -> None:
    """Put a module at a path, with empty modules on the way."""
    holder = root
    for name in path[:-1]:
        held = holder._modules.get(name)
        holder = _put(holder, name, nn.Module()) if held is None else held
    _put(holder, path[-1], module)
    if isinstance(module, MergedLinear | RoutedFilter):
        module.attach(holder, path[-1])


Key = tuple[str, int]


def _registers(graph: Graph) -> dict[Key, int]:
    keys: list[Key] = [(INPUT, 0)]
    keys += [(node.name, port) for node in graph.nodes() for port in range(len(node.types))]
    return {key: register for register, key in enumerate(keys)}


def _last_readers(graph: Graph) -> dict[str, list[Key]]:
    """For each node the values nobody reads behind it; the region's output is always kept."""
    nodes = graph.nodes()
    reader: dict[Key, str] = {(INPUT, 0): nodes[0].name} if nodes else {}
    for node in nodes:
        reader |= {(node.name, port): node.name for port in range(len(node.types))}
        reader |= {(value.node, value.port): node.name for value in node.inputs}
    reader.pop((graph.output.node, graph.output.port), None)
    last: dict[str, list[Key]] = {}
    for key, name in reader.items():
        last.setdefault(name, []).append(key)
    return last
