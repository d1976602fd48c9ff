"""Distances of sounds from recordings, between two samples of measurements."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GROUPS = 20
"""Groups of the jackknife."""

MOST = 2000
"""Largest number of sounds of either sample in the kernel distance, which compares all pairs."""


@dataclass(frozen=True)
class Estimate:
    """A number with its sampling error.

    Attributes:
        value: the number.
        margin: half of its 95 % interval.
        left: its values without each group of the jackknife, if computed.
    """

    value: float
    margin: float
    left: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def low(self) -> float:
        return self.value - self.margin

    @property
    def high(self) -> float:
        return self.value + self.margin

    def exceeds(self, other: "Estimate") -> bool:
        """Return whether it is significantly larger than another estimate from the same recordings.

        The choice of recordings moves both alike, so the interval of their difference is far narrower than either's.
        """
        return self.value - other.value > _margin(self.left - other.left)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def wasserstein(sounds: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Return the 1-D Wasserstein distance of each column in deviations of the recordings: (n, k), (m, k) -> (k,).

    It is the mean distance that values must move to turn one distribution into the other: 1 is one deviation of the
    recordings on average. It needs no bins or densities and, unlike a comparison of means, responds to a narrower or a
    bimodal distribution.
    """
    from scipy.stats import wasserstein_distance

    scaled = (sample / _scale(recordings) for sample in (sounds, recordings))
    return np.array([wasserstein_distance(*columns) for columns in zip(*(s.T for s in scaled), strict=True)])


def spectral(sounds: np.ndarray, recordings: np.ndarray) -> Estimate:
    """Return the mean of `wasserstein` over the columns."""
    return jackknife(lambda rows, others: wasserstein(sounds[rows], recordings[others]).mean(), sounds, recordings)


def kernel(sounds: np.ndarray, recordings: np.ndarray) -> Estimate:
    """Return the squared maximum mean discrepancy of two samples of embeddings, (n, size) and (m, size): 0 for the same
    distribution, 2 at most.

    Unbiased, with a Gaussian kernel as wide as the median distance between two recordings, on embeddings divided by the
    recordings' standard deviations (Gretton et al., JMLR 2012; for audio, Chung et al. 2025, "KAD: No More FAD!").

    Fréchet's distance fits a size x size covariance to each sample, and its bias grows with the error of that fit: two
    samples of 128 from one normal distribution in 128 dimensions are 66 apart, two of 256 are 33 apart, while a shift
    of every dimension by half a deviation is 32. Folders seldom hold more recordings. The discrepancy is 0 on average
    between such samples of any size, and does not assume normal distributions, which parameters clipped to their bounds
    do not give.
    """
    centre, scale = recordings.mean(axis=0, dtype=np.float64), _scale(recordings)
    first, second = ((sample[:MOST] - centre) / scale for sample in (sounds, recordings))
    apart = _squared(first, first), _squared(second, second), _squared(first, second)
    width = np.median(apart[1][np.triu_indices(len(second), 1)])
    ours, theirs, across = (np.exp(squared / (-2.0 * width)) for squared in apart)

    def discrepancy(rows: np.ndarray, others: np.ndarray) -> float:
        crossed = across[np.ix_(rows, others)].mean()
        return _mean_of_others(ours[np.ix_(rows, rows)]) + _mean_of_others(theirs[np.ix_(others, others)]) - 2 * crossed

    return jackknife(discrepancy, first, second)


def jackknife(
    estimate: Callable[[np.ndarray, np.ndarray], float], sounds: np.ndarray, recordings: np.ndarray
) -> Estimate:
    """Return an estimate from the rows of two samples, with the interval of a grouped jackknife.

    A twentieth of both samples is left out at a time. A bootstrap would draw rows twice, nearer to each other than any
    two sounds, and bias every distance. Rows count as independent: if several come from one recording, the interval is
    too narrow.
    """
    rows, others = np.arange(len(sounds)), np.arange(len(recordings))
    found = float(estimate(rows, others))
    groups = min(GROUPS, len(rows), len(others))
    left = [estimate(rows[rows % groups != k], others[others % groups != k]) for k in range(groups)]
    return Estimate(found, _margin(np.array(left)), np.array(left))


def _margin(left: np.ndarray) -> float:
    """Return half of the jackknife's 95 % interval."""
    return 1.96 * float(np.sqrt((len(left) - 1) * left.var()))


def mean(values: np.ndarray) -> Estimate:
    """Return the mean of values with its interval."""
    return Estimate(float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5)


def halves(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of two halves that share no recording; `items` (n,) is the recording of each row."""
    first = np.unique(items, return_inverse=True)[1] % 2 == 0
    return np.flatnonzero(first), np.flatnonzero(~first)


def _scale(recordings: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each column; 1 for a constant one."""
    scale = recordings.std(axis=0, dtype=np.float64)
    return np.where(scale > 1e-9, scale, 1.0)


def _squared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the squared distances of all rows of one sample to all of the other."""
    lengths = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1)
    return np.clip(lengths - 2.0 * first @ second.T, 0.0, None)


def _mean_of_others(kernel: np.ndarray) -> float:
    """Return the mean of a square matrix without its diagonal."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def log_mel(sounds: Tensor, sample_rate: int) -> Tensor:
    """Return log-mel spectrograms (n, mels, frames) of sounds (n, samples): 64 bands, Hann of 25 ms every 10 ms."""
    from torchaudio.transforms import MelSpectrogram

    window, hop = sample_rate // 40, sample_rate // 100
    n_fft = 1 << (window - 1).bit_length()
    mel = MelSpectrogram(sample_rate, n_fft, window, hop, n_mels=64, f_min=60.0, power=1.0, center=False)
    padded = F.pad(sounds, (0, max(0, n_fft - sounds.shape[-1])))
    return torch.log(mel.to(sounds.device)(padded) + 0.01)


def log_mel_distance(views: Tensor, sample_rate: int) -> float:
    """Return the mean absolute difference, in nepers, of the log-mel spectrograms of both views, `(2, n, samples)`."""
    first, second = log_mel(views.flatten(0, 1), sample_rate).unflatten(0, (2, -1))
    return (first - second).abs().mean().item()
