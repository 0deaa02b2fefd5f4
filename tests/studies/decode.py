"""A model of every family decodes as it trains: ``python -m tests.studies.decode``.

One layer of each family: scan, decay, delta, windowed attention, a nonlinear cell, a convolution. The
logits of tokens given one by one must be those of the whole sequence at once (float32, 1e-3), and the
state must not grow once the window is full. The exit status is 1 where either does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import torch

import archdsl
from archdsl.compiler.models.model import Model

WINDOW = 64
LIMIT = 1e-3
"""Largest difference of a logit, relative to the larger of one and the largest logit."""

SPEC = f"""
model {{
    embed(dim = 64, vocab = 256)
    stack(depth = 6, cycle = [scan, decay, delta, attention, cell, conv]) {{
        scan:      residual {{ rms_norm  hgrn }}
        decay:     residual {{ rms_norm  gla(heads = 2) }}
        delta:     residual {{ rms_norm  gated_deltanet(heads = 2) }}
        attention: residual {{ rms_norm  attention(heads = 2, position = rope, window = {WINDOW}) }}
        cell:      residual {{ rms_norm  gru(heads = 2) }}
        conv:      residual {{ rms_norm  conv(kernel = 4, activation = silu)  swiglu }}
    }}
    rms_norm
    lm_head(tied = true)
}}
"""


@dataclass(frozen=True)
class Outcome:
    """What was found.

    Args:
        length: tokens decoded.
        error: largest difference to the parallel form, as :data:`LIMIT` has it.
        early: bytes of the state when the window is full.
        late: bytes of the state at the end.
        seconds: of the decoding.
    """

    length: int
    error: float
    early: int
    late: int
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether both promises hold."""
        return self.error <= LIMIT and self.early == self.late


def model_of(seed: int = 0) -> Model:
    """The model, with random weights."""
    return archdsl.loads(SPEC).sample(0).compile(seed=seed).eval()


@torch.no_grad()
def decoded(length: int, batch: int = 1) -> Outcome:
    """Decode random tokens one by one, and compare with all of them at once."""
    model = model_of()
    tokens = torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(0))
    state, outputs, early, start = model.init_state(batch), [], 0, time.perf_counter()
    for place in range(length):
        logits, state = model.step(tokens[:, place], state)
        outputs.append(logits)
        early = model.state_bytes(state) if place == min(length - 1, WINDOW) else early
    seconds = time.perf_counter() - start
    parallel = model(tokens)
    size = parallel.abs().max().clamp(min=1)
    error = float((torch.stack(outputs, 1) - parallel).abs().max() / size)
    return Outcome(length, error, early, model.state_bytes(state), seconds)


def main() -> int:
    """Decode, and say what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--length", type=int, default=4096)
    found = decoded(parser.parse_args().length)
    print(
        f"{'ok' if found.kept else 'WRONG'}: {found.length} tokens, largest difference"
        f" {found.error:.1e} (at most {LIMIT:g}), state {found.early} bytes at the window's end and"
        f" {found.late} at the last token, {1000 * found.seconds / found.length:.2f} ms a token"
    )
    return int(not found.kept)


if __name__ == "__main__":
    sys.exit(main())
