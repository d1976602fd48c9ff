"""The columns of a trial's rows, and what each of them means."""

from doppel_ray.core.score_names import VALID, reported
from doppel_ray.runs.metrics_log import POPULATION, Row

USAGE = {
    "pairs_per_second": "Pairs trained on per second, over all workers.",
    "wait_share": "Share of the time that training waits for pairs. Above 0.1 the generators limit the speed.",
    "train_seconds": "Seconds of an epoch, without its probe.",
    "memory_mb": "Memory of the first train worker, in MiB.",
    "workers": "Train workers, which share every batch.",
    "generator_seconds_per_pair": "Seconds that one generator needs for a pair.",
    "generator_restarts": "Generators restarted after a crash, since training began.",
    "recordings_skipped": "Unreadable recordings in this epoch.",
    "returns": "Rollbacks to the last checkpoint because the loss was NaN or infinite.",
    "probe/seconds": "Seconds of a probe, in a process of its own.",
    "probe/untrained_pairs": "Pairs behind the batch-norm statistics of the untrained baseline.",
    "probe/failed": "1 where a probe failed or took longer than `probes.timeout`; `trial.log` has the reason.",
}
TRAIN = {
    "loss": "The training loss (`objective.kind`).",
    "alignment": "Mean distance between the two views of a pair, to the power α. Lower is closer.",
    "uniformity": "How evenly embeddings fill the sphere. Near 0 they have collapsed; lower is more even.",
    "nt_xent": "Cross-entropy of finding the other view of a pair among all views of the batch; by chance ln(2 n - 1).",
    "cross_entropy": "Cross-entropy of the labelled views' classes.",
    "accuracy": "Share of the labelled training views classified correctly.",
    "gradient_norm": "Norm of the gradient over all weights, before `train.clip`.",
    "lr": "Learning rate.",
    "effective_rank": "Effective number of dimensions of the embeddings of the epoch's last batch.",
}
RELATED = {
    "low": "Lower end of the 95 % bootstrap interval, over test examples, of",
    "high": "Upper end of the 95 % bootstrap interval, over test examples, of",
    "mel": "Baseline: mean and deviation of mel bands, probed as the checkpoint is, by",
    "untrained": "Baseline: the same encoder before its first step (with batch-norm statistics of "
    "`usage/probe_untrained_pairs` of the run's pairs), probed as the checkpoint is, by",
}
"""Ending of a column beside a score -> what it is, before the score's name."""


def main_scores(row: Row) -> set[str]:
    """Return the columns with the first metric of each task, which has baselines, and its validation score."""
    tests = {name.removesuffix("_untrained") for name in row if name.endswith("_untrained")}
    return tests | {f"{name}{VALID}" for name in tests if f"{name}{VALID}" in row}


def describe(column: str) -> str:
    """Return what a column of a row means, in Markdown."""
    name, _, ending = column.rpartition("_")
    if column.startswith("probe/") and ending in RELATED:
        return f"{RELATED[ending]} `{name}`."
    if column.startswith("probe/") and column.endswith(VALID):
        return f"`{reported(column)}` on validation examples; checkpoints and trials are chosen by such scores."
    if column.startswith("probe/") and column not in USAGE:
        _, task, metric = column.split("/", 2)
        return f"The probe `{task}`: {metric} on test examples, which it was not fitted on."
    if column.startswith(POPULATION):
        return f"`{column.removeprefix(POPULATION)}` in force, as population-based training changes it."
    return USAGE.get(column) or TRAIN.get(column, "")
