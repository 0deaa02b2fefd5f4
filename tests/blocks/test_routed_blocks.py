"""Mixtures of memories and of experts are their plain definitions (``published_routed``)."""

from __future__ import annotations

import pytest
import torch
from blocks import published_routed as published
from blocks import published_routed_learners as learners
from blocks.probe import Probe, gradients, probe, random_inputs, weigher
from blocks.written import built, complaints
from fresh import pretend_compiling
from tolerances import assert_close
from torch import Tensor

WIDTH, LENGTH = 8, 21
EXACT = 1e-10
"""In float64; a signal passes at most 1e4 roundings here, of 1e-16 each."""


def mixture(mixer: str, options: str = "", memories: int = 3, top: int = 2) -> str:
    return f"mom(memories = {memories}, top = {top}{options}) {{ {mixer} }}"


def assert_is(layer: str, expected: object, batch: int = 2, length: int = LENGTH) -> Probe:
    """Outputs and all gradients of a layer, and of a definition with the same weights."""
    assert callable(expected)
    found = probe(layer, random_inputs(batch, length, WIDTH), dtype="float64")
    weights = {name: w.requires_grad_() for name, w in found.weights().items()}
    inputs = random_inputs(batch, length, WIDTH).requires_grad_()
    wanted = torch.stack([expected(weights, row) for row in inputs])
    found = found if wanted.shape[-1] == found.width else replace_width(found, wanted.shape[-1])
    assert_close(found.output(), wanted, EXACT, "output")
    weigh = weigher()
    weigh(wanted).backward()
    grads = gradients(found.model, weigh(found.output()))
    given = grads["embed.weight"][: batch * length].view_as(inputs)
    assert_close(given, inputs.grad, EXACT, "inputs")
    for name, weight in weights.items():
        [full] = [n for n in grads if n.partition(".")[2] == name and not n.startswith("lm_head")]
        grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        assert_close(grads[full], grad, EXACT, name)
    return found


def replace_width(found: Probe, width: int) -> Probe:
    return Probe(found.model, found.tokens, width)


def decoded(model: torch.nn.Module, tokens: Tensor, sizes: list[int]) -> Tensor:
    state, rows = model.init_state(len(tokens)), []
    with torch.no_grad():
        for part in tokens.split(sizes, 1):
            logits, state = model.prefill(part, state)
            rows.append(logits)
    return torch.cat(rows, 1)


def test_under_autocast_members_of_any_length_are_of_one_dtype() -> None:
    """One token is filtered by another form than many, and they end up in the same rows."""
    layer = mixture("gla(heads = 2, conv = 4)", ", shared = false, neighbours = routed", 2, 1)
    model = built(f"embed(dim = 16, vocab = 2) {layer} lm_head")
    tokens = torch.zeros(1, 70, dtype=torch.int64)
    tokens[0, 30] = 1
    with torch.no_grad():
        [router] = [w for name, w in model.named_parameters() if "router" in name]
        router.copy_(model.get_parameter("embed.weight"))  # each symbol to its own memory
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(tokens, tokens)
    loss.backward()
    assert bool(torch.isfinite(loss))


MIXERS = published.MIXERS | learners.MIXERS

TITANS, CLOSED = (
    next(mixer for mixer in learners.MIXERS if part in mixer) for part in ("titans", "closed_form")
)
CHANNELS = (
    "miras(memory = mlp(depth = 2, expand = 1, heads = 2), bias = l2, retention = decay(per = channel),"
    " learner = momentum(chunk = 4))"
)
"""A memory of two layers whose decay is one a channel."""

every_mixer = pytest.mark.parametrize("mixer", MIXERS)


# --- memories --------------------------------------------------------------------------------------


@every_mixer
@pytest.mark.parametrize("shared", [False, True])
def test_a_mixture_is_a_loop_over_memories(mixer: str, shared: bool) -> None:
    def plain(w: published.Weights, x: Tensor) -> Tensor:
        return published.memories(w, x, MIXERS[mixer], 2, shared)

    assert_is(mixture(mixer, f", shared = {str(shared).lower()}"), plain)


