"""Write a sweep and its trials for TensorBoard, whose log directory is `RUN/trials`.

Each trial is a run there, written by the trial's own process alone: TensorBoard reads one file of a run at a time, and
loses or repeats what two processes write. `sweep` beside them is the run of the whole sweep. The driver writes that,
and what the HParams tab needs of each trial.

The step axis of a trial counts optimizer steps. Tags are the columns of the rows, in groups that sort by importance
(TensorBoard sorts `a-b` behind `a`, but `a_b` anywhere):

- `all_trials`: the sweep so far, its leaderboard and its figures.
- `chosen`: test and validation scores of the row that validation has chosen so far; the HParams tab shows these too.
- `probe`: main score of each task, test and validation; `probe-details`: all other columns of a probe.
- `search`: searched values in force with population-based training.
- `sounds`: the first pairs of the stream, to listen to and look at.
- `train`: measures of learning, a point an epoch; `train-steps`: the same, every `train.log_every` steps.
- `usage` and `usage-steps`: speed, memory and faults.
"""

from doppel_ray.report.tensorboard.sweep import SWEEP, SweepWriter, write_leaderboard
from doppel_ray.report.tensorboard.trial import TrialWriter

__all__ = ["SWEEP", "SweepWriter", "TrialWriter", "write_leaderboard"]
