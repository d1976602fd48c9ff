"""Encoders: from features to representations (batch, size).

They read (batch, channels, frames, mels), or (batch, channels, samples) where the domain is the waveform.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from doppel_ray.core.schema import Section

Domain = Literal["spectrogram", "waveform"]
SMALL_MAP = 8
"""Most positions of an output map for which a convolution on a CPU is one matrix product."""


class Conv2d(nn.Conv2d):
    """A convolution that is fast on small maps too.

    On a CPU the library's convolution takes 3 to 4 times as long on ResNet-18's last stage (512 channels on 3 x 2) as
    on the others, for as many operations: half of a training step in bfloat16. There the windows are put side by side
    and multiplied with the weights, which is the same sum in another order.
    """

    def forward(self, input: Tensor) -> Tensor:
        (rows, columns), (down, right) = self.kernel_size, self.stride
        above, left = (int(padding) for padding in self.padding)
        height = (input.shape[2] + 2 * above - rows) // down + 1
        width = (input.shape[3] + 2 * left - columns) // right + 1
        elsewhere = input.is_cuda or torch.compiler.is_exporting()  # an exported program may run on anything
        if elsewhere or self.bias is not None or height * width > SMALL_MAP:
            return super().forward(input)
        x = F.pad(input.permute(0, 2, 3, 1), (0, 0, left, left, above, above))
        windows = torch.cat(
            [
                x[:, i : i + down * (height - 1) + 1 : down, j : j + right * (width - 1) + 1 : right]
                for i in range(rows)
                for j in range(columns)
            ],
            dim=3,
        )
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, self.out_channels)
        return (windows.flatten(0, 2) @ weight).unflatten(0, (-1, height, width)).permute(0, 3, 1, 2)


class MaxPool2d(nn.MaxPool2d):
    """A maximum pooling that can be exported for sounds of any length.

    torch.export checks in PyTorch's own whether a length is divisible by the stride, and fixes the answer for all.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().forward(input)
        (rows, columns), (down, right), (above, left) = map(_pair, (self.kernel_size, self.stride, self.padding))
        x = F.pad(input, (left, left, above, above), value=-torch.inf)
        for dim, size, stride in ((2, rows, down), (3, columns, right)):
            starts = stride * torch.arange((x.shape[dim] - size) // stride + 1, device=x.device)
            x = torch.stack([x.index_select(dim, starts + j) for j in range(size)]).amax(dim=0)
        return x


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value, value)


class EncoderConfig(Section):
    """The network that is trained and whose embeddings are probed."""

    kind: Literal["resnet18", "resnet18_1d", "cnn", "framenet"] = "resnet18"
    """Network. resnet18: ResNet-18 (He et al., 2016) without its last layer. resnet18_1d: CLAR's ResNet-18 on
    waveforms, with kernels of 9. cnn: four strided convolutions, for quick runs. framenet: cnn with the outputs of all
    its layers and a layer over all bands of a frame, as in BYOL-A."""
    width: int = Field(default=64, ge=8, le=1024)
    """Channels of the first stage, doubled by each later stage; ResNet-18 has 64."""
    representation: Literal["pooled", "projected"] = "pooled"
    """Embedding that probes evaluate. pooled: the encoder's output, as in CLAR. projected: the head's output, as in the
    published Audio Doppelgängers, whose 512-d output is the last linear layer of its ResNet-18."""
    reading: Literal["windows", "whole"] = "windows"
    """How to embed recordings longer than the training sounds. windows: average over windows of the training length.
    whole: at once, pooling over the whole recording; recordings longer than a minute: average over parts of a
    minute."""

    @property
    def domain(self) -> Domain:
        """The features that the frontend must return."""
        return ENCODERS[self.kind].domain

    def build(self, channels: int = 1) -> "Encoder":
        return ENCODERS[self.kind](channels=channels, width=self.width)


class Encoder(nn.Module):
    """The base of encoders: `size` is the width of the representation, and `domain` the kind of features that are read.

    The first `early` numbers of the representation are of early layers: probes read them and the head does not, so that
    the objective does not remove from them what differs between the views of a pair.

    Args:
        channels: input channels.
        width: channels of the first stage.
    """

    domain: ClassVar[Domain] = "spectrogram"
    size: int
    early: int = 0

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al., 2016, figure 5 left).

    Args:
        inputs, outputs: channels.
        stride: of the first convolution and the shortcut.
        kernel: its height and width: 3 x 3 in ResNet-18, 1 x 9 in CLAR's on waveforms.
    """

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv1 = Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = Conv2d(outputs, outputs, kernel, padding=padding, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != (1, 1) or inputs != outputs:
            self.shortcut = nn.Sequential(Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def _stages(width: int, stride: tuple[int, int], kernel: tuple[int, int]) -> nn.Sequential:
    """Return ResNet-18's four stages of two blocks. The last has 8 · width channels; all but the first are strided."""
    blocks = []
    inputs = width
    for stage in range(4):
        outputs = width << stage
        blocks += [
            BasicBlock(inputs, outputs, stride if stage else (1, 1), kernel),
            BasicBlock(outputs, outputs, (1, 1), kernel),
        ]
        inputs = outputs
    return nn.Sequential(*blocks)


