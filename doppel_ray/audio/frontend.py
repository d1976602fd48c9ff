"""Frontends: waveforms into the features that an encoder reads."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doppel_ray.section import Section

WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
EXAMPLE_FRAMES = 96
LOG_OFFSET = 0.01


class FrontendConfig(Section):
    """How sound becomes what the encoder reads."""

    kind: Literal["vggish"] = "vggish"
    """vggish: log-mel as VGGish defines it: 25 ms Hann window, 10 ms hop, magnitude, HTK bands, log(x + 0.01)."""
    mels: int = 64
    """Mel bands, from 125 to 7500 Hz."""
    where: Literal["generator"] = "generator"
    """Who computes the features: the generators, beside the synthesizer, so that features travel and not sound."""

    def build(self, sample_rate: int) -> "Frontend":
        return Frontend(sample_rate=sample_rate, mels=self.mels)


def mel_matrix(bins: int, sample_rate: int, mels: int, low_hz: float = 125.0, high_hz: float = 7500.0) -> Tensor:
    """Triangular bands, equally spaced and linear on the HTK mel scale, with an empty DC row; shape (bins, mels).

    As `spectrogram_to_mel_matrix` of VGGish defines it (Hershey et al., 2017). torchaudio's bands differ in detail:
    its triangles are linear in Hz.
    """

    def to_mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    low, high = to_mel(torch.tensor([low_hz, high_hz], dtype=torch.float64)).tolist()
    bin_mel = to_mel(torch.linspace(0.0, sample_rate / 2, bins, dtype=torch.float64)).unsqueeze(1)
    edges = torch.linspace(low, high, mels + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bin_mel - lower) / (centre - lower)
    falling = (upper - bin_mel) / (upper - centre)
    matrix = torch.minimum(rising, falling).clamp(min=0.0)
    matrix[0] = 0.0
    return matrix.float()


class Frontend(nn.Module):
    """VGGish log-mel features.

    Args:
        sample_rate: in Hz; the upper mel edge of 7500 Hz needs at least 15 kHz.
        mels: number of mel bands.
    """

    def __init__(self, sample_rate: int = 16000, mels: int = 64) -> None:
        super().__init__()
        if sample_rate < 15000:
            raise ValueError(
                f"sample_rate is {sample_rate} Hz; the mel bands reach 7500 Hz, so it must be at least 15000"
            )
        self.sample_rate = sample_rate
        self.mels = mels
        self.window_length = round(WINDOW_SECONDS * sample_rate)
        self.hop_length = round(HOP_SECONDS * sample_rate)
        self.fft_length = 1 << (self.window_length - 1).bit_length()
        # VGGish pads each windowed frame to the FFT length at its end. A shift changes no magnitude, so the window may
        # stand in the middle of the FFT frame, as torch.stft wants it, if the signal is padded by as much.
        self.padding = (self.fft_length - self.window_length) // 2
        self.window: Tensor
        self.bands: Tensor
        self.register_buffer("window", torch.hann_window(self.window_length, periodic=True), persistent=False)
        self.register_buffer("bands", mel_matrix(self.fft_length // 2 + 1, sample_rate, mels), persistent=False)

    def frames(self, samples: int) -> int:
        """Frames that a sound of so many samples gives: whole 96-frame examples (0.96 s) where it is long enough."""
        complete = 1 + (samples - self.window_length) // self.hop_length
        if complete < 1:
            raise ValueError(f"a sound of {samples} samples is shorter than one window of {self.window_length}")
        return complete - complete % EXAMPLE_FRAMES if complete >= EXAMPLE_FRAMES else complete

    def forward(self, sound: Tensor) -> Tensor:
        """Log-mel features of sound.

        Args:
            sound: (batch, samples) float32.

        Returns:
            (batch, 1, frames, mels) float32.
        """
        frames = self.frames(sound.shape[-1])
        spectrum = torch.stft(
            F.pad(sound, (self.padding, self.fft_length - self.window_length - self.padding)),
            n_fft=self.fft_length,
            hop_length=self.hop_length,
            win_length=self.window_length,
            window=self.window,
            center=False,
            return_complex=True,
        )
        magnitude = spectrum[..., :frames].abs().transpose(-1, -2)
        return torch.log(magnitude @ self.bands + LOG_OFFSET).unsqueeze(1)
