"""The columns of a trial's rows: what each of them means."""

from typing import TYPE_CHECKING

from doppel_ray.core.score_names import VALID, reported
from doppel_ray.runs.metrics_log import POPULATION, Row

if TYPE_CHECKING:
    pass

USAGE = {
    "pairs_per_second": "Pairs that training takes in a second, over all workers.",
    "wait_share": "Share of the time that training waits for pairs. Above 0.1 the generators set the pace.",
    "train_seconds": "Seconds that an epoch takes, without its probe.",
    "memory_mb": "Memory of the first train worker, in MiB.",
    "workers": "Train workers, each of which takes its share of every batch.",
    "generator_seconds_per_pair": "Seconds of one generator that a pair takes.",
    "generator_restarts": "Generators that died and were started again, since training began.",
    "recordings_skipped": "Recordings that could not be read in this epoch.",
    "returns": "Times that training went back to its last checkpoint because the loss was no number.",
    "probe/seconds": "Seconds that a probe takes, from its start in a process of its own.",
    "probe/untrained_pairs": "Pairs whose batch-norm statistics the untrained baseline has.",
    "probe/failed": "1 where a probe failed or took longer than `probes.timeout`; the trial's `trial.log` says why.",
}
TRAIN = {
    "loss": "What is minimised (`objective.kind`).",
    "alignment": "Mean distance between the two views of a pair, to the power α: the lower, the closer they lie.",
    "uniformity": "How evenly embeddings fill the sphere: near 0 they have collapsed, the lower the more they spread.",
    "nt_xent": "Cross-entropy of picking a view's other half among all views of the batch; by chance ln(2 n - 1).",
    "cross_entropy": "Cross-entropy of the labelled views' classes.",
    "accuracy": "Share of the labelled views whose class is right, while training.",
    "gradient_norm": "Norm of the gradient over all weights, before `train.clip`.",
    "lr": "Learning rate.",
    "effective_rank": "Dimensions that the embeddings of the epoch's last batch make use of.",
}
BESIDE = {
    "low": "Lower end of the 95 % bootstrap interval, over test examples, of",
    "high": "Upper end of the 95 % bootstrap interval, over test examples, of",
    "mel": "What the mean and deviation of mel bands have, asked as the checkpoint is, of",
    "untrained": "What the same encoder has before its first step (with batch-norm statistics of as many of the run's "
    "pairs as `usage/probe_untrained_pairs` says), asked as the checkpoint is, of",
}


def firsts(row: Row) -> set[str]:
    """The columns of a row that are the first metric of a task, those with baselines; and their validation scores."""
    tests = {name.removesuffix("_untrained") for name in row if name.endswith("_untrained")}
    return tests | {f"{name}{VALID}" for name in tests if f"{name}{VALID}" in row}


def about(column: str) -> str:
    """What a column of a row means, in Markdown."""
    name, _, ending = column.rpartition("_")
    if column.startswith("probe/") and ending in BESIDE:
        return f"{BESIDE[ending]} `{name}`."
    if column.startswith("probe/") and column.endswith(VALID):
        return f"`{reported(column)}` of validation examples: what checkpoints and trials may be chosen by."
    if column.startswith("probe/") and column not in USAGE:
        _, task, metric = column.split("/", 2)
        return f"The probe `{task}`: {metric}, of test examples that it was not fitted on."
    if column.startswith(POPULATION):
        return f"`{column.removeprefix(POPULATION)}` as population-based training has it in force."
    return USAGE.get(column) or TRAIN.get(column, "")
