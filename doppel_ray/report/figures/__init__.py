"""The figures of a report. Importing this loads matplotlib."""

from collections.abc import Iterator

from doppel_ray.report.figures.cost import cost
from doppel_ray.report.figures.curves import curves
from doppel_ray.report.figures.parallel import parallel
from doppel_ray.report.figures.scores import against, by
from doppel_ray.report.figures.style import Figure
from doppel_ray.report.study import RUN_KEY, Study

__all__ = ["Figure", "draw"]


def draw(study: Study) -> Iterator[Figure]:
    """Yield every figure that a study has numbers for."""
    if any(setting.score(name) for setting in study.settings for name in study.scores):
        for key in study.varied:
            if study.is_numeric(key):
                yield against(study, key)
            elif key != RUN_KEY or len(study.varied) == 1:  # the other figures show runs apart
                yield by(study, key)
    for figure in (parallel(study), curves(study), cost(study)):
        if figure is not None:
            yield figure
