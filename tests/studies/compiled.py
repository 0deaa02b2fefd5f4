"""Every published model as one compiled graph, as the first thing a process does with it.

    python -m tests.studies.compiled [FILE…] [--backend inductor]

compiles a member of each file (all of ``specs/zoo`` if none is named) with ``fullgraph=True``, with archdsl's
and PyTorch's caches empty, runs it and its backward pass on a few tokens in float64, and prints the largest
difference from the same model as it is, over outputs and gradients. Anything that is no one graph, or is
further off than 1e-10, is a failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # `fresh`, however this is started

from fresh import forget

import archdsl
from archdsl.compiler.models.model import Model

ZOO = Path(__file__).parents[2] / "specs" / "zoo"
TOKENS, WORDS, BOUND = 6, 50, 1e-10


def results(model: Model, run: torch.nn.Module, tokens: Tensor) -> list[Tensor]:
    """Logits ``[B, T, vocab]`` and every gradient of a weighted sum of them."""
    model.zero_grad(set_to_none=True)
    logits = run(tokens)
    (logits * torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype)).sum().backward()
    return [logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def difference(path: Path, backend: str) -> float:
    """Of the compiled from the plain model, relative to the largest number of each result.

    Raises:
        torch._dynamo.exc.Unsupported: it is not one graph.
    """
    torch.compiler.reset()
    forget()
    model = archdsl.load(path).sample(seed=0).compile(dtype="float64").eval()
    tokens = torch.randint(WORDS, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    found = results(model, torch.compile(model, fullgraph=True, backend=backend), tokens)
    pairs = zip(found, results(model, model, tokens), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in pairs)


def verdict(path: Path, backend: str) -> tuple[bool, str]:
    """Whether a file passes, and what to print of it."""
    try:
        found = difference(path, backend)
    except Exception as error:  # whatever the compiler says is the finding
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return False, f"FAILED: {reason[0]}"
    return found <= BOUND, f"{found:.1e}" + ("" if found <= BOUND else " FAILED")


def main() -> int:
    """Print a line a file; the number of failures, at most one, is the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--backend", default="aot_eager")
    given = parser.parse_args()
    failed = 0
    for path in given.files or sorted(ZOO.glob("*.arch")):
        since = time.perf_counter()
        passed, said = verdict(path, given.backend)
        failed += not passed
        print(f"{path.stem:<24} {said}  {time.perf_counter() - since:.0f} s", flush=True)
    print(f"{failed} failures")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
