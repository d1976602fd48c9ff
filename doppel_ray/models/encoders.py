"""Encoders: features into representations (batch, size).

What they read is (batch, channels, frames, mels), or (batch, channels, samples) where the domain is the waveform.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from doppel_ray.section import Section

Domain = Literal["spectrogram", "waveform"]
LAYERS: dict[int, tuple[Any, Any]] = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}
"""Dimensions -> convolution and norm over them."""


class EncoderConfig(Section):
    """The network whose output the probes read."""

    kind: Literal["resnet18", "resnet18_1d", "cnn"] = "resnet18"
    """resnet18: He et al. (2016), without its last layer. resnet18_1d: CLAR's, with kernels of 9, on waveforms.
    cnn: four strided convolutions, for quick runs."""
    width: int = Field(default=64, ge=8, le=1024)
    """Channels of the first stage (each later stage doubles them); 64 is ResNet-18's own."""
    representation: Literal["pooled", "projected"] = "pooled"
    """What the probes read. pooled: the encoder's output, as in CLAR. projected: the head's, as in the published Audio
    Doppelgängers, whose 512-d output is the last linear layer of its ResNet-18."""

    @property
    def domain(self) -> Domain:
        """What the frontend must give."""
        return ENCODERS[self.kind].domain

    def build(self, channels: int = 1) -> "Encoder":
        return ENCODERS[self.kind](channels=channels, width=self.width)


class Encoder(nn.Module):
    """What every encoder offers: `size`, the width of its representation, and `domain`, what it reads.

    Args:
        channels: input channels.
        width: channels of the first stage.
    """

    domain: ClassVar[Domain] = "spectrogram"
    size: int

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al., 2016, figure 5 left), over one or two dimensions.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution and the shortcut.
        kernel: its size, 3 in ResNet-18 and 9 in CLAR's.
        dims: 2 for images, 1 for waveforms.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int = 3, dims: int = 2) -> None:
        super().__init__()
        conv, norm = LAYERS[dims]
        self.conv1 = conv(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = norm(outputs)
        self.conv2 = conv(outputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn2 = norm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def _stages(width: int, kernel: int = 3, dims: int = 2) -> nn.Sequential:
    """ResNet-18's four stages of two blocks; the last has 8 · width channels."""
    blocks = []
    for stage, (inputs, stride) in enumerate([(width, 1), (width, 2), (2 * width, 2), (4 * width, 2)]):
        outputs = width << stage
        blocks += [BasicBlock(inputs, outputs, stride, kernel, dims), BasicBlock(outputs, outputs, 1, kernel, dims)]
    return nn.Sequential(*blocks)


def _initialise(encoder: nn.Module) -> None:
    """He et al.'s (2015) initial weights, as the published ResNets have them."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


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
        self.stages = _stages(width)
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        return self.stages(self.stem(features)).mean(dim=(2, 3))


class ResNet18Waveform(Encoder):
    """CLAR's ResNet-18 on waveforms: the 2-D one with kernels of 9 samples in the blocks and in the maximum pooling.

    As the published code has it: the first convolution keeps its kernel of 7, and the pooling its padding of 1. One
    second at 16 kHz becomes 500 steps of 512 channels, which are averaged.

    Args:
        channels: input channels; 1 for sound.
        width: channels of the first stage; the representation is 8 times as wide (512 at 64).
    """

    domain: ClassVar[Domain] = "waveform"

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        self.size = 8 * width
        self.stem = nn.Sequential(
            nn.Conv1d(channels, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(9, stride=2, padding=1),
        )
        self.stages = _stages(width, kernel=9, dims=1)
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        return self.stages(self.stem(features)).mean(dim=2)


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


ENCODERS: dict[str, type[Encoder]] = {
    "resnet18": ResNet18,
    "resnet18_1d": ResNet18Waveform,
    "cnn": ConvNet,
}
"""`encoder.kind` -> class."""
