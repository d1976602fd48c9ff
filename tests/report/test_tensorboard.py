"""TensorBoard's events, read back by TensorBoard's own reader."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from doppel_ray.config.experiment import validate_experiment
from doppel_ray.report import tensorboard
from doppel_ray.runs import metrics_log
from doppel_ray.runs.metrics_log import STEPS
from doppel_ray.train.step_log import StepLog

ROW = {
    "epoch": 1,
    "step": 8,
    "pairs": 256,
    "loss": 3.0,
    "wait_share": 0.1,
    "probe/factors/score": 0.5,
    "probe/factors/score_valid": 0.45,
    "probe/factors/score_low": 0.4,
    "probe/factors/score_untrained": 0.3,
    "probe/factors/pitch": 0.7,
    "probe/seconds": 2.0,
    "search/pairs.delta": {"pitch": 0.05},
    "checkpoint": "/runs/mine/trials/000/checkpoints/epoch_0001",
    "events": "",
}


def reader(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(point.step, round(point.value, 3)) for point in reader(folder).Scalars(tag)]


def train(folder: Path, start: int, stop: int, loss: float) -> None:
    """Write the points of a train worker from a step to another."""
    log = StepLog(folder, every=2, step=start)
    for step in range(start + 1, stop + 1):
        log.add(step, waited=0.0, pairs=32, found={"loss": loss})


def test_row_becomes_grouped_curves_with_descriptions(tmp_path: Path) -> None:
    shown = tensorboard.TrialWriter(tmp_path)
    shown.row(ROW)
    shown.close()
    found = reader(tmp_path)
    assert set(found.Tags()["scalars"]) == {
        "probe/factors/score",
        "probe/factors/score_valid",
        "probe-details/factors/pitch",
        "probe-details/factors/score_low",
        "probe-details/factors/score_untrained",
        "search/pairs.delta/pitch",
        "train/loss",
        "usage/probe_seconds",
        "usage/wait_share",
    }
    for tag in found.Tags()["scalars"]:
        assert curve(tmp_path, tag)[0][0] == 8, "at the step of the optimizer"
        assert len(found.SummaryMetadata(tag).summary_description) > 10
    assert "Lower end of the 95 %" in found.SummaryMetadata("probe-details/factors/score_low").summary_description


def test_chosen_row_is_shown_with_its_test_score(tmp_path: Path) -> None:
    """The HParams tab shows a curve's last point: the chosen row's, although later rows test better."""
    shown, sent = tensorboard.TrialWriter(tmp_path), []
    for epoch, (valid, test) in enumerate([(0.4, 0.5), (0.6, 0.3), (0.5, 0.9)], start=1):
        scores = {"probe/factors/score": test, "probe/factors/score_valid": valid}
        sent.append(ROW | {"step": 8 * epoch} | scores)
        shown.row(sent[-1], metrics_log.best(sent, "probe/factors/score_valid", "max"), "probe/factors/score_valid")
    shown.close()
    assert curve(tmp_path, "chosen/factors/score") == [(8, 0.5), (16, 0.3), (24, 0.3)]
    assert curve(tmp_path, "chosen/factors/score_valid") == [(8, 0.4), (16, 0.6), (24, 0.6)]


def test_points_after_a_restart_replace_earlier_ones(tmp_path: Path) -> None:
    """A worker lost after step 14 resumes from step 8; then the whole trial restarts from step 16."""
    shown = tensorboard.TrialWriter(tmp_path)
    train(tmp_path, 0, 14, loss=1.0)
    shown.steps()
    shown.row(ROW)
    train(tmp_path, 8, 20, loss=2.0)
    shown.steps()
    shown.row(ROW | {"step": 16})
    shown.close()
    again = tensorboard.TrialWriter(tmp_path)
    train(tmp_path, 16, 24, loss=3.0)
    again.steps()
    again.row(ROW | {"step": 24})
    again.close()
    steps = [(2, 1.0), (4, 1.0), (6, 1.0), (8, 1.0), (10, 2.0), (12, 2.0), (14, 2.0), (16, 2.0)]
    assert curve(tmp_path, "train-steps/loss") == [*steps, (18, 3.0), (20, 3.0), (22, 3.0), (24, 3.0)]
    assert curve(tmp_path, "train/loss") == [(8, 3.0), (16, 3.0), (24, 3.0)]


def test_points_after_a_fork_are_dropped(tmp_path: Path) -> None:
    shown = tensorboard.TrialWriter(tmp_path)
    train(tmp_path, 0, 16, loss=1.0)
    shown.steps()
    shown.row(ROW)
    shown.row(ROW | {"step": 16, "loss": 9.0})
    shown.close()
    forked = tensorboard.TrialWriter(tmp_path)
    train(tmp_path, 8, 10, loss=2.0)
    forked.close()
    assert curve(tmp_path, "train/loss") == [(8, 3.0)]
    assert curve(tmp_path, "train-steps/loss")[-2:] == [(8, 1.0), (10, 2.0)]


def test_sounds_and_pictures_of_the_first_pairs(tmp_path: Path) -> None:
    shown = tensorboard.TrialWriter(tmp_path)
    shown.sounds(validate_experiment({"synth": {"duration": 0.5}}), count=2)
    shown.close()
    found = reader(tmp_path)
    assert found.Tags()["images"] == ["sounds/pair_0_log_mel", "sounds/pair_1_log_mel"]
    assert found.Tags()["audio"] == [f"sounds/pair_{pair}_view_{view}" for pair in (0, 1) for view in "ab"]
    for tag, plugin in {"sounds/pair_1_log_mel": "images", "sounds/pair_1_view_b": "audio"}.items():
        about = found.SummaryMetadata(tag)
        assert about.plugin_data.plugin_name == plugin
        assert "views" in about.summary_description


def test_incomplete_line_is_read_when_complete(tmp_path: Path) -> None:
    shown = tensorboard.TrialWriter(tmp_path)
    with (tmp_path / STEPS).open("a") as file:
        file.write('{"step": 2, "lo')
        file.flush()
        shown.steps()
        file.write('ss": 1.5}\n')
    shown.close()
    assert curve(tmp_path, "train-steps/loss") == [(2, 1.5)]


# --- the sweep --------------------------------------------------------------------------------------------------------


SEARCH = {"pairs.delta": {"grid": [0.05, 0.25]}, "augment": {"grid": [[], [{"kind": "fade"}]]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep without trials yet."""
    experiment = validate_experiment({"search": SEARCH})
    (tmp_path / "run.json").write_text(json.dumps({"experiment": experiment.plain()}))
    return tmp_path


