"""Two views of a pair share their sound and nothing that is drawn for them (DESIGN.md, rule 6).

Unrelated sounds are put under one index as its two views, and everything else is drawn for that index as in training.
If anything drawn is shared by both views, one finds the other among strangers; if not, only by chance.

The sounds are noises that differ in nothing but their samples: one spectrum, one onset, one decay. Whatever tells two
of them apart has been drawn by what is tested.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import soundfile
import torch
from torch import Tensor

from doppel_ray.data.augment import KINDS, Augment, TimeMask, read_chain
from doppel_ray.data.augment.augmentation import Draws
from doppel_ray.data.frontends import VGGish
from doppel_ray.data.recordings import Recordings, RecordingsConfig

RATE = 16000
SAMPLES = RATE // 4
STRANGERS = 256
"""Views among which a view looks for its partner; chance finds it in 1 of 256 cases, 0.4 %."""
PAIRS = 2 * STRANGERS
MOST = int(scipy.stats.binom.isf(1e-5, PAIRS, 1 / STRANGERS))
"""Partners found at most. By chance each view finds its own with probability 1/256: of 512, 2 on average, and more than
this many in less than one of 100,000 tests (binomial distribution; that a view is often the nearest to several others
only makes large counts rarer)."""

Similarity = Callable[[Tensor, Tensor], Tensor]
"""(n, ...) and (n, ...) -> (n, n)."""


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Normalised correlation at lag 0, whatever its sign."""
    first, second = (torch.nn.functional.normalize(view.flatten(1).double(), dim=1) for view in (first, second))
    return (first @ second.T).abs()


def curvature(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of the second differences, in which noise stands out from tones."""
    return correlation(first.diff(n=2), second.diff(n=2))


def nearness(first: Tensor, second: Tensor) -> Tensor:
    """Distance of features, negated."""
    return -torch.cdist(first.flatten(1).double(), second.flatten(1).double())


def log_mel(first: Tensor, second: Tensor) -> Tensor:
    """Distance of log-mel spectrograms, negated."""
    return nearness(*(VGGish(RATE)(view) for view in (first, second)))


WAVEFORM: dict[str, Similarity] = {"waveform": correlation, "curvature": curvature, "log_mel": log_mel}


def found(views: tuple[Tensor, Tensor], similarity: Similarity) -> int:
    """Views that find their partner, the second view of their own row, among `STRANGERS`."""
    count = 0
    for first, second in zip(*(view.split(STRANGERS) for view in views), strict=True):
        count += int((similarity(first, second).argmax(dim=1) == torch.arange(len(first))).sum())
    return count


def unrelated(seed: int, count: int = PAIRS, samples: int = SAMPLES) -> Tensor:
    """Noises of one spectrum, falling by 6 dB per octave above 500 Hz, and of one envelope: (count, samples)."""
    noise = torch.randn(count, samples, generator=torch.Generator().manual_seed(seed))
    hz = torch.fft.rfftfreq(samples, 1 / RATE)
    coloured = torch.fft.irfft(torch.fft.rfft(noise) * torch.rsqrt(1 + (hz / 500) ** 2), n=samples)
    return 0.3 * coloured * torch.exp(-3.0 * torch.arange(samples) / samples)


def counts(augment: Augment) -> tuple[dict[str, int], dict[str, int]]:
    """Count the views of unrelated sounds that find their partner, by each measure.

    Returns:
        Augmented as in training; and with a leak, where both views are given the draws of the first.
    """
    indices = torch.arange(PAIRS)
    sounds = unrelated(1), unrelated(2)
    if augment.chain[0].domain == "waveform":
        measures, apply = WAVEFORM, augment.__call__
    else:
        measures, apply = {"log_mel": nearness}, augment.features
        sounds = tuple(VGGish(RATE)(sound) for sound in sounds)
    first, second, leaked = apply(sounds[0], indices, 0), apply(sounds[1], indices, 1), apply(sounds[1], indices, 0)
    return (
        {name: found((first, second), measure) for name, measure in measures.items()},
        {name: found((first, leaked), measure) for name, measure in measures.items()},
    )


def chain(*links: dict[str, Any]) -> Augment:
    return Augment(read_chain(links), 0, RATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded noises, or rooms."""
    root = tmp_path_factory.mktemp("noises")
    for k, sound in enumerate(unrelated(3, 40, RATE)):
        soundfile.write(root / f"{k}.wav", sound.numpy(), RATE)
    return root


CHAINS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in KINDS},
    "time_mask, constant": {"kind": "time_mask", "fill": "constant", "level": 0.1},
    "noise, recordings": {"kind": "noise", "source": "recordings", "recordings": "FOLDER"},
    "noise, mixed": {"kind": "noise", "source": "mixed", "recordings": "FOLDER"},
    "impulse_response, recorded": {"kind": "impulse_response", "responses": "FOLDER"},
}
"""Every kind in the registry, so that a new one is tested too, and the other ways that some of them have."""


