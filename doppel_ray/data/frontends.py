"""Frontends: waveforms into what an encoder reads."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from doppel_ray.core.schema import Section


class FrontendConfig(Section):
    """Features computed from sound, which the encoder reads."""

    kind: Literal["vggish", "clar", "raw"] = "vggish"
    """Features that the encoder reads. vggish: VGGish's log-mel spectrogram (25 ms Hann window, 10 ms hop, magnitude,
    HTK bands, log(x + 0.01)). clar: CLAR's three channels (magnitude in dB, phase, mel in dB), each of 128 bins from 40
    to 8000 Hz with 8 ms hop. raw: the waveform."""
    mels: int = Field(default=64, ge=1)
    """vggish: number of mel bands, from 125 to 7500 Hz."""
    window: float = Field(default=0.016, gt=0.0, le=0.128)
    """clar: length of the Hann window in seconds, zero-padded to an FFT of 0.128 s. CLAR's paper has 0.016, its code
    0.128."""
    where: Literal["generator", "trainer"] = "generator"
    """Where features are computed. generator: by the generators, which then send features. trainer: by the train
    workers, on their own device; the generators send sound and have less work."""

    def build(self, sample_rate: int, every_frame: bool = False) -> "Frontend":
        """Return the frontend for sound at `sample_rate` Hz.

        Args:
            sample_rate: in Hz.
            every_frame: for clips that are read whole: vggish returns all their frames, not whole examples.

        Raises:
            ValueError: the sample rate cannot hold the frontend's bands.
        """
        match self.kind:
            case "vggish":
                return VGGish(sample_rate, self.mels, every_frame=every_frame)
            case "clar":
                return Clar(sample_rate, self.window)
            case "raw":
                return Raw()


class Frontend(nn.Module):
    """Sound (batch, samples) float32 to features, float32.

    Attributes:
        domain: "spectrogram" for (batch, channels, frames, bins), "waveform" for (batch, channels, samples).
        channels: of the features.
        chunk: sounds transformed at a time on a CPU, so few that their spectra stay in its cache.
    """

    domain: Literal["spectrogram", "waveform"] = "spectrogram"
    channels: int = 1
    chunk: int = 16

    def frames(self, samples: int) -> int:
        """Return the number of frames of a sound of `samples` samples, or of samples for waveforms.

        Raises:
            ValueError: the sound is too short for one frame.
        """
        raise NotImplementedError

    def centre(self, samples: int) -> float:
        """Return the middle of the part that is read of a sound, in samples from its start."""
        raise NotImplementedError

    def features(self, sound: Tensor) -> Tensor:
        """Return the features of a batch at once; `forward` splits large ones."""
        raise NotImplementedError

    def forward(self, sound: Tensor) -> Tensor:
        """Return the features of sound.

        Args:
            sound: (batch, samples) float32.

        Returns:
            (batch, channels, frames, bins) or (batch, channels, samples) float32.
        """
        # An exported program takes its batch at once, since it must hold for batches of any size.
        if torch.compiler.is_exporting() or sound.device.type != "cpu" or len(sound) <= self.chunk:
            return self.features(sound)
        return torch.cat([self.features(part) for part in sound.split(self.chunk)])


class Raw(Frontend):
    """The waveform itself, for encoders that are one-dimensional: (batch, 1, samples)."""

    domain = "waveform"

    def frames(self, samples: int) -> int:
        """Return `samples`."""
        return samples

    def centre(self, samples: int) -> float:
        return samples / 2

    def features(self, sound: Tensor) -> Tensor:
        return sound.unsqueeze(1)

    def forward(self, sound: Tensor) -> Tensor:
        return self.features(sound)  # at once: there are no spectra to keep small


def _framed(sound: Tensor, length: int, hop: int, frames: int) -> Tensor:
    """Return the first `frames` frames of sound: (batch, samples) -> (batch, frames, length)."""
    if torch.compiler.is_exporting():  # for unknown lengths indices can be traced, and a view cannot
        starts = hop * torch.arange(frames, device=sound.device)
        return sound[:, starts.unsqueeze(1) + torch.arange(length, device=sound.device)]
    return sound.unfold(-1, length, hop)[:, :frames]


def power(spectrum: Tensor) -> Tensor:
    """Return the squared magnitude of a complex tensor, several times faster on a CPU than `abs`."""
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    return torch.addcmul(real * real, imaginary, imaginary)


def mel_matrix(bins: int, sample_rate: int, mels: int, low_hz: float = 125.0, high_hz: float = 7500.0) -> Tensor:
    """Return triangular bands, equally spaced and linear on the HTK mel scale, with an empty DC row: (bins, mels).

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


