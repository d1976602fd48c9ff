"""No decision depends on a test score."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doppel_ray.cluster.experiment_checks import check_metric
from doppel_ray.config.experiment import Experiment, validate_experiment
from doppel_ray.config.train import KeepConfig
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.score_names import is_test
from doppel_ray.probe.embed import by_mel_statistics, embed_sounds
from doppel_ray.probe.protocols import ProtocolConfig, choosing, score_embeddings
from doppel_ray.probe.task import Split, TaskSpec
from doppel_ray.probe.tasks import Factors
from doppel_ray.probe.tasks.listing import rotated
from doppel_ray.report import leaderboard, study
from doppel_ray.runs import reader
from doppel_ray.runs.metrics_log import Row
from doppel_ray.runs.retention import dropped
from doppel_ray.tune import schedulers
from doppel_ray.tune.progress import SweepProgress
from tests.made_runs import make_run, row

METRIC = Experiment().tune.metric
PROTOCOLS = (ProtocolConfig(), ProtocolConfig(kind="knn"), ProtocolConfig(kind="mlp", grid_points=1, max_epochs=6))
COUNT = 300


@pytest.fixture(scope="module")
def embedded() -> tuple[np.ndarray, np.ndarray]:
    """Mel statistics of real sounds, and their factors."""
    dataset = Factors(sounds=COUNT).load(16000)
    vectors = embed_sounds(dataset.sounds, range(COUNT), by_mel_statistics(16000))
    return vectors, dataset.spec.targets


def task_spec(kind: str, factors: np.ndarray, splits: tuple[Split, ...]) -> TaskSpec:
    """Return a task of each kind on factors: octaves, which factors are high, values."""
    high = factors > np.median(factors, axis=0)
    if kind == "multiclass":
        return TaskSpec(
            "multiclass", (factors[:, 0] // 12 - 3).astype(int), tuple("34567"), splits, ("accuracy", "mAP")
        )
    names = tuple(f"factor {k}" for k in range(factors.shape[1]))
    if kind == "multilabel":
        return TaskSpec("multilabel", high, names, splits, ("mAP", "d_prime"))
    return TaskSpec("regression", factors, names, splits, ("score",))


def splits_of(how: str) -> tuple[Split, ...]:
    """Return splits of the three kinds whose test part is never fitted or validated on."""
    rows = np.random.default_rng(1).permutation(COUNT)
    if how == "one test fold":
        folds = [str(place % 5 + 1) for place in range(COUNT)]
        return tuple(split for split in rotated(folds, ["5"]) if split.name == "fold_5")
    valid = rows[:60] if how == "own valid" else rows[:0]
    return (Split("test", rows[60:200], valid, rows[200:]),)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.kind)
@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("how", ["one test fold", "own valid", "no valid"])
def test_permuted_test_labels(
    embedded: tuple[np.ndarray, np.ndarray], protocol: ProtocolConfig, kind: str, how: str
) -> None:
    """With the labels of the test examples permuted every validation score stays the same bit by bit."""
    vectors, factors = embedded
    spec = task_spec(kind, factors, splits_of(how))
    (split,) = spec.splits
    targets = spec.targets.copy()
    targets[split.test] = np.random.default_rng(2).permutation(targets[split.test])
    before, after = (score_embeddings(protocol, vectors, each) for each in (spec, replace(spec, targets=targets)))
    for name in choosing(spec):
        assert before[name] == after[name]
    for name in spec.metrics:
        assert before[name] != after[name]


def test_validation_scores_differ_between_embeddings(embedded: tuple[np.ndarray, np.ndarray]) -> None:
    """The validation score says which embeddings are better, as the test score does."""
    vectors, factors = embedded
    spec = task_spec("multiclass", factors, splits_of("one test fold"))
    noise = np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
    good, bad = (score_embeddings(ProtocolConfig(), given, spec) for given in (vectors, noise))
    assert good["accuracy_valid"] > bad["accuracy_valid"] + 0.2
    assert good["accuracy"] > bad["accuracy"] + 0.2


# --- the readers ------------------------------------------------------------------------------------------------------

TRIALS, EPOCHS = 6, 8


def trials_rows() -> list[list[Row]]:
    """Return rows of trials whose validation scores disagree with the test scores."""
    rng = np.random.default_rng(3)
    return [
        [row(epoch, rng.random(), **{METRIC: rng.random()}) for epoch in range(1, EPOCHS + 1)] for _ in range(TRIALS)
    ]


def with_other_tests(trials: list[list[Row]]) -> list[list[Row]]:
    """Return the same with every test score replaced: a reader of one would decide otherwise."""
    rng = np.random.default_rng(4)
    return [[{n: rng.random() if is_test(n) else v for n, v in sent.items()} for sent in rows] for rows in trials]


def stopped(kind: str, trials: list[list[Row]]) -> list[tuple[int, int, str]]:
    """Return which trials a scheduler ends, and when; it sees them epoch by epoch."""

    class Trial:
        def __init__(self, number: int) -> None:
            self.status, self.trial_id = "RUNNING", str(number)

    nobody: Any = None
    scheduler = schedulers.build_scheduler(
        validate_experiment({"tune": {"scheduler": kind}, "train": {"epochs": EPOCHS}})
    )
    known: list[Any] = [Trial(number) for number in range(len(trials))]
    for trial in known:
        scheduler.on_trial_add(nobody, trial)
    ended: list[tuple[int, int, str]] = []
    for epoch in range(EPOCHS - 1):
        for number, trial in enumerate(known):
            if number not in [which for which, _, _ in ended]:
                decision = scheduler.on_trial_result(nobody, trial, trials[number][epoch])
                ended += [(number, epoch, decision)] if decision != "CONTINUE" else []
    return ended


def kept(trials: list[list[Row]]) -> list[list[int]]:
    policy = KeepConfig(best=2, last=1)
    return [[sent["epoch"] for sent in dropped(policy, rows, METRIC, "max")] for rows in trials]


def best_so_far(trials: list[list[Row]]) -> tuple[str, int]:
    progress = SweepProgress(Path("nowhere"), Experiment().plain(), TRIALS)
    for number, rows in enumerate(trials):
        for sent in rows:
            progress.add(str(number), sent)
    assert progress.best is not None
    return progress.best[0], progress.best[1]["epoch"]


def searched(trials: list[list[Row]]) -> list[float]:
    """Return what Optuna suggests after the trials."""
    pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
    search = {"pairs.delta": {"uniform": [0.0, 1.0]}}
    searcher = schedulers.build_optuna(
        validate_experiment({"tune": {"searcher": "optuna", "samples": 40}, "search": search})
    )
    for number in range(20):
        searcher.suggest(str(number))
        searcher.on_trial_complete(str(number), trials[number % TRIALS][number // TRIALS])
    return [searcher.suggest(f"next {number}")["pairs.delta"] for number in range(3)]


@pytest.mark.parametrize(
    "decide",
    [lambda trials: stopped("asha", trials), lambda trials: stopped("median", trials), kept, best_so_far, searched],
    ids=["asha", "median", "train.keep", "live table", "optuna"],
)
def test_no_decision_reads_a_test_score(decide: Callable[[list[list[Row]]], Any]) -> None:
    """Decisions depend on validation scores, and not on test scores."""
    trials = trials_rows()
    assert decide(trials) == decide(with_other_tests(trials))
    turned = [[{**sent, METRIC: 1.0 - sent[METRIC]} for sent in rows] for rows in trials]
    assert decide(trials) != decide(turned)


@pytest.mark.parametrize("kind", ["hyperband", "pbt"])
def test_metric_of_schedulers_that_pause(kind: str) -> None:
    search = {"pairs.delta": {"choice": [0.1, 0.2]}}
    scheduler = schedulers.build_scheduler(
        validate_experiment({"tune": {"scheduler": kind}, "search": search, "train": {"epochs": 9}})
    )
    assert scheduler._metric == "probe/factors/score_valid"


def test_old_run_chosen_on_test_resumes_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Its experiment still loads and resumes with one warning; a new run is refused with the name to use."""
    plain = Experiment().plain()
    plain["tune"]["metric"] = "probe/factors/score"
    old = validate_experiment(plain)
    check_metric(old, is_new=False)
    assert caplog.text.count("probe/factors/score is a test score") == 1
    with pytest.raises(ConfigError, match="probe/factors/score is a test score; use probe/factors/score_valid"):
        check_metric(old)


