"""The trained model: an encoder and its projection head."""

import torch
from torch import Tensor, nn

from doppel_ray.models.encoders import EncoderConfig
from doppel_ray.models.heads import HeadConfig


class Model(nn.Module):
    """Features into the space of the objective; `encoder` alone gives the representation.

    Args:
        encoder: its configuration.
        head: its configuration.
        seed: decides the initial weights, on every worker alike. The global generator is left as it was.
        channels: input channels.
    """

    def __init__(self, encoder: EncoderConfig, head: HeadConfig, seed: int, channels: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = encoder.build(channels)
            self.head = head.build(self.encoder.size)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, frames, mels) -> (batch, size of the head)."""
        return self.head(self.encoder(features))