class VGGish(Frontend):
    """VGGish log-mel features: (batch, 1, frames, mels).

    Args:
        sample_rate: in Hz; at least twice `high_hz`.
        mels: number of mel bands.
        high_hz: upper edge of the bands in Hz; VGGish's own is 7500.
        every_frame: return all frames of a sound; otherwise whole examples of 96 frames (0.96 s), as VGGish does, where
            the sound is long enough for one.
    """

    WINDOW_SECONDS = 0.025
    HOP_SECONDS = 0.010
    EXAMPLE_FRAMES = 96
    LOG_OFFSET = 0.01

    HIGH_HZ = 7500.0

    def __init__(
        self, sample_rate: int = 16000, mels: int = 64, high_hz: float = HIGH_HZ, every_frame: bool = False
    ) -> None:
        super().__init__()
        if sample_rate < 2 * high_hz:
            raise ValueError(
                f"sample_rate is {sample_rate} Hz; the mel bands reach {high_hz:g} Hz, so it must be at least "
                f"{2 * high_hz:g}"
            )
        self.every_frame = every_frame
        self.window_length = round(self.WINDOW_SECONDS * sample_rate)
        self.hop_length = round(self.HOP_SECONDS * sample_rate)
        self.fft_length = 1 << (self.window_length - 1).bit_length()
        window = F.pad(torch.hann_window(self.window_length, periodic=True), (0, self.fft_length - self.window_length))
        self.window: Tensor
        self.bands: Tensor
        self.register_buffer("window", window, persistent=False)
        bands = mel_matrix(self.fft_length // 2 + 1, sample_rate, mels, high_hz=high_hz)
        self.register_buffer("bands", bands, persistent=False)

    def frames(self, samples: int) -> int:
        complete = 1 + (samples - self.window_length) // self.hop_length
        if complete < 1:
            raise ValueError(f"a sound of {samples} samples is shorter than one window of {self.window_length}")
        if self.every_frame or complete < self.EXAMPLE_FRAMES:
            return complete
        return complete // self.EXAMPLE_FRAMES * self.EXAMPLE_FRAMES

    def centre(self, samples: int) -> float:
        return ((self.frames(samples) - 1) * self.hop_length + self.window_length) / 2

    def features(self, sound: Tensor) -> Tensor:
        frames = self.frames(sound.shape[-1])
        # The window ends in zeros, as VGGish pads its frames, so samples past its end have no weight.
        framed = _framed(F.pad(sound, (0, self.fft_length)), self.fft_length, self.hop_length, frames)
        magnitude = power(torch.fft.rfft(framed * self.window)).sqrt_()
        return torch.log(magnitude @ self.bands + self.LOG_OFFSET).unsqueeze(1)


class Clar(Frontend):
    """CLAR's three channels: (batch, 3, frames, 128), a frame every 8 ms, 126 frames in a second.

    0. Magnitude in dB: 20 log10 sqrt(|X|² + 1e-8) - 20.
    1. Phase in radians, -π to π.
    2. Mel in dB: 10 log10 max(mel of |X|², 1e-5) - 10.

    As CLAR's code computes them (github.com/haideraltahan/CLAR, with nnAudio's kernels). The transform X of channels 0
    and 1 has 128 bins because it is taken at 128 frequencies equally spaced in their logarithm, 40 · 200**(k / 128) Hz,
    not at those of an FFT; phase is counted from the start of the zero-padded frame. The 128 mel bands of channel 2 are
    Slaney's, normalised by area, on an FFT of 2048. Frames are centred, the sound reflected at its ends.

    Args:
        sample_rate: in Hz; the upper edge of 8000 Hz needs at least 16 kHz.
        window: length of the Hann window in seconds.
    """

    channels = 3
    chunk = 4
    BINS = 128
    LOW_HZ = 40.0
    HIGH_HZ = 8000.0
    HOP_SECONDS = 0.008
    FFT_SECONDS = 0.128

    def __init__(self, sample_rate: int = 16000, window: float = 0.016) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        if sample_rate < 2 * self.HIGH_HZ:
            raise ValueError(
                f"sample_rate is {sample_rate} Hz; CLAR's bins reach 8000 Hz, so it must be at least 16000"
            )
        self.window_length = 2 * round(window * sample_rate / 2)  # even, so that it has a middle sample
        self.hop_length = round(self.HOP_SECONDS * sample_rate)
        self.fft_length = 1 << (round(self.FFT_SECONDS * sample_rate) - 1).bit_length()
        if self.window_length < 2:
            raise ValueError(f"a window of {window} s holds no samples at {sample_rate} Hz")
        hann = torch.hann_window(self.window_length, periodic=True, dtype=torch.float64)
        place = torch.arange(self.window_length) + (self.fft_length - self.window_length) // 2
        hz = self.LOW_HZ * (self.HIGH_HZ / self.LOW_HZ) ** (torch.arange(self.BINS, dtype=torch.float64) / self.BINS)
        turns = torch.outer(place, hz / sample_rate)
        kernels = hann.unsqueeze(1) * torch.cat([torch.cos(2 * torch.pi * turns), -torch.sin(2 * torch.pi * turns)], 1)
        bands = melscale_fbanks(
            self.fft_length // 2 + 1,
            self.LOW_HZ,
            self.HIGH_HZ,
            self.BINS,
            sample_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.window: Tensor
        self.kernels: Tensor
        self.bands: Tensor
        self.register_buffer("window", hann.float(), persistent=False)
        self.register_buffer("kernels", kernels.float(), persistent=False)
        self.register_buffer("bands", bands, persistent=False)

    def frames(self, samples: int) -> int:
        """Return the number of frames, the first centred on the first sample."""
        if samples <= self.window_length // 2:
            raise ValueError(f"a sound of {samples} samples is shorter than half a window of {self.window_length}")
        return 1 + samples // self.hop_length

    def centre(self, samples: int) -> float:
        return (self.frames(samples) - 1) * self.hop_length / 2

    def features(self, sound: Tensor) -> Tensor:
        frames = self.frames(sound.shape[-1])
        half = self.window_length // 2
        padded = F.pad(sound.unsqueeze(1), (half, half), mode="reflect").squeeze(1)
        framed = _framed(padded, self.window_length, self.hop_length, frames)
        out = sound.new_empty(sound.shape[0], 3, frames, self.BINS)
        real, imaginary = (framed @ self.kernels).split(self.BINS, dim=-1)
        out[:, 0] = torch.addcmul(real * real, imaginary, imaginary).add_(1e-8).log10_().mul_(10.0).sub_(20.0)
        out[:, 1] = torch.atan2(imaginary + 0.0, real)  # + 0.0: the phase of silence is 0, not that of a negative zero
        mel = power(torch.fft.rfft(framed * self.window, n=self.fft_length)) @ self.bands
        out[:, 2] = mel.clamp_(min=1e-5).log10_().mul_(10.0).sub_(10.0)
        return out