def _initialise(encoder: nn.Module) -> None:
    """Set He et al.'s (2015) initial weights, as the published ResNets do."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
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
            Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = _stages(width, stride=(2, 2), kernel=(3, 3))
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        return self.stages(self.stem(features)).mean(dim=(2, 3))


class ResNet18Waveform(Encoder):
    """CLAR's ResNet-18 on waveforms: the 2-D one with kernels of 9 samples in the blocks and in the maximum pooling.

    As the published code has it: the first convolution keeps its kernel of 7, and the pooling its padding of 1. One
    second at 16 kHz becomes 500 steps of 512 channels, which are averaged. A waveform is held as an image of one row:
    channels-last, these convolutions are faster on CPUs than one-dimensional ones.

    Args:
        channels: input channels; 1 for sound.
        width: channels of the first stage; the representation is 8 times as wide (512 at 64).
    """

    domain: ClassVar[Domain] = "waveform"

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        self.size = 8 * width
        self.stem = nn.Sequential(
            Conv2d(channels, width, (1, 7), stride=(1, 2), padding=(0, 3), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            MaxPool2d((1, 9), stride=(1, 2), padding=(0, 1)),
        )
        self.stages = _stages(width, stride=(1, 2), kernel=(1, 9))
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        image = features.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        return self.stages(self.stem(image)).mean(dim=(2, 3))


def _strided(channels: int, width: int) -> nn.Sequential:
    """Return four 3 × 3 convolutions of stride 2; the last has 8 · width channels."""
    layers = []
    for stage in range(4):
        outputs = width << stage
        convolution = Conv2d(channels, outputs, 3, stride=2, padding=1, bias=False)
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
        channels = outputs
    return nn.Sequential(*layers)


def _over_time(x: Tensor) -> Tensor:
    """Return mean and maximum over time: (batch, channels, frames) -> (batch, 2 · channels)."""
    return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)


class ConvNet(Encoder):
    """Four 3 × 3 convolutions of stride 2; mean over frequency, then mean and maximum over time.

    Args:
        channels: input channels.
        width: channels of the first convolution; the representation is 16 times as wide (two poolings of 8 · width).
    """

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        self.size = 16 * width
        self.layers = _strided(channels, width)

    def forward(self, features: Tensor) -> Tensor:
        return _over_time(self.layers(features).mean(dim=3))


class FrameNet(Encoder):
    """`cnn` with all of its convolutions in the representation, and a layer over whole frames.

    A mean over frequency loses the band of a pattern, and pitch with it. BYOL-A (Niizumi et al. 2023, "BYOL
    for Audio", IEEE/ACM TASLP 31) adds a fully connected layer over the channels of all bands of a frame, concatenates
    its output with the convolutions', and pools mean and maximum over time. Here that layer is a convolution as high as
    the map, and all four convolutions are pooled, the first two for probes alone.

    The trunk is dense and shallow. On a CPU depthwise convolutions (ConvNeXt, EfficientNet) train far more slowly than
    their operations suggest, and a narrow ResNet-18 scores lower on recordings after equal time.

    Args:
        channels: input channels.
        width: channels of the first convolution; the representation is 46 times as wide: two poolings of each of the
            convolutions' 1, 2, 4 and 8 · width, and of the frame layer's 8 · width.
    """

    BANDS = 4
    """Height of the map below the frame layer, that of 64 mels; other heights are averaged to it."""

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        self.size, self.early = 46 * width, 6 * width
        self.layers = _strided(channels, width)
        self.frame = nn.Sequential(
            Conv2d(8 * width, 8 * width, (1, self.BANDS), bias=False), nn.BatchNorm2d(8 * width), nn.ReLU()
        )

    def forward(self, features: Tensor) -> Tensor:
        x, pooled = features, []
        for layer in self.layers:
            x = layer(x)
            pooled.append(_over_time(x.mean(dim=3)))
        if x.shape[3] != self.BANDS:
            x = F.adaptive_avg_pool2d(x, (x.shape[2], self.BANDS))
        return torch.cat([*pooled, _over_time(self.frame(x).squeeze(3))], dim=1)


ENCODERS: dict[str, type[Encoder]] = {
    "resnet18": ResNet18,
    "resnet18_1d": ResNet18Waveform,
    "cnn": ConvNet,
    "framenet": FrameNet,
}
"""`encoder.kind` -> class."""
