"""Closed architecture → model on a device, in a dtype, from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from torch import nn

from archdsl.blocks.nn.base import Place, Site
from archdsl.blocks.op import Op
from archdsl.compiler.graphs.passes import run
from archdsl.compiler.models.model import Model

if TYPE_CHECKING:
    from archdsl.compiler.spaces.arch import Arch

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def compile_arch(
    arch: Arch,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    seed: int = 0,
    stage: str = "kernels",
) -> Model:
    """Build the model of an architecture.

    Args:
        arch: the architecture.
        device: where its parameters live.
        dtype: of its parameters; recurrent states and gates stay float32 (float64 for a float64 model).
        seed: of the initial weights; the same seed gives the same weights, whatever the stage.
        stage: the pass to stop after (see ``graphs/passes.py``), for comparing fused with unfused.
    """
    chosen = DTYPES[dtype] if isinstance(dtype, str) else dtype
    graph = run(arch.cost.graph, stage if stage != "lower" else "recognise")
    model = Model(arch, graph)
    draw_weights(model, seed)
    if stage != "kernels":
        for site in sites(model):
            site.backend = "plain"
    vars(model).update(seed=seed)
    first = next(model.parameters(), None)
    if first is None or first.dtype != chosen or first.device != torch.device(device):
        model.to(device=device, dtype=chosen)
    return model


def sites(model: nn.Module) -> Iterator[Site]:
    """The modules of a model's operations, but for those of regions."""
    return (module for module in model.modules() if isinstance(module, Site))


def draw_weights(model: nn.Module, seed: int) -> None:
    """Draw every parameter from a generator of its own, seeded by the name it is saved under.

    So a parameter starts the same whatever stands around it, fused or not, on any device; but for
    those whose start depends on the depth they stand at.
    """
    named = _named_sites(model)
    _give_places(named.values())
    with torch.no_grad():
        for path, module in named.items():
            prefix = path.rpartition(".")[0] if module.op.transparent else path
            module.draw(partial(_generator, seed, prefix))


def _named_sites(model: nn.Module) -> dict[str, Site]:
    """The modules of operations by path, in torch's order."""
    named: dict[str, Site] = {}
    seen, left = set[nn.Module](), list[tuple[str, nn.Module | None]]([("", model)])
    while left:
        path, module = left.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        if isinstance(module, Site):
            named[path] = module
        inner = [(f"{path}.{name}" if path else name, m) for name, m in module._modules.items()]
        left += reversed(inner)
    return named


def _give_places(modules: Iterable[Site]) -> None:
    """Tell every module how deep it stands among those of the same operation."""
    same: dict[Op, list[Site]] = {}
    for module in modules:
        same.setdefault(module.op, []).append(module)
    for sites in same.values():
        for index, site in enumerate(sites):
            site.note(place=Place(index, len(sites)))


def _generator(seed: int, prefix: str, name: str) -> torch.Generator:
    digest = blake2b(f"{seed}:{prefix}.{name}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
