"""A model of another package's layers, of classes that stand in for them.

The stand-ins take the arguments of flash-linear-attention 0.5 and have as many parameters, so that what is
tested is the table: classes, arguments, order, and the number of parameters.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import archdsl
from archdsl.compiler.models import bench
from archdsl.compiler.models.peer import PEER, PeerModel, Unmatched, build, refusal

HYBRID = """
def block(mixer) {
    residual { rms_norm  mixer }
    residual { rms_norm  swiglu }
}

model {
    embed(dim = 32, vocab = 11)
    stack(depth = 4, ratio = 3:1) {
        linear: block(gated_deltanet(heads = 2, beta_max = 2))
        full:   block(attention(heads = 4, kv_heads = 2, position = rope))
    }
    rms_norm
    lm_head(tied = true)
}
"""


class StandIn(nn.Module):
    """So many parameters, which scale what comes in; mixers return a tuple, as theirs do."""

    def __init__(self, parameters: int, told: dict[str, Any], mixer: bool = True) -> None:
        super().__init__()
        self.weight, self.told, self.mixer = nn.Parameter(torch.ones(parameters)), told, mixer

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, None, None]:
        out = x * self.weight.mean()
        return (out, None, None) if self.mixer else out


class GatedDeltaNet(StandIn):
    def __init__(
        self, *, hidden_size: int, num_heads: int, head_dim: int, expand_v: float,
        norm_eps: float, allow_neg_eigval: bool,
    ) -> None:  # fmt: skip
        keys = num_heads * head_dim
        values = int(keys * expand_v)
        maps = hidden_size * (2 * keys + 3 * values + 2 * num_heads)
        filters = 4 * (2 * keys + values)
        own = 2 * num_heads + values // num_heads  # decay, step size, norm
        told = {"norm_eps": norm_eps, "allow_neg_eigval": allow_neg_eigval}
        super().__init__(maps + filters + own, told)


class Attention(StandIn):
    def __init__(
        self, *, hidden_size: int, num_heads: int, num_kv_heads: int | None,
        window_size: int | None, rope_theta: float,
    ) -> None:  # fmt: skip
        share = (num_kv_heads or num_heads) / num_heads
        told = {"window_size": window_size, "rope_theta": rope_theta}
        super().__init__(int(hidden_size**2 * (2 + 2 * share)), told)


class RMSNorm(StandIn):
    def __init__(self, *, hidden_size: int, eps: float, bias: bool) -> None:
        super().__init__(hidden_size, {"eps": eps, "bias": bias}, mixer=False)


class GatedMLP(StandIn):
    def __init__(self, *, hidden_size: int, intermediate_size: int) -> None:
        super().__init__(3 * hidden_size * intermediate_size, {}, mixer=False)


class FusedLinearCrossEntropyLoss(nn.Module):
    def forward(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return functional.cross_entropy((x @ weight.t()).flatten(0, 1), target.flatten())


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package `fla` of stand-ins."""
    found = {
        "fla": {},
        "fla.layers": {"GatedDeltaNet": GatedDeltaNet, "Attention": Attention},
        "fla.modules": {
            "RMSNorm": RMSNorm, "GatedMLP": GatedMLP,
            "FusedLinearCrossEntropyLoss": FusedLinearCrossEntropyLoss,
        },
    }  # fmt: skip
    for name, content in found.items():
        module = ModuleType(name)
        module.__dict__.update(content, __spec__=ModuleSpec(name, None))
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules["fla.layers"]


def built(text: str = HYBRID) -> PeerModel:
    return build(archdsl.loads(text).sample(0))


def test_layers_stand_in_our_order_with_our_arguments() -> None:
    made = [module for module in built().modules() if isinstance(module, StandIn)]
    mixers = [type(module).__name__ for module in made if module.mixer]
    assert mixers == ["GatedDeltaNet"] * 3 + ["Attention"]
    names = [type(module).__name__ for module in made]
    assert names[:4] == ["RMSNorm", "GatedDeltaNet", "RMSNorm", "GatedMLP"]
    assert names[-1] == "RMSNorm"
    assert made[1].told == {"norm_eps": 1e-6, "allow_neg_eigval": True}
    assert next(m.told for m in made if isinstance(m, Attention))["rope_theta"] == 10_000


def test_it_has_as_many_parameters_as_ours_and_all_of_them_learn() -> None:
    arch, model = archdsl.loads(HYBRID).sample(0), built()
    assert sum(p.numel() for p in model.parameters()) == arch.cost.params
    model.loss(torch.randint(11, (2, 9))).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in model.parameters())


def test_its_training_is_timed_in_turns_with_ours() -> None:
    arch = archdsl.loads(HYBRID).sample(0)
    rows = list(bench.measure(arch, bench.Setting(length=9, rounds=1), ["train"], built()))
    assert [row["variant"] for row in rows] == ["unfused", "fused", PEER]
    assert rows[2]["ms"] is not None
    assert rows[2]["parity"] is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gated_deltanet(heads = 2, beta_max = 2)", "rwkv6(heads = 2)", "`rwkv6` has no counterpart"),
        ("gated_deltanet(heads = 2, beta_max = 2)", "gated_deltanet(conv = none)", "not take `conv`"),
        ("position = rope", "window = 4", "rotary positions"),
        ("vocab = 11", "vocab = 11, position = learned", "embed nothing but tokens"),
        ("gated_deltanet(heads = 2, beta_max = 2)", "gla(heads = 2)", "fla.layers.GatedLinearAttention"),
    ],
)  # fmt: skip
def test_what_it_has_not_is_said_in_a_sentence(old: str, new: str, said: str) -> None:
    with pytest.raises(Unmatched, match=said):
        built(HYBRID.replace(old, new))


def test_another_number_of_parameters_is_another_architecture(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wide(Attention):
        def __init__(self, **told: Any) -> None:
            super().__init__(**told | {"hidden_size": 64})

    monkeypatch.setattr(package, "Attention", Wide)
    with pytest.raises(Unmatched, match="another architecture"):
        built()


def test_it_needs_a_gpu_and_half_precision() -> None:
    assert "runs on a GPU alone" in str(refusal("cpu", "bfloat16"))
    assert "half precision" in str(refusal("cuda", "float32"))
