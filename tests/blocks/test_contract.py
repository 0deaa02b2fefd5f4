"""What every layer of the language promises; the subjects are listed in ``contract``."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from blocks.contract import DECODERS, SUBJECTS, SYMBOLS, Subject, tokens
from blocks.probe import gradients
from fresh import forget
from routed_products import counted_learners
from tolerances import EXACT, assert_close, bound
from torch import Tensor
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from archdsl.blocks.op import Work
from archdsl.compiler.graphs.passes import PIPELINE
from archdsl.compiler.models.model import Model

LENGTH = 70
"""More than the largest chunk of any kernel (64), and no multiple of one."""

CHUNKINGS = {
    "steps": [1] * LENGTH,
    "two": [64, 6],
    "none between": [0, 20, 0, 50],
    "uneven": [1, 16, 3, 50],
    "one": [LENGTH],
}

DEPTH = 16

SINGLE = bound(torch.float32, terms=LENGTH, depth=DEPTH)
"""The longest sum is over a sequence; a signal passes at most 16 sums: projection, convolution, gates,
memory, read, norm and product, at most twice, norm and head."""

every_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
every_decoder = pytest.mark.parametrize("subject", DECODERS, ids=str)


def decoded(model: Model, x: Tensor, sizes: list[int]) -> Tensor:
    """Logits of prefills of the given sizes, one behind the other."""
    state, outputs = model.init_state(len(x)), []
    for part in x.split(sizes, 1):
        logits, state = model.prefill(part, state)
        outputs.append(logits)
    return torch.cat(outputs, 1)


def structure(state: Any) -> Any:
    """A state with shapes and dtypes in the place of tensors; caches have any length."""
    if isinstance(state, Mapping):
        cache = set(state) in ({"keys", "values"}, {"latents"})
        return {key: "cache" if cache else structure(value) for key, value in state.items()}
    return (tuple(state.shape), state.dtype) if isinstance(state, Tensor) else None


def equal_weights(left: Model, right: Model) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


# --- decoding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunking", CHUNKINGS)
@every_decoder
def test_prefill_in_any_chunks_is_the_parallel_form(subject: Subject, chunking: str) -> None:
    model, x = subject.model(dtype="float64"), tokens(2, LENGTH)
    with torch.no_grad():
        assert_close(decoded(model, x, CHUNKINGS[chunking]), model(x), EXACT)


@every_decoder
def test_steps_are_the_parallel_form_in_single_precision(subject: Subject) -> None:
    model, x = subject.model(), tokens(2, LENGTH)
    limit = bound(torch.float32, terms=LENGTH, depth=DEPTH * subject.passes)
    with torch.no_grad():
        assert_close(decoded(model, x, CHUNKINGS["steps"]), model(x), limit)


@every_decoder
def test_a_step_is_a_prefill_of_one_token(subject: Subject) -> None:
    model, x = subject.model(), tokens(2, 5)
    with torch.no_grad():
        _, state = model.prefill(x[:, :4], model.init_state(2))
        stepped, after = model.step(x[:, 4], state)
        filled, also = model.prefill(x[:, 4:], state)
    assert torch.equal(stepped, filled[:, 0])
    assert structure(after) == structure(also)


@every_decoder
def test_a_fresh_state_is_built_as_the_one_behind_a_step(subject: Subject) -> None:
    model = subject.model()
    fresh = model.init_state(3)
    with torch.no_grad():
        _, after = model.step(tokens(3, 1)[:, 0], fresh)
    assert structure(after) == structure(fresh)


@every_decoder
def test_gradients_flow_through_a_state_between_chunks(subject: Subject) -> None:
    model, x = subject.model(dtype="float64"), tokens(2, 9)
    whole = gradients(model, model(x).square().sum())
    parts = gradients(model, decoded(model, x, [4, 5]).square().sum())
    for name, grad in whole.items():
        assert_close(parts[name], grad, EXACT, name)


@pytest.mark.parametrize(
    "subject", [subject for subject in SUBJECTS if not subject.causal], ids=str
)
def test_a_layer_that_looks_ahead_says_that_it_cannot_decode(subject: Subject) -> None:
    model = subject.model()
    assert not model.cost.causal
    with pytest.raises(ValueError, match="not causal"):
        model.prefill(tokens(1, 3), model.init_state(1))


@every_subject
def test_it_sees_later_tokens_exactly_where_it_does_not_say_causal(subject: Subject) -> None:
    model, x = subject.model(dtype="float64"), tokens(2, LENGTH)
    changed = x.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % SYMBOLS
    with torch.no_grad():
        before, after = model(x)[:, :40], model(changed)[:, :40]
        shorter = model(x[:, :40])
    if subject.causal:
        assert_close(after, before, EXACT)
        assert_close(shorter, before, EXACT)
    else:
        assert float((after - before).abs().max()) > 1e-6


# --- training --------------------------------------------------------------------------------------


@every_subject
def test_every_parameter_gets_a_finite_gradient(subject: Subject) -> None:
    """At the start; where an outer factor starts at zero (an adapter), a step later."""
    model, x = subject.model(), tokens(2, LENGTH)
    first = finite_gradients(model, x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    second = finite_gradients(model, x)
    for name, grad in first.items():
        assert bool(grad.any() or second[name].any()), f"nothing reads {name}"


def finite_gradients(model: Model, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model.loss(x[:, :-1], x[:, 1:]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@every_subject
def test_fused_and_unfused_are_one_model(subject: Subject) -> None:
    x = tokens(2, LENGTH)
    fused, plain = subject.model(dtype="float64"), subject.model(dtype="float64", stage="lower")
    assert equal_weights(fused, plain)
    assert_close(fused(x), plain(x), EXACT)
    expected = gradients(plain, plain(x).square().mean())
    for name, grad in gradients(fused, fused(x).square().mean()).items():
        assert_close(grad, expected[name], EXACT, name)


@every_subject
def test_a_seed_decides_the_weights_whatever_the_stage(subject: Subject) -> None:
    first = subject.model(seed=3)
    for stage in ("lower", *PIPELINE):
        assert equal_weights(first, subject.model(seed=3, stage=stage))
    assert not equal_weights(first, subject.model(seed=4))


# --- cost ------------------------------------------------------------------------------------------


@every_subject
def test_parameters_are_as_many_as_the_cost_says(subject: Subject) -> None:
    model = subject.model()
    assert sum(p.numel() for p in model.parameters()) == model.cost.params
    assert sum(w.numel() for w in model.state_dict().values()) == model.cost.params


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@every_decoder
def test_states_are_as_large_as_the_cost_says(subject: Subject, dtype: str) -> None:
    model = subject.model(dtype=dtype)
    state = model.init_state(3)
    assert model.state_bytes(state) == 3 * model.cost.state_bytes(0, dtype)
    with torch.no_grad():
        for length, size in ((4, 4), (12, 8), (13, 1)):
            _, state = model.prefill(tokens(3, size), state)
            assert model.state_bytes(state) == 3 * model.cost.state_bytes(length, dtype)


@pytest.mark.parametrize("length", [1, 37, 128])
@every_subject
def test_forward_flops_are_those_pytorch_counts(subject: Subject, length: int) -> None:
    model = subject.model()
    work = Work(length=length, batch=2)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, counted_learners() as learned:
        model(tokens(2, length))
    exact = model.cost.total_flops(work) - model.cost.estimated_flops(work)
    assert exact == counter.get_total_flops() - sum(learned)


@every_decoder
def test_decode_flops_are_those_pytorch_counts(subject: Subject) -> None:
    model = subject.model()
    with torch.no_grad():
        _, state = model.prefill(tokens(2, 19), model.init_state(2))
        with FlopCounterMode(display=False) as counter:
            model.step(tokens(2, 1)[:, 0], state)
    cost = model.cost.total_flops(Work(length=20, batch=2, mode="decode"))
    assert cost == counter.get_total_flops()


# --- life ------------------------------------------------------------------------------------------


@every_subject
def test_copies_and_pickles_are_the_same_model_and_apart(subject: Subject) -> None:
    model, x = subject.model(), tokens(2, 9)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
        assert twin.arch.hash == model.arch.hash
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert not equal_weights(twin, model)
        twin.load_state_dict(model.state_dict())
        assert torch.equal(twin(x), model(x))


@every_subject
def test_weights_may_be_given_from_outside_as_plain_tensors(subject: Subject) -> None:
    """As `torch.func.functional_call` does: ensembles, inner loops of meta-learning, averaged weights."""
    model, x = subject.model(dtype="float64"), tokens(2, 9)
    other = subject.model(dtype="float64", seed=5)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    found = functional_call(other, weights, (x,))
    assert_close(found, model(x), EXACT)
    found.square().sum().backward()
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        given = weights[name].grad
        assert (given is None) == (parameter.grad is None), name
        if given is not None:
            assert_close(given, parameter.grad, EXACT, name)


@every_subject
def test_weights_survive_torch_save(subject: Subject) -> None:
    model, other, x = subject.model(seed=1), subject.model(seed=2), tokens(2, 9)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), model(x))


@every_subject
def test_runs_in_bfloat16_and_under_autocast(subject: Subject) -> None:
    x = tokens(2, LENGTH)
    half = subject.model(dtype="bfloat16")
    assert half(x).dtype == torch.bfloat16
    assert bool(torch.isfinite(half(x)).all())
    model = subject.model()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(x[:, :-1], x[:, 1:])
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@every_decoder
def test_decodes_in_bfloat16(subject: Subject) -> None:
    model = subject.model(dtype="bfloat16")
    fresh = model.init_state(2)
    with torch.no_grad():
        logits, after = model.prefill(tokens(2, 5), fresh)
        logits, after = model.step(tokens(2, 1)[:, 0], after)
    assert logits.dtype == torch.bfloat16
    assert structure(after) == structure(fresh)


@every_subject
def test_takes_a_single_token(subject: Subject) -> None:
    assert subject.model()(tokens(3, 1)).shape == (3, 1, SYMBOLS)


@every_subject
def test_takes_an_empty_batch(subject: Subject) -> None:
    assert subject.model()(tokens(0, 5)).shape == (0, 5, SYMBOLS)


@every_subject
def test_takes_no_tokens(subject: Subject) -> None:
    assert subject.model()(tokens(2, 0)).shape == (2, 0, SYMBOLS)


@every_decoder
def test_decodes_an_empty_batch(subject: Subject) -> None:
    model = subject.model()
    with torch.no_grad():
        _, state = model.prefill(tokens(0, 5), model.init_state(0))
        assert model.step(tokens(0, 1)[:, 0], state)[0].shape == (0, SYMBOLS)


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e4])
@every_subject
def test_extreme_inputs_stay_finite(subject: Subject, size: float) -> None:
    model = subject.model()
    with torch.no_grad():
        signs = model.get_parameter("embed.weight").sign()
        model.get_parameter("embed.weight").copy_(size * signs)
    out = model(tokens(2, LENGTH))
    out.sum().backward()
    assert bool(torch.isfinite(out).all())
    for name, parameter in model.named_parameters():
        if name.endswith("balance_bias"):
            assert parameter.grad is None, "an auxiliary loss moves it, and no output"
        else:
            assert bool(torch.isfinite(parameter.grad).all()), name


@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.compiled], ids=str)
def test_compiles_as_one_graph(subject: Subject) -> None:
    torch.compiler.reset()
    forget()
    model, x = subject.model(), tokens(2, subject.compiled)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), model(x), SINGLE)
    torch.compiler.reset()
