"""The torch side of the fakes: only worker processes and tests of training import it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fakes import FakeArch, misbehave
from safetensors.torch import save_file
from torch import Tensor, nn


class FakeModel(nn.Module):
    def __init__(self, arch: FakeArch, ways: list[str]) -> None:
        super().__init__()
        width = arch.width
        memory = arch.choices["model.memory"]
        layers = int(arch.choices.get("model.memory.layers", "1"))
        self.ways = ways
        self.embedding = nn.Embedding(arch.task.symbols, width)
        self.norm = nn.LayerNorm(width)
        self.memory: nn.Module = (
            nn.Linear(width, width)
            if memory == "linear"
            else {"gru": nn.GRU, "rnn": nn.RNN}[memory](width, width, layers, batch_first=True)
        )
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, arch.task.symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Any = self.memory(self.embedding(tokens))
        hidden = hidden if isinstance(hidden, Tensor) else hidden[0]
        logits: Tensor = self.head(self.dropout(self.norm(hidden)))
        return logits

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        if self.training:
            misbehave([way for way in self.ways if way != "scoring"])
        loss = F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten(), ignore_index=-100)
        return loss * float("nan") if "nan" in self.ways else loss

    def generate(self, prompt: Tensor, count: int, *, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            weights = self(prompt)[:, -1].softmax(-1)
            token = torch.multinomial(weights, 1, generator=generator)
            prompt = torch.cat([prompt, token], 1)
        return prompt

    def hidden_sites(self) -> list[tuple[str, nn.Module]]:
        return [("memory", self.memory)]

    def save(self, path: str) -> None:
        if "disk" in self.ways:
            raise RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "…" })')
        save_file(self.state_dict(), path)


def build(arch: FakeArch, ways: list[str], seed: int) -> FakeModel:
    torch.manual_seed(seed)
    return FakeModel(arch, ways)
