"""What a score costs: training time, pairs, energy."""

from typing import Any

from doppel_ray.report.figures.style import (
    COLOURS,
    Figure,
    Style,
    baselines,
    is_wide,
    legend,
    panels,
    point,
    shade,
    styles,
    text,
)
from doppel_ray.report.runs import number
from doppel_ray.report.study import Setting, Study, title


def cost(study: Study) -> Figure | None:
    """The metric against what each setting cost up to the row that counts; None where no cost is known, or all alike."""
    settings = [setting for setting in study.settings if setting.score(study.metric)]
    known = {
        what: [None if value is None else value / scale for value in map(measure, settings)]
        for what, (measure, scale) in _MEASURES.items()
    }
    shown = {what: values for what, values in known.items() if len({value for value in values if value is not None}) > 1}
    if not shown:
        return None
    data: list[dict[str, Any]] = []
    few = len(settings) <= len(COLOURS)
    with panels(len(shown)) as (picture, axes):
        coloured = None if few else shade(study)
        for axis, (what, values) in zip(axes, shown.items(), strict=True):
            baselines(axis, study, study.metric)
            for order, (setting, x) in enumerate(zip(settings, values, strict=True)):
                if x is None:
                    continue
                style = Style(coloured.colour(order), "o", "-") if coloured else styles(len(settings))[order]
                found = point(axis, x, setting, study.metric, style)
                data.append({**setting.values, "cost": what, "value": x, **(found or {})})
                if few and len(settings) > 1:
                    label = text(study.title(setting), 64)
                    axis.plot([], [], linestyle="none", marker=style.marker, color=style.colour, label=label)
            if is_wide([value for value in values if value is not None]):
                axis.set_xscale("log")
            axis.set_xlabel(what)
            axis.set_title(title(study.metric))
        if coloured is not None:
            coloured.bar(picture, axes)
        legend(picture, axes)
    caption = (
        "What a setting's trial cost, up to the row whose score is shown; the mean of its repeats. Training time is that "
        "of the epochs, without start-up and probes. Trials that ran side by side slowed each other down."
    )
    if "energy, kJ" in shown:
        caption += " Energy is that of the first train worker's whole machine, whatever else ran on it."
    return Figure("cost", "What a score costs", caption, picture, data)


def _pairs(setting: Setting) -> float | None:
    return setting.mean(lambda trial: number((setting.best(trial) or {}).get("pairs")))


_MEASURES = {
    "training time, minutes": (lambda setting: setting.cost_of_best("train_seconds"), 60.0),
    "pairs, thousands": (_pairs, 1000.0),
    "energy, kJ": (lambda setting: setting.cost_of_best("energy_joules"), 1000.0),
}
"""What it is -> how it is found, and what it is divided by."""