def one(name: str, folder: Path) -> Augment:
    link = {key: str(folder) if value == "FOLDER" else value for key, value in CHAINS[name].items()}
    return chain(link | {"p": 1.0})


@pytest.mark.parametrize("name", CHAINS)
def test_augmentation_leaves_no_fingerprint(name: str, folder: Path) -> None:
    """They would not be if it were drawn once for both views: for each augmentation one of the measures finds that."""
    apart, shared = counts(one(name, folder))
    assert max(apart.values()) <= MOST
    assert max(shared.values()) > MOST


class Leaky(TimeMask):
    """An augmentation as it must not be: the noise that it draws for a pair is the same in both views."""

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        return batch + 0.03 * dataclasses.replace(draws, view=0).noise(batch.shape[1])


def test_shared_draw_is_a_fingerprint() -> None:
    apart, _ = counts(Augment([Leaky(p=1.0)], 0, RATE))
    assert apart["curvature"] > MOST


def test_chain_of_all_augmentations_leaves_no_fingerprint() -> None:
    waveform = [kind for kind in KINDS if not kind.startswith("spec_")]
    apart, _ = counts(chain(*({"kind": kind} for kind in waveform if kind not in ("pitch_shift", "time_stretch"))))
    assert max(apart.values()) <= MOST


def test_chance_is_drawn_for_each_view() -> None:
    """Whether an augmentation is applied is drawn for each view."""
    count = 8000
    augment = chain({"kind": "gain", "p": 0.5, "low": 6.0, "high": 6.0})
    applied = torch.stack([augment(torch.ones(count, 1), torch.arange(count), view)[:, 0] > 1 for view in (0, 1)])
    both = int(applied.all(dim=0).sum())
    assert scipy.stats.binomtest(both, count, 0.25).pvalue > 1e-4


# Recordings


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of recordings of 1 s: narrow noises whose pitch rises from 300 to 6000 Hz.

    So a segment shows from where in its recording it is, and nothing else of two recordings is alike.
    """
    seconds = np.arange(RATE) / RATE
    carrier = np.cos(2 * np.pi * 300 * (20**seconds - 1) / np.log(20))
    roots = []
    for seed in (1, 2):
        roots.append(tmp_path_factory.mktemp("recordings"))
        random = np.random.default_rng(seed)
        for k in range(STRANGERS):
            slow = np.interp(seconds, np.linspace(0, 1, 200), random.standard_normal(200))
            soundfile.write(roots[-1] / f"{k}.wav", 0.2 * slow * carrier, RATE, subtype="FLOAT")
    return roots[0], roots[1]


@pytest.mark.parametrize("mixture", [1, 3])
@pytest.mark.parametrize("views", ["jitter", "same"])
def test_views_of_recordings_leave_no_fingerprint(recorded: tuple[Path, Path], views: str, mixture: int) -> None:
    """Each pair's views are taken from two unrelated recordings. `same` gives both views one segment, as its name says:
    that is found, and shows that this test can fail.
    """
    config = {"views": views, "mixture": mixture}
    both = [
        Recordings(RecordingsConfig.model_validate(config | {"root": root}), RATE, SAMPLES / RATE, 0).views(
            torch.arange(PAIRS)
        )[0][view]
        for view, root in enumerate(recorded)
    ]
    counted = [found((both[0], both[1]), measure) for measure in WAVEFORM.values()]
    if views == "jitter":
        assert max(counted) <= MOST
    else:
        assert max(counted) > MOST
