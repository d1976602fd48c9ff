"""How sure a classifier is of what made a sound, synthetic or recorded: the paper's figure 3B."""

from typing import Any

import numpy as np
from torch import Tensor

from doppel_ray.analyze import plots
from doppel_ray.analyze.analysis import Analysis, Findings, Row, by_delta, columns, spread
from doppel_ray.analyze.classifiers import Classifier
from doppel_ray.analyze.distances import Estimate, mean
from doppel_ray.analyze.sources import RECORDINGS, Heard, Source
from doppel_ray.core.plotting import legend, panels, title


class Uncertainty(Analysis):
    """The entropy of a classifier's distribution over labels for each sound, in bits.

    Ballas' (1993) causal uncertainty, with a classifier in the place of listeners: 0 where it is certain of one cause,
    log2(classes) where all are alike to it. Of pairs the first views are asked about.
    """

    name = "uncertainty"

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.kept: dict[Source, np.ndarray] = {}

    def hear(self, heard: Heard, embedded: Tensor | None) -> None:
        if heard.source.delta is not None or not self.classifier.has_recordings:
            self.kept[heard.source] = self.classifier.hear(heard.sounds[0])

    def conclude(self) -> Findings:
        layers = sorted({source.layers for source in self.kept})
        answered = dict(zip(self.kept, self.classifier.answer([*self.kept.values()]), strict=True))
        recorded = {Source(RECORDINGS, number, None): self.classifier.recordings(number) for number in layers}
        answered |= {source: answer for source, answer in recorded.items() if answer is not None}
        bits = {source: entropy(answer) for source, answer in answered.items()}
        estimates = {source: mean(values) for source, values in bits.items()}
        most = float(np.log2(len(self.classifier.classes)))
        rows: list[Row] = [
            columns(source)
            | spread("bits", estimate)
            | {
                "relative": estimate.value / most,
                "label": self._commonest(answered[source]),
            }
            for source, estimate in estimates.items()
        ]
        return Findings(
            rows,
            by_delta(f"causal uncertainty of {self.classifier}, in bits of {most:.2f}", rows, "bits"),
            {self.name: self._draw(bits, estimates, most), "uncertainty_distributions": self._violins(bits, most)},
            [self._said(estimates, most)],
            {"classifier": str(self.classifier), "classes": list(self.classifier.classes), "most": most}
            | self.classifier.about,
        )

    def _commonest(self, answer: np.ndarray) -> str:
        """The label that is most often the first, and how often."""
        counts = np.bincount(answer.argmax(axis=1), minlength=len(self.classifier.classes))
        return f"{self.classifier.classes[int(counts.argmax())]} {counts.max() / counts.sum():.0%}"

    def _draw(self, bits: dict[Source, np.ndarray], estimates: dict[Source, Estimate], most: float) -> Any:
        synthetic = {source: estimate for source, estimate in estimates.items() if source.delta is not None}
        figure, axes = plots.against_delta(
            f"Causal uncertainty: entropy of the labels of {self.classifier}", f"bits (of {most:.2f})", synthetic
        )
        for layers, axis in axes.items():
            recorded = estimates.get(Source(RECORDINGS, layers, None))
            if recorded is not None:
                plots.reference(axis, recorded.value, RECORDINGS)
            axis.set_ylim(0.0, most)
        legend(figure, axes[max(axes)])
        return figure

    def _violins(self, bits: dict[Source, np.ndarray], most: float) -> Any:
        layers = sorted({source.layers for source in bits})
        deltas = sorted({source.delta for source in bits if source.delta is not None})
        figure, [axes] = panels(len(layers), share=True, width=4.2)
        for number, axis in zip(layers, axes, strict=True):
            names = [s.name for s in bits if s.layers == number and s.delta == deltas[-1]]
            recorded = bits.get(Source(RECORDINGS, number, None))
            groups = {} if recorded is None else {RECORDINGS: recorded}
            groups |= {name: bits[Source(name, number, deltas[-1])] for name in names}
            plain = {name: bits[Source(name, number, deltas[0])] for name in names}
            plots.violins(axis, groups, [plots.colour(name) for name in groups], plain, limits=(0.0, most))
            axis.set_title(plots.many(number))
        axes[0].set_ylabel(f"bits (of {most:.2f})")
        title(figure, f"Causal uncertainty; left, pale: δ = {deltas[0]:g}, right: δ = {deltas[-1]:g}")
        return figure

    def _said(self, estimates: dict[Source, Estimate], most: float) -> str:
        synthetic = {source: estimate.value for source, estimate in estimates.items() if source.delta is not None}
        surest, unsurest = min(synthetic, key=synthetic.__getitem__), max(synthetic, key=synthetic.__getitem__)
        recorded, known = estimates.get(Source(RECORDINGS, 1, None)), self.classifier.about.get("accuracy_1")
        of = "" if recorded is None else f"{recorded.value:.2f} on recordings, "
        if known is not None:
            of += f"whose class it knows {known:.0%} of the time, "
        return (
            f"causal uncertainty (of {most:.2f} bits): {of}{synthetic[surest]:.2f} on {surest}, "
            f"{synthetic[unsurest]:.2f} on {unsurest}"
        )


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of distributions (n, classes), in bits: (n,) from 0 to log2(classes)."""
    p = probabilities.astype(np.float64)
    logarithm = np.log2(np.where(p > 0.0, p, 1.0))
    return np.abs((p * logarithm).sum(axis=1))
