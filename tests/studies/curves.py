"""Loss curves of five published mixers on a text: ``python -m tests.studies.curves --data PATH``.

Two layers of width 128 each, the same data in the same order, the same optimiser. The exit status is 1
where one diverges: its loss stops being a number, or ends above where a guess by byte frequency stands.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import archdsl
from archdsl.compiler.models.model import Model

SYMBOLS = 256

SPEC = """
model {{
    embed(dim = 128, vocab = 256)
    stack(depth = 2) {{
        residual {{ {norm}  {mixer} }}
        residual {{ {norm}  {channels} }}
    }}
    {norm}
    lm_head(tied = true)
}}
"""

PLAIN = {"norm": "rms_norm", "channels": "swiglu"}
MODELS = {
    "GLA": {"mixer": "gla(heads = 4)", **PLAIN},
    "Gated DeltaNet": {"mixer": "gated_deltanet(heads = 4)", **PLAIN},
    "Mamba-2": {"mixer": "mamba2(heads = 4, state = 64)", **PLAIN},
    "RWKV-7": {
        "mixer": "rwkv7(heads = 4)",
        "norm": "layer_norm",
        "channels": "token_shift mlp(activation = relu2)",
    },
    "attention": {"mixer": "attention(heads = 4, position = rope)", **PLAIN},
}
"""Each model by its name: what fills the spec's gaps."""


@dataclass(frozen=True)
class Setting:
    """How long and on how much a model is trained."""

    steps: int = 600
    batch: int = 16
    length: int = 128
    rate: float = 2e-3
    warmup: int = 50


@dataclass
class Curve:
    """The losses of one model, in nats a byte."""

    name: str
    parameters: int
    losses: list[float]
    seconds: float

    def final(self, count: int = 50) -> float:
        """The mean of the last losses."""
        tail = self.losses[-count:]
        return sum(tail) / len(tail)


def model_of(name: str) -> Model:
    """A freshly initialised model."""
    return archdsl.loads(SPEC.format(**MODELS[name])).sample(0).compile(seed=0)


def bytes_of(path: Path) -> Tensor:
    """A text file as a tensor of bytes."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def batches(data: Tensor, setting: Setting) -> Callable[[], Tensor]:
    """Windows ``[B, T + 1]`` at places drawn from one seed, the same for every model."""
    generator = torch.Generator().manual_seed(0)
    window = torch.arange(setting.length + 1)

    def draw() -> Tensor:
        last = len(data) - setting.length - 1
        starts = torch.randint(last, (setting.batch, 1), generator=generator)
        return data[starts + window].long()

    return draw


def train(name: str, data: Tensor, setting: Setting) -> Curve:
    """Train one model; stops where the loss is no longer a number."""
    model, draw, start = model_of(name), batches(data, setting), time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), setting.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate_at(s, setting))
    curve = Curve(name, model.cost.params, [], 0.0)
    for step in range(setting.steps):
        x = draw()
        loss = model.loss(x[:, :-1], x[:, 1:])
        curve.losses.append(float(loss.detach()))
        if not math.isfinite(curve.losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{name}: step {step}, loss {curve.losses[-1]:.3f}", file=sys.stderr, flush=True)
    curve.seconds = time.perf_counter() - start
    return curve


def rate_at(step: int, setting: Setting) -> float:
    """A linear warm-up, then half a cosine down to a tenth."""
    if step < setting.warmup:
        return (step + 1) / setting.warmup
    done = (step - setting.warmup) / max(1, setting.steps - setting.warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def entropy(data: Tensor) -> float:
    """Nats a byte of a guess by frequency alone."""
    share = torch.bincount(data.long(), minlength=SYMBOLS).double() / len(data)
    return float(-(share * share.clamp(min=1e-30).log()).sum())


def diverged(curve: Curve, guess: float) -> bool:
    """Whether a model ended without learning more than how frequent bytes are."""
    return not all(map(math.isfinite, curve.losses)) or curve.final() > guess


def smooth(losses: Sequence[float], weight: float = 0.9) -> list[float]:
    """A running mean, for the eye."""
    found, mean = [], losses[0]
    for loss in losses:
        mean = weight * mean + (1 - weight) * loss
        found.append(mean)
    return found


def plot(curves: Sequence[Curve], guess: float, path: Path) -> None:
    """One picture of all curves."""
    import matplotlib as mpl  # a development dependency, for this picture alone

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for curve in curves:
        label = f"{curve.name} ({curve.parameters / 1e3:.0f}k): {curve.final():.3f}"
        axes.plot(smooth(curve.losses), label=label, linewidth=1.4)
    axes.axhline(guess, color="0.6", linewidth=1, linestyle=":", label="by byte frequency")
    axes.set(xlabel="step", ylabel="loss, nats a byte", title="Two layers of width 128")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=130)


def main() -> int:
    """Train the models that are asked for; write the losses and, where asked, the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="text file to learn")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=Setting.steps)
    parser.add_argument("--json", type=Path, help="losses to write; models already in it are kept")
    parser.add_argument("--plot", type=Path, help="PNG picture to write")
    arguments = parser.parse_args()
    data, setting = bytes_of(arguments.data), Setting(steps=arguments.steps)
    curves = kept(arguments.json)
    for name in arguments.models:
        if name not in curves:
            curves[name] = train(name, data, setting)
            write(curves, arguments.json)
    guess = entropy(data)
    for curve in curves.values():
        state = "DIVERGED" if diverged(curve, guess) else "ok"
        print(f"{state:8} {curve.name}: {curve.final():.3f} nats, {curve.seconds:.0f} s")
    if arguments.plot:
        plot([curves[name] for name in MODELS if name in curves], guess, arguments.plot)
    return int(any(diverged(curve, guess) for curve in curves.values()))


def kept(path: Path | None) -> dict[str, Curve]:
    """The curves of an earlier run."""
    if path is None or not path.exists():
        return {}
    return {row["name"]: Curve(**row) for row in json.loads(path.read_text())}


def write(curves: dict[str, Curve], path: Path | None) -> None:
    """The curves as JSON."""
    if path is not None:
        path.write_text(json.dumps([asdict(curve) for curve in curves.values()]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
