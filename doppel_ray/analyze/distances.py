"""How far sounds are from recordings: distances between two samples of what was measured of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GROUPS = 20
"""Of the jackknife."""

MOST = 2000
"""Sounds of either sample that the kernel distance takes: it compares each with each."""


@dataclass(frozen=True)
class Estimate:
    """A number that would be another with other sounds.

    Attributes:
        value: the number.
        margin: half of its 95 % interval.
        left: what it is without each part of the sounds in turn, if that was tried.
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
        """Whether it is larger than another that was taken from the same recordings, beyond the luck of the draw.

        What recordings there are moves both numbers alike: so it is their difference that is asked for its interval,
        which is far narrower than either's.
        """
        return self.value - other.value > _margin(self.left - other.left)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def wasserstein(sounds: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """The 1-D Wasserstein distance of each column, in standard deviations of the recordings: (n, k), (m, k) -> (k,).

    It is the mean distance that values must move to turn one distribution into the other, so 1 means that they lie one
    deviation of the recordings off on average. It needs no bins and no densities, and, in contrast to a comparison of
    means, sees that one distribution is narrower or has two humps.
    """
    from scipy.stats import wasserstein_distance

    scaled = (sample / _scale(recordings) for sample in (sounds, recordings))
    return np.array([wasserstein_distance(*columns) for columns in zip(*(s.T for s in scaled), strict=True)])


def spectral(sounds: np.ndarray, recordings: np.ndarray) -> Estimate:
    """The mean of `wasserstein` over the columns."""
    return jackknife(lambda rows, others: wasserstein(sounds[rows], recordings[others]).mean(), sounds, recordings)


def kernel(sounds: np.ndarray, recordings: np.ndarray) -> Estimate:
    """The squared maximum mean discrepancy of two samples of embeddings, (n, size) and (m, size): 0 if they are of the
    same distribution, 2 at most.

    Unbiased, with a Gaussian kernel as wide as the median distance between two recordings, on embeddings divided by the
    recordings' standard deviations (Gretton et al., JMLR 2012; for audio, Chung et al. 2025, "KAD: No More FAD!").

    Why not Fréchet's distance: it fits a covariance of size x size numbers to each sample, and is biased by as much as
    these are uncertain. Of two samples of 128 from one and the same normal distribution in 128 dimensions it makes 66,
    and 33 with 256 each, where moving every number by half a deviation makes 32; and a folder seldom holds more. This
    distance is 0 on average between such samples, whatever their number, and assumes no normal distribution, which
    sounds that pile up at the bounds of their parameters do not have.
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
    """An estimate from the rows of two samples, and what it would be with other sounds and recordings of the kind.

    A twentieth of both samples is left out at a time. A bootstrap would draw rows twice, which are then nearer to each
    other than any two sounds are, and every distance would grow. Rows count as independent: where several are seconds
    of one recording, the interval is narrower than it should be.
    """
    rows, others = np.arange(len(sounds)), np.arange(len(recordings))
    found = float(estimate(rows, others))
    groups = min(GROUPS, len(rows), len(others))
    left = [estimate(rows[rows % groups != k], others[others % groups != k]) for k in range(groups)]
    return Estimate(found, _margin(np.array(left)), np.array(left))


def _margin(left: np.ndarray) -> float:
    """Half of the jackknife's 95 % interval."""
    return 1.96 * float(np.sqrt((len(left) - 1) * left.var()))


def mean(values: np.ndarray) -> Estimate:
    """The mean of values, and its interval."""
    return Estimate(float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5)


def halves(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two halves that share no recording; `items` (n,) says which recording each row is of."""
    first = np.unique(items, return_inverse=True)[1] % 2 == 0
    return np.flatnonzero(first), np.flatnonzero(~first)


def _scale(recordings: np.ndarray) -> np.ndarray:
    """Standard deviation of each column; of one that never varies 1."""
    scale = recordings.std(axis=0, dtype=np.float64)
    return np.where(scale > 1e-9, scale, 1.0)


def _squared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared distances of all rows of one to all of the other."""
    lengths = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1)
    return np.clip(lengths - 2.0 * first @ second.T, 0.0, None)


def _mean_of_others(kernel: np.ndarray) -> float:
    """Mean of a square matrix without its diagonal."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def log_mel(sounds: Tensor, sample_rate: int) -> Tensor:
    """Log-mel spectrograms, (n, mels, frames), of sounds (n, samples): 64 bands, Hann windows of 25 ms every 10 ms."""
    from torchaudio.transforms import MelSpectrogram

    window, hop = sample_rate // 40, sample_rate // 100
    n_fft = 1 << (window - 1).bit_length()
    mel = MelSpectrogram(sample_rate, n_fft, window, hop, n_mels=64, f_min=60.0, power=1.0, center=False)
    padded = F.pad(sounds, (0, max(0, n_fft - sounds.shape[-1])))
    return torch.log(mel.to(sounds.device)(padded) + 0.01)


def log_mel_distance(views: Tensor, sample_rate: int) -> float:
    """Mean absolute difference, in nepers, between the log-mel spectrograms of both views, `(2, n, samples)`."""
    first, second = log_mel(views.flatten(0, 1), sample_rate).unflatten(0, (2, -1))
    return (first - second).abs().mean().item()
