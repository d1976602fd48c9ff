"""Score against cost: training time, pairs, energy."""

from collections.abc import Callable
from typing import Any

from doppel_ray.report.figures.style import (
    COLOURS,
    Figure,
    baselines,
    cloud,
    is_wide,
    legend,
    panels,
    point,
    shade,
    styles,
    text,
)
from doppel_ray.report.study import Setting, Study, title

ENERGY = "energy, kJ"


def _per(column: str, unit: float) -> Callable[[Setting], float | None]:
    """Return a function: the sum of a column up to the row that counts, in another unit."""

    def measure(setting: Setting) -> float | None:
        total = setting.cost_of_best(column)
        return None if total is None else total / unit

    return measure


def _thousands_of_pairs(setting: Setting) -> float | None:
    pairs = setting.mean(lambda trial: (setting.best(trial) or {}).get("pairs"))
    return None if pairs is None else pairs / 1000.0


MEASURES = {
    "training time, minutes": _per("train_seconds", 60.0),
    "pairs, thousands": _thousands_of_pairs,
    ENERGY: _per("energy_joules", 1000.0),
}


def cost(study: Study) -> Figure | None:
    """Draw the score against each setting's cost; None if the cost is not known, or the same for all."""
    settings = [setting for setting in study.settings if setting.score(study.reported)]
    shown = {what: measure for what, measure in MEASURES.items() if len(set(map(measure, settings)) - {None}) > 1}
    if not shown:
        return None
    data: list[dict[str, Any]] = []
    with panels(len(shown)) as (picture, axes):
        coloured = None if len(settings) <= len(COLOURS) else shade(study)
        for axis, (what, measure) in zip(axes, shown.items(), strict=True):
            baselines(axis, study, study.reported)
            if coloured is None:
                for style, setting in zip(styles(len(settings)), settings, strict=True):
                    if (x := measure(setting)) is not None:
                        found = point(axis, x, setting, study.reported, style)
                        data.append({**setting.values, "cost": what, "x": x, **found})
                        label = text(study.title(setting), 64)
                        axis.plot([], [], linestyle="none", marker=style.marker, color=style.colour, label=label)
            else:
                data += [{"cost": what, **row} for row in cloud(axis, study, study.reported, coloured, measure)]
            if is_wide([x for setting in settings if (x := measure(setting)) is not None]):
                axis.set_xscale("log")
            axis.set_xlabel(what)
            axis.set_title(title(study.reported))
        if coloured is not None:
            coloured.bar(picture, axes)
        legend(picture, axes)
    caption = (
        "Cost of a trial up to the row whose score is shown, as the mean over repeats. Training time is the time of "
        "the epochs, without start-up and probes. Trials that ran side by side slowed each other down."
    )
    if ENERGY in shown:
        caption += (
            " Energy is measured for the first train worker's whole machine, with everything else that ran on it."
        )
    return Figure("cost", "What a score costs", caption, picture, data)