@pytest.mark.parametrize(
    "how",
    [
        {"neighbours": "routed"},
        {"weights": "probability"},
        {"capacity": 0.75},
        {"idle": "decay"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "mixer",
    ["gla(heads = 2, rank = 3, conv = 3)", "gated_deltanet(heads = 2, expand_k = 1)", CLOSED],
)
def test_each_option_is_its_definition(mixer: str, how: dict[str, object]) -> None:
    def plain(w: published.Weights, x: Tensor) -> Tensor:
        return published.memories(w, x, MIXERS[mixer], 2, True, **how)

    options = "".join(f", {name} = {value}" for name, value in how.items())
    assert_is(mixture(mixer, options), plain)


@pytest.mark.parametrize("how", [{"neighbours": "routed"}, {"capacity": 0.75}], ids=str)
def test_a_memory_that_learns_counts_what_it_takes(how: dict[str, object]) -> None:
    """Its chunks are of its own tokens, also where those are few or see each other alone."""

    def plain(w: published.Weights, x: Tensor) -> Tensor:
        return published.memories(w, x, MIXERS[TITANS], 2, True, **how)

    options = "".join(f", {name} = {value}" for name, value in how.items())
    assert_is(mixture(TITANS, options), plain)


@pytest.mark.parametrize("mixer", ["gla(heads = 2, rank = 3, conv = 3)", "hgrn"])
def test_projections_may_be_shared(mixer: str) -> None:
    def plain(w: published.Weights, x: Tensor) -> Tensor:
        return published.memories(w, x, MIXERS[mixer], 2, True)

    found = assert_is(mixture(mixer, ", projections = shared"), plain)
    assert all(w.dim() < 3 for w in found.weights().values())


@every_mixer
def test_steps_and_chunks_are_the_parallel_form(mixer: str) -> None:
    found = probe(mixture(mixer), random_inputs(2, LENGTH, WIDTH), dtype="float64")
    with torch.no_grad():
        whole = found.model(found.tokens)
    for sizes in ([1] * LENGTH, [13, 8], [5, 1, 1, 14]):
        assert_close(decoded(found.model, found.tokens, sizes), whole, EXACT, str(sizes))


@pytest.mark.parametrize("options", [
    ", neighbours = routed", ", capacity = 1/2", ", projections = shared", ", idle = decay",
])  # fmt: skip
@pytest.mark.parametrize("mixer", ["gated_deltanet(heads = 2, expand_k = 1)", CHANNELS, CLOSED])
def test_each_option_decodes(options: str, mixer: str) -> None:
    layer = mixture(mixer, options)
    found = probe(layer, random_inputs(2, LENGTH, WIDTH), dtype="float64")
    with torch.no_grad():
        whole = found.model(found.tokens)
    for sizes in ([1] * LENGTH, [7, 14]):
        assert_close(decoded(found.model, found.tokens, sizes), whole, EXACT, str(sizes))


@every_mixer
def test_packed_sequences_are_each_by_itself(mixer: str) -> None:
    """Also one of a single token, and one of none."""
    found = probe(mixture(mixer), random_inputs(1, LENGTH, WIDTH), dtype="float64")
    bounds = torch.tensor([0, 9, 9, 10, LENGTH])
    together = found.model(found.tokens, bounds)
    apart = [found.model(found.tokens[:, a:b]) for a, b in ((0, 9), (9, 10), (10, LENGTH))]
    assert_close(together, torch.cat(apart, 1), EXACT)


@pytest.mark.parametrize("options", ["", ", capacity = 1/2"])
@pytest.mark.parametrize("mixer", ["gru", "lightnet(heads = 2)", TITANS, CLOSED])
def test_where_lengths_are_not_known_all_is_the_same(
    mixer: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a compiled graph or on a GPU, where nothing waits for a length."""
    found = probe(mixture(mixer, options), random_inputs(2, LENGTH, WIDTH), dtype="float64")
    whole, (logits, state) = found.output(), _prefilled(found)
    grads = gradients(found.model, whole.square().sum())
    pretend_compiling(monkeypatch)
    again, (known, after) = found.output(), _prefilled(found)
    assert_close(again, whole, EXACT, "output")
    assert_close(known, logits, EXACT, "logits")
    for name, grad in gradients(found.model, again.square().sum()).items():
        assert_close(grad, grads[name], EXACT, name)
    left, right = (torch.utils._pytree.tree_leaves(s) for s in (state, after))
    for a, b in zip(left, right, strict=True):
        if isinstance(a, Tensor):
            assert_close(b.double(), a.double(), EXACT, "state")


def _prefilled(found: Probe) -> tuple[Tensor, object]:
    with torch.no_grad():
        first, state = found.model.prefill(found.tokens[:, :10], found.model.init_state(2))
        second, state = found.model.prefill(found.tokens[:, 10:], state)
    return torch.cat([first, second], 1), state


@every_mixer
@pytest.mark.parametrize("where", ["all to one", "one unused", "one token each"])
def test_extreme_routings(mixer: str, where: str) -> None:
    """All tokens to one memory, a memory nobody goes to, and a token a sequence."""
    batch, length, top = {"all to one": (2, 9, 1), "one unused": (2, 9, 2)}.get(where, (5, 1, 2))
    layer = mixture(mixer, ", weights = probability", top=top)
    found = probe(layer, random_inputs(batch, length, WIDTH).abs(), dtype="float64")
    with torch.no_grad():
        router = found.model.get_parameter("mom.router.weight")
        if where != "one token each":
            sign = 1.0 if where == "all to one" else -1.0
            router[1] = 0
            router[1, :] = 5 * sign
    weights = {name: w.requires_grad_() for name, w in found.weights().items()}
    rows = random_inputs(batch, length, WIDTH).abs()
    plain = MIXERS[mixer]
    wanted = torch.stack(
        [published.memories(weights, x, plain, top, True, weights="probability") for x in rows]
    )
    found = replace_width(found, wanted.shape[-1])
    assert_close(found.output(), wanted, EXACT)
    gradients(found.model, found.output().square().sum())
    for name, parameter in found.model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    whole = found.model(found.tokens).detach()
    assert_close(decoded(found.model, found.tokens, [1] * length), whole, EXACT)


def test_a_step_writes_only_the_memories_a_token_goes_to() -> None:
    layer = mixture("gla(heads = 2)", ", shared = false", memories=4, top=1)
    model = probe(layer, random_inputs(2, 5, WIDTH), dtype="float64").model
    with torch.no_grad():
        _, state = model.prefill(torch.arange(10).view(2, 5), model.init_state(2))
        _, after = model.step(torch.tensor([3, 4]), state)
    before, now = (s["layers"]["mom.memories"]["gla.memory"]["memory"] for s in (state, after))
    assert before.shape[:2] == (2, 4)
    changed = (before != now).flatten(2).any(-1)
    assert changed.sum(1).tolist() == [1, 1]


def test_the_balance_loss_and_the_z_loss_reach_the_loss() -> None:
    body = "embed(dim = 8, vocab = 11) {layer} lm_head"
    text = mixture("gla(heads = 2)", ", balance = {0}, z_loss = {1}")
    tokens = torch.randint(11, (2, 13), generator=torch.Generator().manual_seed(0))

    def loss(balance: float, z: float) -> Tensor:
        layer = text.replace("{0}", str(balance)).replace("{1}", str(z))
        model = built(body.replace("{layer}", layer), dtype="float64")
        logits.append(
            model.get_parameter("embed.weight")[tokens] @ model.get_parameter("mom.router.weight").T
        )
        return model.loss(tokens, tokens)

    logits: list[Tensor] = []
    none, both = loss(0, 0), loss(0.25, 0.5)
    z = logits[0].logsumexp(-1).square().mean()
    assert_close(both - none, 0.25 * published.balance(logits[0], 2) + 0.5 * z, EXACT)


def test_costs_count_all_memories_and_what_a_token_uses() -> None:
    one = built("embed(dim = 16, vocab = 11) gla(heads = 2) lm_head").cost
    mixed = built(
        f"embed(dim = 16, vocab = 11) {mixture('gla(heads = 2)', memories=5)} lm_head"
    ).cost
    assert mixed.state_bytes(100) == 6 * one.state_bytes(100)
    own = 16 * (8 + 16 + 16) + 8 * 16 + 8  # key, value, decay through 16 channels with a bias
    assert mixed.params == one.params + 5 * own + 5 * 16
    assert mixed.active_params == one.params + 2 * own + 5 * 16


@pytest.mark.parametrize(
    ("body", "identifier"),
    [
        ("mom(memories = 4, top = 2) { attention(heads = 2) }", "not-routable"),
        ("mom(memories = 4, top = 2) { conv(kernel = 3, causal = false) gla }", "not-routable"),
        ("mom(memories = 4, top = 2) { rms_norm linear }", "nothing-routed"),
        ("mom(memories = 4, top = 5) { gla }", "too-few-to-choose"),
        ("mom(memories = 4, top = 1, balance = 0) { gla }", "router-without-gradient"),
        ("mom(memories = 4, top = 2, idle = decay) { gru }", "nothing-to-decay"),
        ("mom(memories = 4, top = 2, idle = decay) { linear_attention }", "nothing-to-decay"),
        ("mom(memories = 4, top = 2, idle = decay) { titans }", "gradient-before-decay"),
        ("mom(memories = 4, top = 2, neighbours = routed) { retnet(conv = 4) }", "position-routed"),
        ("moe(experts = 4, top = 2) { gla }", "not-routable"),
        ("moe(experts = 4, top = 5) { swiglu }", "too-few-to-choose"),
        ("moe(experts = 4, top = 2, shared_gate = true) { swiglu }", "gate-without-shared"),
    ],
)
def test_what_cannot_be_routed_is_a_diagnostic(body: str, identifier: str) -> None:
    assert complaints(f"embed(dim = 8, vocab = 5) {body} lm_head") == [identifier]


# --- experts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [0, 1])
def test_a_mixture_of_experts_is_a_loop_over_experts(shared: int) -> None:
    def plain(w: published.Weights, x: Tensor) -> Tensor:
        return published.experts(w, x, 2, shared)

    found = assert_is(
        f"moe(experts = 5, top = 2, shared = {shared}) {{ swiglu(expand = 2) }}", plain
    )
    whole = found.model(found.tokens).detach()
    assert_close(decoded(found.model, found.tokens, [1] * LENGTH), whole, EXACT)


SCORED = {
    "shared = 2, shared_gate = true, scale = 1/2": {
        "shared": 2, "shared_gate": True, "scale": 0.5,
    },
    "shared = 1, score = sigmoid, balance_bias = 0.001, scale = 2.446": {
        "shared": 1, "score": "sigmoid", "scale": 2.446,
    },
    "score = sigmoid, weights = probability": {
        "shared": 0, "score": "sigmoid", "weights": "probability",
    },
}  # fmt: skip
"""Routers of Qwen3-Next and of DeepSeek-V3 (Kimi Linear's), and what is between them."""


@pytest.mark.parametrize("options", SCORED)
def test_routers_score_as_published(options: str) -> None:
    def plain(w: published.Weights, x: Tensor) -> Tensor:
        return published.experts(w, x, 2, **SCORED[options])

    found = assert_is(f"moe(experts = 5, top = 2, {options}) {{ swiglu(expand = 2) }}", plain)
    whole = found.model(found.tokens).detach()
    assert_close(decoded(found.model, found.tokens, [1] * LENGTH), whole, EXACT)


def test_a_bias_for_balance_moves_against_the_load_and_adds_no_loss() -> None:
    """One step of gradient descent at rate 1 is arXiv 2408.15664's algorithm 1."""
    text = "embed(dim = 8, vocab = 11) moe(experts = 4, top = 2{}) {{ swiglu }} lm_head"
    tokens = torch.randint(11, (2, 13), generator=torch.Generator().manual_seed(0))
    model = built(text.format(", balance_bias = 0.001"), dtype="float64")
    loss = model.loss(tokens, tokens)
    loss.backward()
    logits = (
        model.get_parameter("embed.weight")[tokens] @ model.get_parameter("moe.router.weight").T
    )
    places = logits.flatten(0, 1).topk(2).indices.flatten().bincount(minlength=4)
    wanted = 0.001 * torch.sign(places - 2 * 26 / 4)
    assert_close(model.get_parameter("moe.experts.balance_bias").grad, wanted, EXACT)
    assert_close(loss, built(text.format(""), dtype="float64").loss(tokens, tokens), EXACT)


RECURRENT = {
    "moe(experts = 4, top = 2, {}) {{ swiglu(expand = 2) }}": (
        lambda w, x, logits: published.experts(w, x, 2, 0, logits)
    ),
    "mom(memories = 4, top = 2, {}) {{ gla(heads = 2, rank = 3) }}": (
        lambda w, x, logits: published.memories(
            w, x, MIXERS["gla(heads = 2, rank = 3)"], 2, True, logits=logits
        )
    ),
}
"""What a recurrent router routes, and its definition from the router's logits."""


@pytest.mark.parametrize("text", RECURRENT)
def test_recurrent_routers_share_one_gru_along_depth(text: str) -> None:
    layer = text.format("router = recurrent, router_rank = 6")
    body = f"embed(dim = 8, vocab = 30) {layer} {layer} lm_head"
    model = built(body, dtype="float64")
    w = model.state_dict()
    gru = {n.rpartition(".")[2]: v for n, v in w.items() if ".gru." in n}
    assert len(gru) == 4
    assert sum(v.numel() for v in w.values()) == model.cost.params
    tokens = torch.arange(30).view(2, 15)
    rows = []
    for x in w["embed.weight"][tokens]:
        state = x.new_zeros(len(x), 6)
        for name in sorted({n.partition(".")[0] for n in w if n[:3] in ("moe", "mom")}):
            own = {n.split(".", 1)[1]: v for n, v in w.items() if n.startswith(f"{name}.")}
            inner = x @ own["router.down"].T
            state = torch.stack(
                [published.gru_cell(gru, a, b) for a, b in zip(inner, state, strict=True)]
            )
            x = RECURRENT[text](own, x, state @ own["router.weight"].T)
        rows.append(x @ w["lm_head.weight"].T)
    whole = model(tokens).detach()
    assert_close(whole, torch.stack(rows), EXACT)
    assert_close(decoded(model, tokens, [1] * 15), whole, EXACT)
    model.loss(tokens, tokens).backward()
    assert all(p.grad is not None for p in model.parameters())
