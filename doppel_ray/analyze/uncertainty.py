"""Uncertainty of a classifier about the cause of a sound, synthetic or recorded: the paper's figure 3B."""

from typing import Any

import numpy as np
from torch import Tensor

from doppel_ray.analyze import plots
from doppel_ray.analyze.analysis import Analysis, Findings, Row, by_delta, columns, spread
from doppel_ray.analyze.classifiers import Classifier
from doppel_ray.analyze.distances import Estimate, mean
from doppel_ray.analyze.sources import RECORDINGS, SoundSource, SourcePairs
from doppel_ray.core.plotting import legend, panels, title


class Uncertainty(Analysis):
    """The entropy of a classifier's distribution over labels for each sound, in bits.

    Ballas' (1993) causal uncertainty, with a classifier instead of listeners: 0 if it is certain of one cause,
    log2(classes) if all are equally likely. The first views of pairs are classified.
    """

    name = "uncertainty"

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.features: dict[SoundSource, np.ndarray] = {}

    def add(self, pairs: SourcePairs, embedded: Tensor | None) -> None:
        if pairs.source.delta is not None or not self.classifier.has_recordings:
            self.features[pairs.source] = self.classifier.features(pairs.sounds[0])

    def conclude(self) -> Findings:
        layers = sorted({source.layers for source in self.features})
        predictions = dict(zip(self.features, self.classifier.predict([*self.features.values()]), strict=True))
        recorded = {SoundSource(RECORDINGS, number, None): self.classifier.recordings(number) for number in layers}
        predictions |= {source: predicted for source, predicted in recorded.items() if predicted is not None}
        bits = {source: entropy(predicted) for source, predicted in predictions.items()}
        estimates = {source: mean(values) for source, values in bits.items()}
        most = float(np.log2(len(self.classifier.classes)))
        rows: list[Row] = [
            columns(source)
            | spread("bits", estimate)
            | {
                "relative": estimate.value / most,
                "label": self._commonest(predictions[source]),
            }
            for source, estimate in estimates.items()
        ]
        return Findings(
            rows,
            by_delta(f"causal uncertainty of {self.classifier}, in bits of {most:.2f}", rows, "bits"),
            {self.name: self._draw(bits, estimates, most), "uncertainty_distributions": self._violins(bits, most)},
            [self._summary(estimates, most)],
            {"classifier": str(self.classifier), "classes": list(self.classifier.classes), "most": most}
            | self.classifier.about,
        )

    def _commonest(self, predicted: np.ndarray) -> str:
        """Return the most frequent top label and its share."""
        counts = np.bincount(predicted.argmax(axis=1), minlength=len(self.classifier.classes))
        return f"{self.classifier.classes[int(counts.argmax())]} {counts.max() / counts.sum():.0%}"

    def _draw(self, bits: dict[SoundSource, np.ndarray], estimates: dict[SoundSource, Estimate], most: float) -> Any:
        synthetic = {source: estimate for source, estimate in estimates.items() if source.delta is not None}
        figure, axes = plots.against_delta(
            f"Causal uncertainty: entropy of the labels of {self.classifier}", f"bits (of {most:.2f})", synthetic
        )
        for layers, axis in axes.items():
            recorded = estimates.get(SoundSource(RECORDINGS, layers, None))
            if recorded is not None:
                plots.reference(axis, recorded.value, RECORDINGS)
            axis.set_ylim(0.0, most)
        legend(figure, axes[max(axes)])
        return figure

    def _violins(self, bits: dict[SoundSource, np.ndarray], most: float) -> Any:
        layers = sorted({source.layers for source in bits})
        deltas = sorted({source.delta for source in bits if source.delta is not None})
        figure, [axes] = panels(len(layers), share=True, width=4.2)
        for number, axis in zip(layers, axes, strict=True):
            names = [s.name for s in bits if s.layers == number and s.delta == deltas[-1]]
            recorded = bits.get(SoundSource(RECORDINGS, number, None))
            groups = {} if recorded is None else {RECORDINGS: recorded}
            groups |= {name: bits[SoundSource(name, number, deltas[-1])] for name in names}
            plain = {name: bits[SoundSource(name, number, deltas[0])] for name in names}
            plots.violins(axis, groups, [plots.colour(name) for name in groups], plain, limits=(0.0, most))
            axis.set_title(plots.many(number))
        axes[0].set_ylabel(f"bits (of {most:.2f})")
        title(figure, f"Causal uncertainty; left, pale: δ = {deltas[0]:g}, right: δ = {deltas[-1]:g}")
        return figure

    def _summary(self, estimates: dict[SoundSource, Estimate], most: float) -> str:
        synthetic = {source: estimate.value for source, estimate in estimates.items() if source.delta is not None}
        surest, unsurest = min(synthetic, key=synthetic.__getitem__), max(synthetic, key=synthetic.__getitem__)
        recorded, known = estimates.get(SoundSource(RECORDINGS, 1, None)), self.classifier.about.get("accuracy_1")
        of = "" if recorded is None else f"{recorded.value:.2f} on recordings, "
        if known is not None:
            of += f"whose class it predicts with an accuracy of {known:.0%}, "
        return (
            f"causal uncertainty (of {most:.2f} bits): {of}{synthetic[surest]:.2f} on {surest}, "
            f"{synthetic[unsurest]:.2f} on {unsurest}"
        )


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of distributions (n, classes), in bits: (n,) from 0 to log2(classes)."""
    p = probabilities.astype(np.float64)
    logarithm = np.log2(np.where(p > 0.0, p, 1.0))
    return np.abs((p * logarithm).sum(axis=1))
