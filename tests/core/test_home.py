"""`~` is the home folder in every path that an option or a file takes."""

import argparse
from pathlib import Path

import pytest

from doppel_ray.analyze.sources import SourcesConfig
from doppel_ray.analyze.spaces import SpacesConfig
from doppel_ray.config.experiment import read_experiment
from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.files import cache_folder
from doppel_ray.hear import load_model
from doppel_ray.probe.tasks.manifest import Manifest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_home_in_settings(home: Path) -> None:
    (home / "a.yaml").write_text("run: {dir: ~/runs}\nsource: {recordings: {root: ~/sounds}}\ntrain: {init: ~/init}\n")
    experiment = read_experiment(home / "a.yaml", {"probes.root": "~/probes"})
    assert experiment.run.dir == home / "runs"
    assert experiment.source.recordings.root == home / "sounds"
    assert experiment.train.init == home / "init"
    assert experiment.probes.root == home / "probes"
    assert Manifest(root=Path("~/table.csv")).root == home / "table.csv"
    assert SourcesConfig(recordings=Path("~/r")).recordings == home / "r"
    assert SpacesConfig(checkpoint=Path("~")).checkpoint == home


def test_home_in_options(home: Path) -> None:
    parser = cli.Parser("x", "")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", type=cli.folder_or_url)
    parser.add_argument("files", nargs="*", type=Path)
    args = parser.parse(["~/a.wav", "b.wav", "--out=~/e.csv", "--resume=~/runs/a"])
    assert args == argparse.Namespace(
        out=home / "e.csv", files=[home / "a.wav", Path("b.wav")], resume=str(home / "runs" / "a"), overrides={}
    )
    assert parser.parse(["--resume=s3://bucket/~/a"]).resume == "s3://bucket/~/a"
    assert parser.parse(["--out=a/~/b"]).out == Path("a/~/b")  # only at the start
    with pytest.raises(ConfigError, match=r"--out is '~nobody-here/x': ~nobody-here has no home folder"):
        parser.parse(["--out=~nobody-here/x"])
    with pytest.raises(ConfigError, match="~nobody-here has no home folder"):
        parser.parse(["--resume=~nobody-here/x"])
    with pytest.raises(ConfigError, match=r"run\.dir is '~nobody-here/x': ~nobody-here has no home folder"):
        read_experiment(None, {"run.dir": "~nobody-here/x"})


def test_home_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPPEL_RAY_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    with pytest.raises(ConfigError, match=str(home / "none")):
        load_model("~/none")


def test_brackets_and_colons_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Rich would take them for markup, and drop or refuse them."""
    cli.console().print("runs/[red]a b[/x] :smile:")
    assert capsys.readouterr().out == "runs/[red]a b[/x] :smile:\n"
    assert cli.quoted("runs/a [b]") == "'runs/a [b]'"
