"""The one training loop: batches in, a loss curve and evaluations out, resumable to the bit.

Everything random is drawn from a seed and the step's number, so a checkpoint holds the weights, the
optimiser and torch's generators, and a resumed run computes what an undisturbed one does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import cos, isfinite, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archdsl.blocks.asking import TrainSection
from archdsl.search.tasks.base import IGNORED, LearningTask

if TYPE_CHECKING:
    from archdsl.search.tasks.base import Numbers, Tokens

POINTS = 100
"""About how many points a loss curve has."""


class Diverged(Exception):
    """A loss or a gradient that is not finite."""


@dataclass(frozen=True)
class Progress:
    """One optimiser step. ``loss`` is in nats, before the step."""

    step: int
    loss: float
    rate: float


class Trainer:
    """One model on its way through the rungs.

    Args:
        model: gives ``loss(tokens, targets)`` and parameters.
        task: what it learns.
        section: how.
        steps: of the last rung, which the schedule is made for.
        seed: of the batches; the model's own weights are drawn before.
    """

    def __init__(
        self, model: Any, task: LearningTask, section: TrainSection, steps: int, seed: int
    ) -> None:
        self.model, self.task, self.section = model, task, section
        self.steps, self.seed, self.step = steps, seed, 0
        self.device = next(model.parameters()).device
        self.optimizer = optimizer(model, section)
        self.curve: list[tuple[int, float]] = []
        self._block: list[float] = []
        self._random = _generators(self.device)
        with _drawing_from(self):
            torch.manual_seed(seed)

    def run(self, until: int) -> Iterator[Progress]:
        """Train up to step ``until``.

        Raises:
            Diverged: the loss or the gradient is not finite.
        """
        self.model.train()
        while self.step < until:
            rate = self._set_rate()
            tokens, targets = self._batch()
            self.model.number = self.step  # what the model draws in a step depends on its number
            with _drawing_from(self):
                loss = self.model.loss(tokens, targets)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
            self._clip()
            value = self._checked(loss.item(), "loss")
            self.optimizer.step()
            self.step += 1
            self._record(value)
            yield Progress(self.step, value, rate)

    def evaluate(self) -> dict[str, float]:
        """The task's measures on its held-out sequences.

        Raises:
            Diverged: a measure is not finite.
        """
        judge = TorchJudge(self.model, self.section.batch)
        found = self.task.evaluate(judge, self.section.evaluate, self.section.seed)
        return {name: self._checked(value, name) for name, value in found.items()}

    def sample(self) -> str | None:
        """What the model writes, for tasks where that says something."""
        return self.task.sample(TorchJudge(self.model, self.section.batch), self.section.seed)

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs; the file is replaced whole or not at all."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            buffer = BytesIO()
            torch.save(self._state(), buffer)
            partial.write_bytes(buffer.getbuffer())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def load(self, path: Path) -> None:
        """Continue from a file of :meth:`save`."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.curve = [(int(step), float(loss)) for step, loss in state["curve"]]
        self._block = list(state["block"])
        self._random = [generator.cpu() for generator in state["random"]]

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "curve": self.curve,
            "block": self._block,
            "random": self._random,
        }

    def _batch(self) -> tuple[Tensor, Tensor]:
        arrays = self.task.batch(self.section.batch, self.seed, self.step)
        tokens, targets = (torch.from_numpy(array).to(self.device) for array in arrays)
        return tokens, targets

    def _set_rate(self) -> float:
        rate = float(self.section.learning_rate) * factor(self.section, self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _clip(self) -> None:
        """Bound the gradient's norm, which also shows a gradient that is not finite."""
        bound = float("inf") if self.section.clip is None else float(self.section.clip)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), bound)
        self._checked(float(norm), "gradient")

    def _checked(self, value: float, name: str) -> float:
        if not isfinite(value):
            raise Diverged(f"the {name.replace('_', ' ')} is {value} at step {self.step}")
        return value

    def _record(self, loss: float) -> None:
        """Keep the mean loss of every stretch of steps."""
        self._block.append(loss)
        if len(self._block) >= max(1, self.steps // POINTS) or self.step == self.steps:
            self.curve.append((self.step, sum(self._block) / len(self._block)))
            self._block = []


def _generators(device: torch.device) -> list[Tensor]:
    """The states of torch's generators: the CPU's and, if there is one, the device's."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


@contextmanager
def _drawing_from(trainer: Trainer) -> Iterator[None]:
    """Let torch draw from the trainer's own generators, whatever else draws in this process."""
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.set_rng_state(trainer._random[0])
        if devices:
            torch.cuda.set_rng_state(trainer._random[1], trainer.device)
        yield
        trainer._random = _generators(trainer.device)


class TorchJudge:
    """A torch model as a task sees it.

    Args:
        model: the model; left in the mode it was in.
        batch: sequences at a time.
    """

    def __init__(self, model: Any, batch: int) -> None:
        self.model, self.batch = model, batch
        self.device = next(model.parameters()).device

    def predictions(self, tokens: Tokens) -> Tokens:
        """The most likely next symbol at each position: [B, T]."""
        parts = [self._logits(part).argmax(-1).cpu().numpy() for part in self._parts(tokens)]
        return np.concatenate(parts)

    def losses(self, tokens: Tokens, targets: Tokens) -> Numbers:
        """Cross-entropy at each position in nats: [B, T]."""
        pairs = zip(self._parts(tokens), self._parts(targets), strict=True)
        parts = [self._losses(part, wanted).double().cpu().numpy() for part, wanted in pairs]
        return np.concatenate(parts)

    def generate(self, prompt: Tokens, count: int, seed: int) -> Tokens:
        """``count`` sampled symbols behind each prompt."""
        self.model.eval()
        (start,) = self._parts(prompt)
        written: Tokens = self.model.generate(start, count, seed=seed).cpu().numpy()
        return written[:, -count:]

    def _parts(self, array: Tokens) -> list[Tensor]:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return [part.to(self.device) for part in torch.split(tensor, self.batch)]

    @torch.no_grad()
    def _logits(self, tokens: Tensor) -> Tensor:
        self.model.eval()
        logits: Tensor = self.model(tokens)
        return logits

    def _losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        logits = self._logits(tokens).float().transpose(1, 2)
        return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)


def optimizer(model: nn.Module, section: TrainSection) -> torch.optim.Optimizer:
    """The optimiser of a ``train`` section.

    Norms, biases, every parameter of one dimension and every one marked ``_no_decay`` are kept from
    weight decay.
    """
    groups = [
        {"params": [p for p in model.parameters() if decays(p)],
         "weight_decay": float(section.weight_decay)},
        {"params": [p for p in model.parameters() if not decays(p)], "weight_decay": 0.0},
    ]  # fmt: skip
    groups = [group for group in groups if group["params"]]
    rate = float(section.learning_rate)
    if section.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def decays(parameter: nn.Parameter) -> bool:
    """Whether weight decay is for this parameter."""
    return parameter.ndim > 1 and not getattr(parameter, "_no_decay", False)


def factor(section: TrainSection, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step: warm-up from 1/n, then the schedule to 0."""
    warm = round(float(section.warmup) * steps)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + cos(pi * done)) / 2}[
        section.schedule
    ]
