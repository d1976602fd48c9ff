"""The command line: all available analyses in one folder, or a refusal before any work."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from doppel_ray.analyze.__main__ import COMMANDS, main
from doppel_ray.analyze.sources import Sources, SourcesConfig
from doppel_ray.core.errors import ConfigError
from doppel_ray.data.frontends import FrontendConfig
from doppel_ray.data.pairs import PairMaker, PairsConfig
from doppel_ray.synth import SynthConfig
from tests.recordings import write_esc50
from tests.test_hear import KINDS, write_checkpoint

QUICK = ("--architectures", "voice", "--n", "32", "--delta", "0.05", "0.5", "--synth.compile", "false")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recordings, and a checkpoint that hears them."""
    root = tmp_path_factory.mktemp("given")
    recordings = write_esc50(root / "recordings", folds=2, classes=3, takes=8)
    return {"recordings": recordings, "checkpoint": write_checkpoint(root / "checkpoint", KINDS["mel"])}


def run(*arguments: object) -> int:
    return main([*map(str, arguments)])


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_all_runs_every_available_analysis(
    given: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "analysis"
    recorded = ("--recordings", given["recordings"], "--checkpoint", given["checkpoint"])
    task = ("--task", "esc50", "--root", given["recordings"])
    assert run("all", *QUICK, "--layers", 1, 2, *recorded, *task, "--out", out) == 0
    about: dict[str, Any] = json.loads((out / "analysis.json").read_text())
    spaced = [f"{name}_{space}" for name in ("similarity", "pca", "nearest") for space in ("mel", "checkpoint")]
    assert set(about["analyses"]) == {*spaced, "spectral", "uncertainty"}
    assert about["left_out"] == {}
    assert sorted(file.name for file in out.iterdir()) == about["files"]
    assert {Path(name).stem for name in about["files"] if name.endswith(".png")} == {
        Path(name).stem for name in about["files"] if name.endswith(".svg")
    }
    assert about["settings"]["sources"]["delta"] == [0.05, 0.5]
    table = rows(out / "spectral.csv")
    assert len(table) == 4 + 1, "each number of layers and δ, and the recordings' halves"
    assert [float(row["distance"]) for row in table[:4]] == sorted(float(row["distance"]) for row in table[:4])
    assert [row["layers"] for row in rows(out / "uncertainty.csv")] == ["1", "1", "2", "2", "1", "2"]
    assert 0.0 <= float(rows(out / "uncertainty.csv")[0]["relative"]) <= 1.0
    *_, nearest, last = capsys.readouterr().out.splitlines()
    assert nearest.startswith("nearest to the recordings by spectral descriptors: voice at δ = ")
    assert last == str(out)


def test_all_reports_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("all", *QUICK, "--out", tmp_path / "out") == 0
    about = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert set(about["analyses"]) == {"similarity_mel", "pca_mel"}
    assert set(about["left_out"]) == {"spectral", "nearest", "uncertainty"}
    assert "left out: spectral: it compares with recordings" in capsys.readouterr().out


@pytest.mark.slow
def test_repeated_analysis_and_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("similarity", *QUICK, "--out", out)
    assert run(*arguments) == 0
    first = (out / "similarity_mel.csv").read_text()
    with pytest.raises(ConfigError, match="--overwrite"):
        run(*arguments)
    assert run(*arguments, "--overwrite") == 0
    assert (out / "similarity_mel.csv").read_text() == first
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="a folder with other files"):
        run(*arguments, "--overwrite")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_analysis_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        run(name, "--help")
    assert done.value.code == 0
    help_text = capsys.readouterr().out
    assert f"python -m doppel_ray.analyze {name}" in help_text
    assert "--delta" in help_text
    assert "--synth.sample_rate" in help_text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("similarty", "similarity"),
        ("similarity --delta 0.1 1.5", "--delta.1 is '1.5'"),
        ("similarity --architectures voice organ", "expected voice, voicefm, parametric"),
        ("similarity --layers 0", "--layers.0 is '0'"),
        ("similarity --n 3", "--n is '3'"),
        ("similarity --space checkpoint", "give it with --checkpoint"),
        ("similarity --checkpoint nowhere", "nowhere holds no checkpoint"),
        ("similarity --device tpu", "--device tpu cannot be used"),
        ("similarity --colour red", "--colour: unknown option"),
        ("spectral", "give their folder with --recordings DIR"),
        ("nearest --recordings nowhere", "--recordings: nowhere: there is no such folder"),
        ("spectral --recordings empty", "--recordings: empty: no audio files"),
        ("spectral --recordings damaged", "1 of 2 recordings cannot be used"),
        ("spectral --recordings whole --layers 2", "expected 1 among them"),
        ("uncertainty", "there is no classifier"),
        ("uncertainty --task esc10 --root nowhere", "give --checkpoint DIR"),
        ("uncertainty --task esc10 --classifier ast", "expected one of them"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    arguments: str, message: str, given: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = next((given["recordings"] / "audio").iterdir())
    for folder in ("empty", "damaged", "whole"):
        (tmp_path / folder).mkdir()
    for folder in ("damaged", "whole"):
        (tmp_path / folder / "sound.wav").write_bytes(whole.read_bytes())
    (tmp_path / "damaged" / "none.wav").write_bytes(b"no sound")
    with pytest.raises(ConfigError) as refused:
        run(*arguments.split(), "--out", "out")
    assert message in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_silent_recordings_are_refused_or_skipped(given: dict[str, Path], tmp_path: Path) -> None:
    import soundfile

    folder = tmp_path / "sounds"
    folder.mkdir()
    for number, file in enumerate(sorted((given["recordings"] / "audio").iterdir())):
        (folder / f"{number}.wav").write_bytes(file.read_bytes())
    soundfile.write(folder / "silent.wav", [0.0] * 16000, 16000)
    arguments = ("spectral", *QUICK, "--n", 64, "--recordings", folder, "--out", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"silent\.wav: silent; --unreadable skip"):
        run(*arguments)
    assert run(*arguments, "--unreadable", "skip") == 0
    assert "silent.wav" in str(json.loads((tmp_path / "out" / "analysis.json").read_text())["unreadable"])


@pytest.mark.parametrize("layers", [1, 3])
def test_analysed_pairs_were_not_trained_on(layers: int) -> None:
    """Not even with the same seed."""
    synth = SynthConfig(duration=0.1, compile=False)
    config = SourcesConfig(architectures=("voice",), delta=(0.25,), layers=(layers,), n=32, seed=0)
    (pairs,) = Sources(config, synth)
    trained = PairMaker(synth, PairsConfig(delta=0.25, layers=layers), FrontendConfig(), (), seed=0)
    sounds, *_ = trained.sounds(torch.arange(64))
    distances = torch.cdist(pairs.sounds.flatten(0, 1).double(), sounds.flatten(0, 1).double()).amin(dim=1)
    assert (distances < 0.01).double().mean() < 0.1, "but for what is nearly silent"
    again, *_ = trained.sounds(pairs.items)
    torch.testing.assert_close(pairs.sounds, again)
