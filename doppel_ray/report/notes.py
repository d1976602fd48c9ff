"""The notes below the leaderboard: how to read it."""

from collections.abc import Iterator, Sequence

from doppel_ray.core.score_names import VALID, reported
from doppel_ray.report.study import Study

CHOICE = (
    "Each trial counts with its best row by {metric}, which also gives the order. All scores of a line come from that "
    "row; “final” is the score of the last row that has one."
)
VALIDATION = (
    "Validation scores choose, and test scores are reported. No probe is fitted on its test examples. In "
    "cross-validation over all folds each clip is tested in one split and validates another; with probes.test_folds of "
    "one fold, no label of that fold influences a choice."
)
SEEDS = (
    "Trials that differ only in their seed are repeats of one setting: its score is their mean, with the 95 % interval "
    "of Student’s t over the seeds. The interval estimates the spread of another training."
)
TEST_EXAMPLES = (
    "The interval of a single trial is the 95 % bootstrap interval over test examples. It estimates the spread of the "
    "same checkpoint on other recordings, not of other seeds."
)
GAIN = (
    "Gain is the distance to the better baseline, on the same splits. In the pictures the dashed line is the same "
    "encoder untrained, the dotted line mel statistics."
)
ENERGY = (
    "Energy is measured by the counters of the first train worker’s whole machine (processors, and GPUs where they can "
    "be read) during the epochs. It includes everything that ran there, so trials side by side each count all of it; "
    "other machines are not included."
)


def notes(study: Study) -> Iterator[str]:
    """Yield the notes that apply to a study."""
    yield CHOICE.format(metric=study.metric)
    if study.metric.endswith(VALID):
        yield VALIDATION
    if study.chosen_on_test:
        yield f"{chosen_on_test(study.chosen_on_test)}."
    scores = (setting.score(name) for setting in study.settings for name in study.scores)
    intervals = {score.over for score in scores if score is not None}
    if "seeds" in intervals:
        yield SEEDS
    if "test examples" in intervals:
        yield TEST_EXAMPLES
    if study.baseline(study.reported, "untrained") is not None:
        yield GAIN
        yield _untrained(study)
    if any(setting.cost("energy_joules") for setting in study.settings):
        yield ENERGY
    metrics = {(reported(run.metric), run.mode) for run in study.runs}
    if metrics - {(study.reported, study.mode)}:
        yield f"All runs are compared by {study.reported}, the first run’s; some chose by another metric."


def chosen_on_test(runs: Sequence[str]) -> str:
    """Return the warning about runs without validation scores."""
    return (
        f"{', '.join(runs)}: trials and checkpoints were chosen by the test scores that are shown, which are therefore "
        "optimistic; the rows have no validation scores"
    )


def _untrained(study: Study) -> str:
    """Return which batch-norm statistics the untrained baseline has."""
    rows = [row for setting in study.settings for trial in setting.trials for row in trial.rows]
    pairs = {row.get("probe/untrained_pairs") for row in rows if any(name.endswith("_untrained") for name in row)}
    statistics = {
        f"batch-norm statistics of {count:.0f} of its run’s pairs, as a trained one has"
        if count is not None
        else "batch norms at mean 0 and variance 1, as in older versions, where it scores differently"
        for count in pairs
    }
    return f"The untrained encoder has {'; in other rows it has '.join(sorted(statistics))}."
