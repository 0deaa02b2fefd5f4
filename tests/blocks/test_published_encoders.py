"""The mixers of published encoders and decoders, against plain implementations of their equations."""

from __future__ import annotations

import math

import pytest
import torch
from blocks.written import built
from tolerances import EXACT, assert_close
from torch import Tensor

from archdsl.blocks.nn.fourier import FourierMix
from archdsl.blocks.ops.fourier import FourierMix as Op

WIDTH, HEADS, LENGTH = 12, 2, 7


def heads(x: Tensor, count: int = HEADS) -> Tensor:
    return x.reshape(*x.shape[:-1], count, -1)


def logits_of(weights: dict[str, Tensor], y: Tensor) -> Tensor:
    return y @ weights["lm_head.weight"].T


def run(text: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    model = built(f"embed(dim = {WIDTH}, vocab = 9) {text} lm_head", dtype="float64")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        tokens = torch.randint(9, (1, LENGTH), generator=generator)
        weights = dict(model.state_dict())
        return weights, weights["embed.weight"][tokens], model(tokens)


def projected(w: dict[str, Tensor], prefix: str, name: str, x: Tensor) -> Tensor:
    y = x @ w[f"{prefix}.{name}.weight"].T
    bias = w.get(f"{prefix}.{name}.bias")
    return y if bias is None else y + bias


@pytest.mark.parametrize("form", ["dft", "dct"])
def test_fourier_is_the_transform_of_every_head(form: str) -> None:
    w, x, found = run(f"fourier({form}, heads = {HEADS})")
    size, parts = WIDTH // HEADS, heads(x)[0]
    y = torch.zeros_like(parts)
    for k in range(LENGTH):
        for c in range(size):
            for n in range(LENGTH):
                for d in range(size):
                    if form == "dft":
                        factor = math.cos(2 * math.pi * (k * n / LENGTH + c * d / size))
                    else:
                        factor = 2 * math.cos(math.pi * k * (2 * n + 1) / (2 * LENGTH))
                        factor *= 2 * math.cos(math.pi * c * (2 * d + 1) / (2 * size))
                    y[k, :, c] += factor * parts[n, :, d]
    assert_close(found, logits_of(w, y.flatten(-2)[None]), EXACT)


def test_a_unitary_cosine_transform_keeps_lengths() -> None:
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    y = FourierMix(Op(width=WIDTH, heads=3, form="dct", unitary=True))(x)
    assert_close(y.norm(dim=(1, 2)), x.norm(dim=(1, 2)), EXACT)


def test_a_weighted_product_has_a_matrix_between_queries_and_keys() -> None:
    w, x, found = run("attention(heads = 2, causal = false, product = weighted, bias = true)")
    q = projected(w, "attention", "weight", projected(w, "attention", "query", x))
    k, v = (projected(w, "attention", name, x) for name in ("key", "value"))
    scores = torch.einsum("bthd,bshd->bhts", heads(q), heads(k)) * (WIDTH / HEADS) ** -0.5
    mixed = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), heads(v)).flatten(-2)
    assert_close(found, logits_of(w, projected(w, "attention", "out", mixed)), EXACT)


@pytest.mark.parametrize("causal", [True, False])
def test_relative_attention_is_transformer_xls(causal: bool) -> None:
    w, x, found = run(f"attention(heads = 2, position = relative, causal = {str(causal).lower()})")
    q, k, v = (heads(projected(w, "attention", n, x))[0] for n in ("query", "key", "value"))
    u, own = (heads(w[f"attention.core.{n}_bias"]) for n in ("content", "distance"))
    size = WIDTH // HEADS
    mixed = torch.zeros(LENGTH, HEADS, size, dtype=torch.float64)
    for i in range(LENGTH):
        for h in range(HEADS):
            scores = []
            for j in range(i + 1 if causal else LENGTH):
                r = heads(w["attention.core.distance"] @ signal(i - j))[h]
                scores.append(((q[i, h] + u[h]) @ k[j, h] + (q[i, h] + own[h]) @ r) * size**-0.5)
            share = torch.stack(scores).softmax(0)
            mixed[i, h] = share @ v[: len(scores), h]
    out = projected(w, "attention", "out", mixed.flatten(-2)[None])
    assert_close(found, logits_of(w, out), EXACT)


def signal(distance: int) -> Tensor:
    """Sines, then cosines, of a distance."""
    half = WIDTH // 2
    angle = [distance * 1e4 ** (-i / half) for i in range(half)]
    values = [math.sin(a) for a in angle] + [math.cos(a) for a in angle]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("causal", [True, False])
def test_span_attention_is_convberts_mixed_attention(causal: bool) -> None:
    kernel, name = 3, "span_attention"
    written = f"heads = 4, kernel = {kernel}, bias = true, causal = {str(causal).lower()}"
    w, x, found = run(f"{name}({written})")
    q, k, v, point = (projected(w, name, n, x)[0] for n in ("query", "key", "value", "point"))
    before = kernel - 1 if causal else kernel // 2

    def tap(values: Tensor, t: int, n: int) -> Tensor:
        place = t - before + n
        return values[place] if 0 <= place < LENGTH else torch.zeros_like(values[0])

    size, rows = WIDTH // 4, []
    for t in range(LENGTH):
        span = sum(tap(x[0], t, n) * w[f"{name}.span.weight"][:, n] for n in range(kernel))
        product = projected(w, name, "span_key", span) * q[t]
        taps = heads(projected(w, name, "filter", product)).softmax(-1)
        convolved = sum(taps[:, n, None] * heads(tap(point, t, n)) for n in range(kernel))
        seen = slice(0, t + 1 if causal else LENGTH)
        scores = torch.einsum("hd,shd->hs", heads(q[t]), heads(k[seen])) * size**-0.5
        attended = torch.einsum("hs,shd->hd", scores.softmax(-1), heads(v[seen]))
        y = projected(w, name, "out", attended.flatten())
        rows.append(y + projected(w, name, "convolution_out", convolved.flatten()))
    assert_close(found, logits_of(w, torch.stack(rows)[None]), EXACT)


@pytest.mark.parametrize("position", ["none", "rope", "relative"])
def test_attention_says_its_weights(position: str) -> None:
    """They are those of the pass: values weighted by them give its output."""
    model = built(
        f"embed(dim = {WIDTH}, vocab = 9) attention(heads = 2, position = {position}) lm_head",
        dtype="float64",
    )
    core = model.get_submodule("attention.core")
    given: list[tuple[Tensor, ...]] = []
    core.register_forward_hook(
        lambda module, inputs, output: given.append((*inputs[:3], output[0]))
    )
    with torch.no_grad():
        model(torch.arange(LENGTH)[None] % 9)
        query, key, value, mixed = given[0]
        weights = core.probabilities(query, key)
    expected = torch.einsum("bhts,bshd->bthd", weights, heads(value)).flatten(-2)
    assert_close(mixed, expected, EXACT)
