"""Every published recurrence: kernel against its own token loop, in every form and layout."""

import published_decay
import published_delta
import published_scan
import pytest
import torch
from kernel_checks import Member, Result, Tensors, assert_close, cast, randn, run
from torch import Tensor

LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 100, 257)
MEMBERS = [*published_decay.MEMBERS, *published_delta.MEMBERS, *published_scan.MEMBERS]
STATEFUL = [member for member in MEMBERS if member.name != "lightnet"]
every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
stateful_member = pytest.mark.parametrize("member", STATEFUL, ids=lambda m: m.name)


def inputs(member: Member, batch: int, length: int) -> Tensors:
    torch.manual_seed(length)
    return member.make(batch, length)


@every_member
def test_float64_equals_the_token_loop_at_awkward_lengths(member: Member) -> None:
    for length in LENGTHS:
        x = inputs(member, 2, length)
        assert_close(run(member.kernel, x, backend="chunked"), run(member.loop, x), 1e-10)


@pytest.mark.parametrize(
    "name", ["gla", "rwkv6", "gated_deltanet", "rwkv7", "deltaproduct_2", "mamba"]
)
def test_a_thousand_tokens(name: str) -> None:
    member = next(member for member in MEMBERS if member.name == name)
    x = inputs(member, 1, 1000)
    expected = run(member.loop, x)
    assert_close(run(member.kernel, x, backend="chunked"), expected, 1e-10)
    single = cast(x, torch.float32)
    expected = run(member.loop, cast(single, torch.float64))
    assert_close(run(member.kernel, single, backend="chunked"), expected, member.float32_limit)


@every_member
def test_float32_stays_within_1e_5_of_the_float64_loop_per_head(member: Member) -> None:
    for length in (17, 100, 257):
        x = cast(inputs(member, 2, length), torch.float32)
        expected = run(member.loop, cast(x, torch.float64))
        assert_close(run(member.kernel, x, backend="chunked"), expected, member.float32_limit)


@every_member
@pytest.mark.parametrize("backend", ["reference", None])
def test_reference_and_dispatch_agree_with_the_loop(member: Member, backend: str | None) -> None:
    for length in (1, 18):
        x = inputs(member, 1, length)
        assert_close(run(member.kernel, x, backend=backend), run(member.loop, x), 1e-10)


@stateful_member
def test_single_steps_equal_the_whole_sequence(member: Member) -> None:
    x = inputs(member, 2, 19)
    whole, final = member.kernel(x)
    for t in range(19):
        out, states = member.kernel(_tokens(member, x, t, t + 1), backend="step")
        torch.testing.assert_close(out[:, 0], whole[:, t], rtol=1e-9, atol=1e-9)
        x = _carry(x, states)
    for found, expected in zip(states, final, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@stateful_member
@pytest.mark.parametrize("cut", [1, 16, 64, 69])
def test_a_sequence_cut_anywhere_equals_the_whole_with_gradients(member: Member, cut: int) -> None:
    def halves(x: Tensors) -> Result:
        first, states = member.kernel(_tokens(member, x, 0, cut))
        second, states = member.kernel(_carry(_tokens(member, x, cut, 70), states))
        return torch.cat([first, second], 1), states

    x = inputs(member, 2, 70)
    assert_close(run(halves, x), run(member.loop, x), 1e-10)


@stateful_member
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_packed_sequences_equal_separate_ones(member: Member, backend: str) -> None:
    bounds = [0, 1, 1, 2, 19, 84, 85, 150]
    rows = len(bounds) - 1

    def separate(x: Tensors) -> Result:
        outs, finals = [], []
        for row in range(rows):
            part = _carry(x, tuple(s[row : row + 1] for s in _states(x)))
            states = _states(part)
            if bounds[row + 1] > bounds[row]:
                out, states = member.loop(_tokens(member, part, bounds[row], bounds[row + 1]))
                outs.append(out)
            finals.append(states)
        return torch.cat(outs, 1), tuple(torch.cat(parts) for parts in zip(*finals, strict=True))

    x = inputs(member, 1, bounds[-1])
    for name, state in x.items():
        if name.startswith("state"):
            x[name] = state.expand(rows, *state.shape[1:]) * randn(rows, *state.shape[1:]).abs()
    found = run(member.kernel, x, cu_seqlens=torch.tensor(bounds), backend=backend)
    assert_close(found, run(separate, x), 1e-10)


def _states(x: Tensors) -> tuple[Tensor, ...]:
    return tuple(x[name] for name in x if name.startswith("state"))


def _carry(x: Tensors, states: tuple[Tensor, ...]) -> Tensors:
    names = [name for name in x if name.startswith("state")]
    return x | dict(zip(names, states, strict=True))


def _tokens(member: Member, x: Tensors, start: int, stop: int) -> Tensors:
    """Tokens [start, stop) of every input that has a time axis."""
    length = min(v.shape[1] for n, v in x.items() if _timed(member, n))

    def part(name: str, value: Tensor) -> Tensor:
        if not _timed(member, name):
            return value
        micro = value.shape[1] // length
        return value[:, start * micro : stop * micro]

    return {name: part(name, value) for name, value in x.items()}


def _timed(member: Member, name: str) -> bool:
    return not name.startswith("state") and name not in member.shared
