"""What a task puts around a model while it is trained: a decoder that reads one vector."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Decoded(nn.Module):
    """A model whose last position must hold the whole sequence, and the decoder that gets it out.

    The decoder is that of MAD's auto-encoder (Poli et al., 2024; ``mad/model/auto_encoder.py``): the
    vector plus sinusoidal positions through two times norm, linear layer and GELU, all of the vector's
    width, then norm and unembedding.

    Args:
        model: a compiled model with a head.
        seed: of the decoder's weights.
    """

    def __init__(self, model: Any, seed: int) -> None:
        super().__init__()
        self.model = model
        symbols, width = model.table.shape
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.decoder = nn.Sequential(
                nn.RMSNorm(width), nn.Linear(width, width), nn.GELU(),
                nn.RMSNorm(width), nn.Linear(width, width), nn.GELU(),
                nn.RMSNorm(width), nn.Linear(width, symbols),
            )  # fmt: skip
            for layer in self.decoder:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.02)
                    nn.init.zeros_(layer.bias)
        self.decoder.to(model.table)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of every token of the sequence: [B, T] → [B, T, V]."""
        features = self.model.features(tokens)
        places = positions(tokens.shape[1], features.shape[-1]).to(features)
        logits: Tensor = self.decoder(features[:, -1:] + places)
        return logits

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats over targets that are not ignored."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())

    def save(self, path: str) -> None:
        """Write the model; the decoder was the task's."""
        self.model.save(path)


def positions(length: int, width: int) -> Tensor:
    """Sines and cosines of geometric wavelengths from 2π to 2π·10⁴: [T, D] in float32."""
    half = (width + 1) // 2
    rates = 10_000.0 ** -(torch.arange(half) / max(1, half - 1))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]
