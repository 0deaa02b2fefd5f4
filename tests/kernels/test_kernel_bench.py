"""The benchmark library: parity gates the speed, rows are complete, memory stays bounded."""

import pytest
import torch

from archdsl.kernels import bench
from archdsl.kernels.peers import Peer

KEEP_MEMORY = True  # memory is measured here

CASES = [
    bench.Case("scan", "real", batch=1, length=40, width=8),
    bench.Case("decay", "per channel", batch=1, length=40, heads=1, width=8),
    bench.Case("delta", "rwkv7", batch=1, length=40, heads=1, width=8),
    bench.Case("delta", "gated", batch=1, length=1, heads=1, width=8, mode="step"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}-{case.mode}")
def test_a_row_has_times_only_behind_parity(
    case: bench.Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = bench.measure(case)
    assert row["parity"] <= 1e-5
    assert row["peer"] is None
    assert row["ms"] is not None
    assert row["limit_ms"] is not None
    assert row["loop_ms"] is not None
    monkeypatch.setitem(bench.PARITY, torch.float32, 0.0)
    row = bench.measure(case)
    assert row["ms"] is None
    assert row["limit_ms"] is None
    assert row["loop_ms"] is None


@pytest.mark.parametrize("family", ["scan", "decay", "delta"])
def test_peak_memory_is_at_most_twelve_times_the_inputs(family: str) -> None:
    variant = {"scan": "real", "decay": "per channel", "delta": "kda"}[family]
    case = bench.Case(family, variant, batch=1, length=512, heads=2, width=64)
    x = {name: value.float() for name, value in bench.make(case).items()}
    function = bench.work(case, x, bench.call(case), None)
    function()
    size = sum(value.numel() * value.element_size() for value in x.values())
    assert bench.peak(function) <= 12 * size


def test_a_long_call_is_not_timed_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call may touch memory that the machine has given to nobody before."""
    for second in (800.0, bench.LASTING + 1):
        taken = iter([bench.LASTING + 2, *[second] * 8])
        monkeypatch.setattr(bench, "_elapsed", lambda function, group, taken=taken: next(taken))
        assert bench.clock(lambda: None) == second


def test_on_a_gpu_the_shapes_are_those_that_others_publish() -> None:
    table = bench.cases("cuda", ["decay"])
    shapes = {case.shape for case in table if case.mode == "fwd"}
    assert {"B1 T8192 H96 D128", "B8 T1024 H8 D64"} <= shapes
    assert {case.dtype for case in table} == {torch.bfloat16}


def test_a_peer_is_timed_only_where_its_output_is_ours() -> None:
    case = bench.Case("scan", "real", batch=1, length=12, width=4)

    def loop(x: bench.Inputs, _: float) -> torch.Tensor:
        return bench.call(case)(x, "reference")[0]

    good = Peer("loop", loop)
    wrong = Peer("wrong", lambda x, scale: 2 * loop(x, scale))
    for peer, timed in ((good, True), (wrong, False)):
        row = bench.measure(case, bench.Effort(peers={("scan", "real"): peer}))
        assert row["peer"] == peer.name
        assert (row["peer_ms"] is not None) == timed


def test_the_machine_is_named() -> None:
    assert {"cpu", "cores", "threads", "bfloat16", "torch", "triton"} <= set(bench.machine())


def test_the_standard_table_has_every_mode_of_every_family() -> None:
    table = bench.cases()
    assert {case.family for case in table} == {"scan", "decay", "delta"}
    assert {case.mode for case in table} == {"fwdbwd", "step"}
    assert {case.compiled for case in table} == {False, True}
    assert all(case.family == "scan" for case in bench.cases(families=("scan",)))
