"""Encoders: features (batch, channels, frames, mels) into representations (batch, width)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from doppel_ray.section import Section


class EncoderConfig(Section):
    """The network whose output the probes read."""

    kind: Literal["resnet18", "cnn"] = "resnet18"
    """resnet18: He et al. (2016), without its last layer. cnn: four strided convolutions, for quick runs."""
    width: int = Field(default=64, ge=8, le=1024)
    """Channels of the first stage (each later stage doubles them); 64 is ResNet-18's own."""

    def build(self, channels: int = 1) -> "Encoder":
        return {"resnet18": ResNet18, "cnn": ConvNet}[self.kind](channels=channels, width=self.width)


class Encoder(nn.Module):
    """What every encoder offers: `size`, the width of its representation."""

    size: int


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut (He et al., 2016, figure 5 left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(Encoder):
    """ResNet-18 without its last linear layer, which is the `linear` head here.

    Args:
        channels: input channels.
        width: channels of the first stage; the representation is 8 times as wide (512 at 64).
    """

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        self.size = 8 * width
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages = []
        for stage, (inputs, stride) in enumerate([(width, 1), (width, 2), (2 * width, 2), (4 * width, 2)]):
            outputs = width << stage
            stages += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
        self.stages = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        return self.stages(self.stem(features)).mean(dim=(2, 3))


class ConvNet(Encoder):
    """Four 3 × 3 convolutions of stride 2; mean over frequency, then mean and maximum over time.

    Args:
        channels: input channels.
        width: channels of the first convolution; the representation is 16 times as wide (two poolings of 8 · width).
    """

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        self.size = 16 * width
        layers: list[nn.Module] = []
        inputs = channels
        for stage in range(4):
            outputs = width << stage
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            inputs = outputs
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        over_time = self.layers(features).mean(dim=3)
        return torch.cat([over_time.mean(dim=2), over_time.amax(dim=2)], dim=1)
