"""A run's folder, or several, into a leaderboard, figures and a page; `python -m doppel_ray.report`.

Importing this is cheap: what draws and renders is loaded when a report is written.
"""

from doppel_ray.report.leaderboard import show
from doppel_ray.report.writer import publish
from doppel_ray.runs.reader import ENDED, OVER, RUN, TRIALS, Run, Trial, about, read

__all__ = ["ENDED", "OVER", "RUN", "TRIALS", "Run", "Trial", "about", "publish", "read", "show"]
