"""The TensorBoard run of one trial."""

from pathlib import Path
from typing import TYPE_CHECKING

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import summary

from doppel_ray.report.tensorboard.events import EventLog, chosen_tag, tag
from doppel_ray.runs.columns import describe, main_scores
from doppel_ray.runs.metrics_log import STEPS, JsonlFollower, Row, numbers

if TYPE_CHECKING:
    import torch

    from doppel_ray.config.experiment import Experiment

LOG_MEL = "Both views, side by side, in log-mel bands: time runs to the right, low bands are at the bottom."
SOUND = "Pair {} of the stream, one of its two views, augmented as in training."
QUIETEST, LOUDEST = -4.6, 3.0
"""Range of the pictures' colours in log-mel: silence, and the loudest that a band gets."""
LOWEST_RATE = 15000
"""Sample rate in Hz from which sounds have all bands of the pictures, which end at 7500 Hz."""


class TrialWriter:
    """Writes the TensorBoard run of a trial.

    Args:
        folder: of the trial.
    """

    def __init__(self, folder: Path) -> None:
        self.events = EventLog(folder)
        self.points = JsonlFollower(folder / STEPS, at_end=True)

    def steps(self) -> None:
        """Show the points that the train worker has written since the last call."""
        points = self.points.take()
        for point in points:
            if "goes_on_from" in point:
                self.events.forget_after(point["goes_on_from"])
                continue
            step = point.pop("step")
            tags = {name: tag(name, ()).replace("/", "-steps/", 1) for name in point}
            descriptions = {tags[name]: describe(name) for name in point}
            self.events.scalars({tags[name]: value for name, value in point.items()}, step, descriptions)
        if points:
            self.events.flush()

    def row(self, row: Row, chosen: Row | None = None, metric: str = "") -> None:
        """Show a row's numbers, and the scores of the row that is chosen so far, at the row's step.

        Args:
            row: the newest.
            chosen: the best row so far; None if there is none yet.
            metric: that chooses it.
        """
        found, main = numbers(row), main_scores(row)
        tags = {name: tag(name, main) for name in found}
        descriptions = {tags[name]: describe(name) for name in found}
        self.events.scalars({tags[name]: value for name, value in found.items()}, row["step"], descriptions)
        if chosen is not None:
            scores = {chosen_tag(name): value for name, value in numbers(chosen).items() if name in main_scores(chosen)}
            description = f"Score of the row that is best by `{metric}` so far."
            self.events.scalars(scores, row["step"], dict.fromkeys(scores, description))
        self.events.flush()

    def sounds(self, experiment: "Experiment", count: int = 4) -> None:
        """Show the first pairs of the stream: both views, augmented, as sounds and as log-mel spectrograms."""
        import torch

        from doppel_ray.data.frontends import FrontendConfig
        from doppel_ray.data.pairs import PairMaker

        plain = experiment.plain()
        plain["synth"]["compile"] = False  # compiling takes longer than these few pairs
        sample_rate = experiment.synth.sample_rate
        maker, indices = PairMaker.of(plain), torch.arange(count)
        sounds, *_ = maker.sounds(indices)
        views = maker.augment.both(sounds, experiment.pairs.drawn(indices))
        frontend = FrontendConfig().build(sample_rate) if sample_rate >= LOWEST_RATE else None
        for pair in range(count):
            if frontend is not None:
                picture = _side_by_side(frontend(views[:, pair]).squeeze(1))
                self._show(summary.image(f"sounds/pair_{pair}_log_mel", picture, dataformats="HWC"), LOG_MEL)
            for view, name in enumerate("ab"):
                sound = views[view, pair] / views[view, pair].abs().amax().clamp(min=1.0)
                audio = summary.audio(f"sounds/pair_{pair}_view_{name}", sound.unsqueeze(0), sample_rate)
                self._show(audio, SOUND.format(pair))
        self.events.flush()

    def _show(self, made: Summary, description: str) -> None:
        for value in made.value:
            value.metadata.summary_description = description
            value.metadata.plugin_data.plugin_name = "images" if value.HasField("image") else "audio"
        self.events.add(made.value)

    def close(self) -> None:
        """Show the last points and close the file."""
        self.steps()
        self.events.close()


def _side_by_side(log_mels: "torch.Tensor"):  # type: ignore[no-untyped-def]
    """Return a picture (bands, time, 3) of the log-mels (views, time, bands) of a pair, low bands at the bottom."""
    import torch
    from matplotlib import colormaps

    shades = ((log_mels - QUIETEST) / (LOUDEST - QUIETEST)).clamp(0.0, 1.0)
    joined = torch.cat(list(torch.nn.functional.pad(shades, (0, 0, 0, 2))), dim=0).T.flip(0)
    return colormaps["magma"](joined.numpy())[..., :3]