def read_study(folder: Path, trials: list[list[Row]]) -> tuple[study.Study, list[dict[str, Any]]]:
    made = {f"{n:03d}": ({"pairs.delta": n / 10}, "finished", rows) for n, rows in enumerate(trials)}
    subject = study.study([reader.read(make_run(folder, made))])
    return subject, leaderboard.settings_table(subject)


def test_leaderboard_order_and_best_checkpoints_read_no_test_score(tmp_path: Path) -> None:
    """Order and checkpoints are those of validation; the scores are the test scores of the same rows."""
    trials = trials_rows()
    (_, before), (_, after) = (
        read_study(tmp_path / "one", trials),
        read_study(tmp_path / "two", with_other_tests(trials)),
    )
    assert [(line["trial"], line["best_epoch"], line[METRIC]) for line in before] == [
        (line["trial"], line["best_epoch"], line[METRIC]) for line in after
    ]
    best = [max(rows, key=lambda sent: sent[METRIC]) for rows in trials]
    assert [line[METRIC] for line in before] == sorted((sent[METRIC] for sent in best), reverse=True)
    for line in before:
        sent = best[int(line["trial"])]
        assert line["probe/factors/score"] == sent["probe/factors/score"]
        assert line["checkpoint"].name == f"epoch_{sent['epoch']:04d}"
