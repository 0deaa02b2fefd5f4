"""Metrics against their definitions, on evidence small enough to work out."""

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import archdsl
from archdsl.blocks.registry import find
from archdsl.search.metrics.archdsl_rank import grouped, multiplies
from archdsl.search.metrics.base import cosine_score
from archdsl.search.metrics.evidence import Evidence, Mixer, gather
from archdsl.search.metrics.look import Places
from archdsl.search.metrics.passes import curvature
from archdsl.search.metrics.spectral_capacity import capacity
from archdsl.search.metrics.write_interference import overlap
from archdsl.search.validation.probe import Probe

RANDOM = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=RANDOM, dtype=torch.float64)


def evidence(outputs=(), gradients=(), weights=None, length=8, **given) -> Evidence:
    """Evidence of mixers with these outputs and gradients, and of these weights by name."""
    mixers = [Mixer(f"m{i}", nn.Identity(), (), output) for i, output in enumerate(outputs)]
    for mixer, gradient in zip(mixers, gradients, strict=False):
        mixer.gradient = gradient
    found = Evidence(arch=None, length=length, mixers=mixers, **given)
    if weights is not None:
        found.names, found.weights = list(weights), list(weights.values())
    return found


def measured(name: str, found: Evidence, **arguments) -> float:
    return find("metric", name)(**arguments).score(found)


def seen(text: str, name: str, length=12, **arguments) -> float:
    """A metric of an untrained model."""
    arch = archdsl.loads(f"model {{ embed(dim = 16, vocab = 50) {text} lm_head }}").sample(0)
    metric = find("metric", name)(**arguments)
    model = arch.compile(seed=1)
    return metric.score(gather(model, arch, Probe(vocab=50, length=length), metric.needs))


# --- covariances -----------------------------------------------------------------------------------


def test_the_cosine_score_is_one_minus_the_mean_of_its_twentieth_roots():
    rows = normal(3, 5)
    unit = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    near = [abs(unit[i] @ unit[j]) ** (1 / 20) for i in range(3) for j in range(3) if i != j]
    assert cosine_score(rows) == pytest.approx(1 - np.mean(near))
    assert cosine_score(torch.ones(4, 3)) == pytest.approx(0)


def test_expressivity_is_the_entropy_of_directions():
    even = torch.eye(4, dtype=torch.float64).repeat(2, 1)[None] * 3
    assert measured("expressivity", evidence([even])) == pytest.approx(
        log(3)
    )  # centred: 3 directions
    line = torch.outer(torch.arange(5.0), torch.ones(4))[None]
    assert measured("expressivity", evidence([line])) == pytest.approx(0, abs=1e-6)


def test_trainability_is_best_where_gradients_keep_their_length():
    behind = normal(1, 50, 6)
    turned = behind @ torch.linalg.qr(normal(6, 6)).Q
    outputs = [normal(1, 50, 6), normal(1, 50, 6)]
    assert measured("trainability", evidence(outputs, [turned, behind])) == pytest.approx(
        0, abs=1e-4
    )
    longer = measured("trainability", evidence(outputs, [3 * turned, behind]))
    assert longer == pytest.approx(2 - 3 - 1 / 3, abs=0.01)
    assert measured("trainability", evidence(outputs[:1], [behind])) == 0


# --- saliencies ------------------------------------------------------------------------------------


def test_fisher_and_hidden_saliency_are_sums_over_activations():
    hidden, gradient = normal(2, 3, 4), normal(2, 3, 4)
    product = hidden * gradient
    found = evidence([hidden], [gradient])
    fisher = 0.5 * product.sum(1).square().mean(0).sum()
    assert measured("fisher", found) == pytest.approx(float(fisher))
    assert measured("hidden_saliency", found) == pytest.approx(float(product.abs().sum()))


def test_synaptic_saliency_keeps_signs_where_asked_and_leaves_tables_out():
    weights = {"a.weight": normal(3, 2), "embed.weight": normal(9, 2), "a.bias": normal(3)}
    gradients = {name: normal(*w.shape) for name, w in weights.items()}
    found = evidence(weights=weights, tables=frozenset({"embed"}))
    found.gradients = list(gradients.values())
    term = weights["a.weight"] * gradients["a.weight"]
    assert measured("synaptic_saliency", found, signed=True) == pytest.approx(float(term.sum()))
    assert measured("synaptic_saliency", found) == pytest.approx(float(term.abs().mean()))


def test_zico_is_large_where_two_batches_agree():
    weights = {"w": normal(4, 3)}
    one, two = normal(4, 3), normal(4, 3)
    found = evidence(weights=weights, second={"w": two})
    found.gradients = [one]
    mean, spread = (one.abs() + two.abs()) / 2, (one.abs() - two.abs()).abs() / 2
    assert measured("zico", found) == pytest.approx(log(float((mean / spread).sum())), rel=1e-3)
    found.second = {"w": one}
    assert measured("zico", found) > log(12 * 1e5)