@pytest.fixture
def ends(folder: Path) -> Callable[..., None]:
    """Record that a trial has ended, as the live table does."""
    entries: dict[str, Any] = {}

    def end(name: str, score: float, values: dict[str, Any], status: str = "finished") -> None:
        (folder / "trials" / name).mkdir(parents=True, exist_ok=True)
        (folder / "trials" / name / "rows.jsonl").write_text(
            json.dumps(ROW | {"probe/factors/score": score, "probe/factors/score_valid": score / 2}) + "\n"
        )
        entries[name] = {"name": name, "values": values, "status": status}
        (folder / "trials.json").write_text(json.dumps(list(entries.values())))

    return end


def hparams(run: Path, tag: str) -> bytes:
    return reader(run).SummaryMetadata(tag).plugin_data.content


def test_hparams_of_values_scores_and_ends(folder: Path, ends: Callable[..., None]) -> None:
    sweep = tensorboard.SweepWriter(folder, validate_experiment({"search": SEARCH}))
    values = {"pairs.delta": 0.05, "augment": [{"kind": "fade"}]}
    sweep.begin("000", {"pairs.delta": 0.25, "augment": []})
    sweep.end("000", succeeded=False)
    sweep.begin("000", values)  # a retry, which replaces the first attempt
    ends("000", 0.6, values)
    sweep.end("000", succeeded=True)
    sweep.close()
    trial = folder / "trials" / "000"
    start = metadata.parse_session_start_info_plugin_data(hparams(trial, metadata.SESSION_START_INFO_TAG))
    assert start.hparams["pairs.delta"].number_value == 0.05
    assert start.hparams["augment"].string_value == "fade"
    end = metadata.parse_session_end_info_plugin_data(hparams(trial, metadata.SESSION_END_INFO_TAG))
    assert end.status == api_pb2.STATUS_SUCCESS
    space = metadata.parse_experiment_plugin_data(
        hparams(folder / "trials" / tensorboard.SWEEP, metadata.EXPERIMENT_TAG)
    )
    kinds = {info.name: info.type for info in space.hparam_infos}
    assert kinds == {"pairs.delta": api_pb2.DATA_TYPE_FLOAT64, "augment": api_pb2.DATA_TYPE_STRING}
    assert [info.name.tag for info in space.metric_infos] == [
        "chosen/factors/score",
        "chosen/factors/score_valid",
        "train/loss",
    ]


def test_sweep_curves_continue_after_a_resume(folder: Path, ends: Callable[..., None]) -> None:
    experiment, own = validate_experiment({"search": SEARCH}), folder / "trials" / tensorboard.SWEEP
    for number, score in enumerate([0.6, 0.5, 0.7]):
        sweep = tensorboard.SweepWriter(folder, experiment)  # new, as after a resume
        ends(f"00{number}", score, {"pairs.delta": 0.05})
        sweep.end(f"00{number}", succeeded=True)
        sweep.close()
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / "curves.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        tensorboard.write_leaderboard(folder)
    assert curve(own, "all_trials/best") == [(1, 0.6), (2, 0.6), (3, 0.7)]
    assert curve(own, "all_trials/each") == [(1, 0.6), (2, 0.5), (3, 0.7)]
    found = reader(own)
    (leaderboard,) = found.Tensors("all_trials/leaderboard")
    assert "0.700" in leaderboard.tensor_proto.string_val[0].decode()
    assert len(found.Images("all_trials/curves")) == 1


def test_sweep_without_rows_has_no_leaderboard(folder: Path) -> None:
    tensorboard.write_leaderboard(folder)
    assert not (folder / "trials").exists()
