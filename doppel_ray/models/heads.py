"""Projection heads: from the representation to the space of the objective."""

from typing import Literal

from pydantic import Field
from torch import nn

from doppel_ray.core.schema import Section


class HeadConfig(Section):
    """Projection head between the encoder and the objective, used in training only.

    CLAR's is `{kind: mlp, hidden: 512, layers: 2, size: 128}`: 512 -> 512 -> 512 -> 128.
    """

    kind: Literal["none", "linear", "mlp"] = "linear"
    """none: the objective reads the encoder's output.
    linear: one layer, the last of the published ResNet-18. mlp: hidden layers with batch norm and ReLU."""
    hidden: int = Field(default=512, ge=1)
    """mlp: width of each hidden layer."""
    layers: int = Field(default=1, ge=1, le=8)
    """mlp: number of hidden layers."""
    size: int = Field(default=512, ge=2)
    """linear, mlp: width of the output."""

    def build(self, inputs: int) -> nn.Module:
        if self.kind == "none":
            return nn.Identity()
        layers: list[nn.Module] = []
        if self.kind == "mlp":
            for _ in range(self.layers):
                layers += [nn.Linear(inputs, self.hidden, bias=False), nn.BatchNorm1d(self.hidden), nn.ReLU()]
                inputs = self.hidden
        return nn.Sequential(*layers, nn.Linear(inputs, self.size))

    def outputs(self, inputs: int) -> int:
        """Return the width of the head's output for a representation of `inputs` numbers."""
        return inputs if self.kind == "none" else self.size