class Quadratic(nn.Module):
    """``½ wᵀ A w``, whose Hessian is ``A``."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(normal(4))
        root = normal(4, 4)
        self.a = root @ root.T

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.w @ self.a @ self.w / 2


def test_grasp_takes_the_hessian_times_the_gradient():
    model = Quadratic()
    before = model.w.detach().clone()
    gradient = model.a @ before
    found = curvature(model, {"w": gradient}, *[torch.zeros(1)] * 2)
    torch.testing.assert_close(found["w"], model.a @ gradient)
    assert torch.equal(model.w.detach(), before)
    seen = evidence(weights={"w": before[None]}, curved={"w": found["w"][None]})
    assert measured("grasp", seen) == pytest.approx(-float(before @ model.a @ gradient))


# --- attention -------------------------------------------------------------------------------------


def test_attention_is_sure_where_it_sees_one_token_and_unsure_over_many():
    narrow = seen("attention(heads = 2, window = 1)", "softmax_confidence")
    wide = seen("attention(heads = 2, causal = false)", "softmax_confidence")
    assert narrow == pytest.approx(1)
    assert 1 / 12 < wide < 0.9
    assert seen("min_gru", "softmax_confidence") == 0


# --- capacity --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns", "variance"), [(300, 100, 0.01), (200, 200, 0.05)])
def test_spectral_capacity_is_the_expected_determinant(rows, columns, variance):
    """Fluctuations are of the order of one nat, whatever the size."""
    weight = normal(rows, columns) * variance**0.5
    exact = torch.linalg.slogdet(torch.eye(columns) + weight.T @ weight)[1]
    assert capacity(rows, columns, variance) == pytest.approx(float(exact), abs=2)


# --- memories --------------------------------------------------------------------------------------


def delayed(lag: int) -> Evidence:
    """A memory that holds exactly the token ``lag`` steps back."""
    tokens = normal(32, 16, 6)
    return evidence([tokens.roll(lag, 1)], embedded=tokens, length=16)


def test_what_a_delay_line_holds_is_read_and_nothing_else():
    shares = delayed(2).recall.shares
    assert shares[2] == pytest.approx(1, abs=0.01)
    assert max(shares[:2] + shares[3:]) < 0.1
    assert measured("state_capacity", delayed(1)) == pytest.approx(1, abs=0.1)
    assert measured("state_capacity", delayed(0), relative=True) < 0.1
    assert measured("retrieval_margin", delayed(1)) > 0.1
    assert measured("retrieval_margin", delayed(0)) < 0.1


def test_reach_follows_a_leaky_memory():
    """``h = a h + x``: the gradient falls as ``a^n``."""
    lag = torch.arange(11, -1, -1.0, dtype=torch.float64)
    pulled = (0.5**lag)[None, :, None].expand(4, 12, 3)
    found = evidence(pulled=pulled, places=Places(torch.full((4,), 11), 12), length=12)
    torch.testing.assert_close(found.reach / found.reach[0], 0.5 ** torch.arange(12.0).double())
    assert measured("gradient_reach", found) == pytest.approx(np.log10(0.5))
    assert measured("decay_horizon", found) == pytest.approx(0.25 / 0.75, rel=1e-4)


def test_reach_counts_from_each_sequences_own_loss():
    pulled = torch.zeros(2, 5, 1)
    pulled[0, 4] = pulled[1, 2] = 3
    found = evidence(pulled=pulled, places=Places(torch.tensor([4, 2]), 5), length=5)
    assert found.reach.tolist() == pytest.approx([18**0.5, 0, 0, 0, 0])


def test_interference_is_one_over_the_width_for_random_writes():
    assert overlap(normal(8, 64, 32)) == pytest.approx(1 / 32, rel=0.1)
    assert overlap(torch.ones(2, 5, 3)) == pytest.approx(1)
    assert overlap(torch.zeros(2, 5, 3)) == 1


# --- the combined score ----------------------------------------------------------------------------

RNN = "cell(state = [h], output = h) {{ {} }}"


def rank(body: str) -> float:
    return seen(RNN.format(body), "archdsl_rank")


def test_a_cell_that_does_not_see_its_token_ranks_behind_all():
    blind = seen("cell(state = [h, g], output = h) { h = tanh(linear(g)) g = tanh(linear(x)) }",
                 "archdsl_rank")  # fmt: skip
    plain, gated = (
        rank("h = tanh(linear(x, h))"),
        rank("h = sigmoid(linear(x, h)) * tanh(linear(x, h))"),
    )
    assert blind < -50 < plain
    assert gated > plain


def test_a_cell_whose_units_are_dead_ranks_below():
    assert rank("h = tanh(linear(x, rank = 2))") < rank("h = tanh(linear(x))")


def test_what_is_not_finite_ranks_last():
    assert rank("h = exp(exp(exp(10 + linear(x, h))))") < -1e20


def test_products_with_parameters_are_no_gates():
    def cell(body: str) -> Mixer:
        text = f"model {{ embed(dim = 4, vocab = 5) {RNN.format(body)} lm_head }}"
        model = archdsl.loads(text).sample(0).compile()
        name, module = model.hidden_sites()[0]
        return Mixer(name, module, (), torch.zeros(1))

    assert not multiplies(cell("h = tanh(parameter() * linear(x, h))"))
    assert not multiplies(cell("h = tanh(linear(x, h)) / 2"))
    assert multiplies(cell("g = linear(x) h = tanh(g * h)"))
    assert multiplies(cell("h = x / (1 + abs(h))"))


def test_layers_are_mixers_of_one_component():
    def mixer(name: str) -> Mixer:
        return Mixer(name, nn.Identity(), (), torch.zeros(1))

    both = [
        mixer("a.core"),
        mixer("a.convolution"),
        mixer("b.core"),
        mixer("cell"),
        mixer("cell_1"),
    ]
    assert [len(layer) for layer in grouped(both)] == [2, 1, 1, 1]
    assert len(grouped([mixer("a.core")] * 3)) == 3


def test_with_a_residual_stream_size_depth_and_width_count():
    block = "residual {{ rms_norm attention(heads = {}) }} residual {{ rms_norm mlp }}"
    one, two = (seen(block.format(2) * n, "archdsl_rank") for n in (1, 2))
    assert two > one
    assert seen(block.format(4), "archdsl_rank") > one
