"""The trained model: an encoder, its projection head, and a classifier where there are labels."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from doppel_ray.models.encoders import EncoderConfig
from doppel_ray.models.heads import HeadConfig


class Output(NamedTuple):
    """What the objective reads of a batch.

    Attributes:
        embeddings: (batch, size of the head), not normalised.
        logits: (batch, classes); None from a model without classes.
    """

    embeddings: Tensor
    logits: Tensor | None


class Model(nn.Module):
    """From features to the space of the objective; `represent` returns what the probes read, `size` numbers a sound.

    Args:
        encoder: its configuration.
        head: its configuration.
        seed: of the initial weights, the same on every worker. The global generator is not changed.
        channels: input channels.
        classes: outputs of a linear layer on the head's output for CLAR's cross-entropy (its code has a batch norm and
            a ReLU before that layer); 0: no such layer. The other weights do not depend on it.
    """

    def __init__(
        self, encoder: EncoderConfig, head: HeadConfig, seed: int, channels: int = 1, classes: int = 0
    ) -> None:
        super().__init__()
        self.representation = encoder.representation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = encoder.build(channels)
            inputs = self.encoder.size - self.encoder.early
            self.head = head.build(inputs)
            self.classifier = nn.Linear(head.outputs(inputs), classes) if classes else None
        self.size = head.outputs(inputs) if self.representation == "projected" else self.encoder.size
        """Width of what the probes read."""

    def forward(self, features: Tensor) -> Output:
        """Return embeddings and class logits.

        Args:
            features: (batch, channels, frames, mels), or (batch, 1, samples) for an encoder of waveforms.
        """
        embeddings = self._project(self.encoder(_laid_out(features)))
        return Output(embeddings, None if self.classifier is None else self.classifier(embeddings))

    def represent(self, features: Tensor) -> Tensor:
        """Return the representation, (batch, encoder.size) if pooled, (batch, size of the head) if projected."""
        pooled = self.encoder(_laid_out(features))
        return self._project(pooled) if self.representation == "projected" else pooled

    def _project(self, pooled: Tensor) -> Tensor:
        return self.head(pooled[:, self.encoder.early :])


def _laid_out(features: Tensor) -> Tensor:
    """Return images in channels-last memory order, in which convolutions are fastest on CPUs and tensor cores."""
    return features.contiguous(memory_format=torch.channels_last) if features.dim() == 4 else features
