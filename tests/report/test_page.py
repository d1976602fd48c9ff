"""The page and the figures, from a run's folder."""

import csv
import math
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from doppel_ray.core.errors import ConfigError
from doppel_ray.report import study, writer
from doppel_ray.report.__main__ import main
from doppel_ray.report.figures import scores
from doppel_ray.runs import reader
from tests.made_runs import MadeTrial, make_run, row

CHAIN = [{"kind": "high_pass"}, {"kind": "pitch_shift"}]


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def published(folder: Path) -> tuple[Page, str]:
    """Write a report; return the page and the terminal's text."""
    console = Console(record=True, width=160, file=(folder / "out.txt").open("w"))
    writer.publish(folder, console)
    return Page(folder / "report.html"), console.export_text()


def grid(folder: Path) -> Path:
    """δ with and without augmentations, three seeds each."""
    trials: dict[str, MadeTrial] = {}
    for delta in (0.02, 0.1, 0.5):
        for augment in ([], CHAIN):
            for seed in range(3):
                score = 0.6 + 0.05 * seed - abs(math.log10(delta / 0.1)) / 10
                values = {"pairs.delta": delta, "augment": augment, "run.seed": seed}
                trials[f"{len(trials):03d}"] = (values, "finished", [row(1, score), row(2, score + 0.1)])
    return make_run(folder, trials, plan=["a trial needs 1.26 CPU"], nodes=["node-1: 2 CPUs"])


@pytest.mark.slow
def test_import_of_the_writer_is_light() -> None:
    code = "import sys, doppel_ray.report.writer; print({'matplotlib', 'jinja2', 'torch', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.slow
def test_warnings_are_printed_and_on_the_page(tmp_path: Path) -> None:
    trials: dict[str, MadeTrial] = {"000": ({"pairs.delta": 0.1}, "finished", [row(1, 0.5)])}
    page, text = published(make_run(tmp_path / "run", trials, warnings=["4 of 9 recordings are tested on"]))
    assert "warning: 4 of 9 recordings are tested on" in " ".join(text.split())
    assert "Warning (run): 4 of 9 recordings are tested on." in page.text


def test_publish_prints_the_result_and_writes_all_files(folder: Path) -> None:
    page, text = published(folder)
    for part in (
        "mel statistics",
        "same encoder, untrained",
        "stopped early",
        "best: 000_delta=0.02, epoch 2",
        "epoch_0002",
        "report.html",
        "tensorboard --logdir",
    ):
        assert part in text
    for part in ("Leaderboard", "Score against δ", "Learning curves", "final", "--run.name sweep-000_delta=0.02"):
        assert part in page.text
    for name in ("leaderboard", "trials", "rows", "figures/curves", "figures/score_against_pairs.delta"):
        assert (folder / f"{name}.csv").stat().st_size > 0
    assert (folder / "figures" / "score_against_pairs.delta.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_page_names_the_statistics_of_the_untrained_encoder(tmp_path: Path) -> None:
    old = published(make_run(tmp_path / "old", {"000": ({}, "finished", [row(1, 0.6)])}))[0].text
    assert "The untrained encoder has batch norms at mean 0 and variance 1, as in older versions" in old
    new = {"probe/untrained_pairs": 256}
    made = make_run(tmp_path / "new", {"000": ({}, "finished", [row(1, 0.6, **new)])})
    assert "The untrained encoder has batch-norm statistics of 256 of its run’s pairs" in published(made)[0].text


@pytest.mark.slow
def test_deleted_best_checkpoint_is_not_offered(folder: Path) -> None:
    (folder / "trials" / "000_delta=0.02" / "checkpoints" / "epoch_0002").rmdir()
    page, text = published(folder)
    assert "best checkpoint: checkpoints/epoch_0002 was deleted (train.keep)" in text
    assert "checkpoint: checkpoints/epoch_0002 was deleted (train.keep)" in page.text
    assert "epoch_0002" not in (folder / "leaderboard.csv").read_text()


@pytest.mark.slow
def test_page_loads_and_runs_nothing(folder: Path) -> None:
    page, _ = published(folder)
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in page.tags}
    outside = [value for _, attributes in page.tags for value in attributes.values() if value and "://" in value]
    assert all(value.startswith("http://www.w3.org/") for value in outside), "names of XML, which are not fetched"
    assert "url(http" not in (folder / "report.html").read_text()


@pytest.mark.slow
def test_content_of_a_folder_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script> $\\frac{$ [bold] [/] & \x07'
    trials: dict[str, MadeTrial] = {
        "000<b>": ({"pairs.delta": {"<i>": 0.1}, evil: "a"}, evil, [row(1, 0.6, checkpoint=evil)]),
        "001": ({"pairs.delta": 0.1, evil: "b"}, "finished", [row(1, 0.5)]),
    }
    folder = make_run(
        tmp_path / "<img>", trials, command=evil, plan=[evil], nodes=[evil], commit=evil, machine={evil: 1}
    )
    page, text = published(folder)
    assert not {"script", "img", "i"} & {tag for tag, _ in page.tags}
    assert '<script>alert("x")</script>' in page.text
    assert "script> $\\frac{$ [bold] [/] &" in text


@pytest.mark.slow
def test_figures_of_numeric_and_other_keys(tmp_path: Path) -> None:
    folder = grid(tmp_path / "grid")
    page, _ = published(folder)
    names = {attributes["id"] for tag, attributes in page.tags if tag == "figure"}
    assert names == {"score_against_pairs.delta", "score_by_augment", "parallel", "curves"}, "all cost the same"
    with (folder / "figures" / "score_against_pairs.delta.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    assert {point["series"] for point in points} == {"augment none", "augment high_pass+pitch_shift"}
    assert {point["interval_over"] for point in points} == {"seeds"}
    drawn = ElementTree.parse(folder / "figures" / "score_against_pairs.delta.svg")
    words = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"δ", "0.02", "0.1", "0.5", "augment none", "mel statistics"} <= words
    for part in ("a trial needs 1.26 CPU", "node-1: 2 CPUs", "Student’s t over the seeds"):
        assert part in page.text


def test_limits_of_a_figure_include_every_interval(tmp_path: Path) -> None:
    """Lines are drawn side by side, which must not hide them from the axes."""
    subject = study.study([reader.read(grid(tmp_path / "grid"))])
    axis = scores.against(subject, "pairs.delta").picture.axes[0]
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert left < 0.02 < 0.5 < right < 5
    found = [score for setting in subject.settings if (score := setting.score(subject.reported))]
    assert bottom < min(score.low or 0 for score in found) < max(score.high or 0 for score in found) < top


def test_ids_of_a_page_are_unique(tmp_path: Path) -> None:
    page, _ = published(grid(tmp_path / "grid"))
    found = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(found) == len(set(found))


def test_delta_by_parameter_group_is_not_numeric(tmp_path: Path) -> None:
    deltas: list[Any] = [0.1, {"pitch": 0.05, "timbre": 0.25}]
    trials = {f"00{n}": ({"pairs.delta": delta}, "finished", [row(1, 0.6)]) for n, delta in enumerate(deltas)}
    folder = make_run(tmp_path / "groups", trials)
    published(folder)
    assert (folder / "figures" / "score_by_pairs.delta.svg").is_file()


def test_page_of_a_run_without_trials(tmp_path: Path) -> None:
    page, text = published(make_run(tmp_path / "begun", {}))
    assert "No trial has started yet" in page.text
    assert "no trial has reported probe/factors/score yet" in text


def test_missing_parts_have_a_section(folder: Path) -> None:
    assert "What is missing" not in published(folder)[0].text
    (folder / "run.json").write_text("{")
    page, text = published(folder)
    assert "run.json is damaged" in page.text
    assert "missing: " in text


@pytest.mark.slow
def test_page_of_several_runs(tmp_path: Path, folder: Path) -> None:
    other = grid(tmp_path / "grid")
    assert main([str(folder), str(other)]) == 0
    page = Page(folder / "comparison" / "report.html")
    for part in ("sweep, grid", "How the runs differ", "sweep: 000_delta=0.02", "grid: 000"):
        assert part in page.text
    assert not (folder / "report.html").exists(), "a run's own page is not touched"
    assert main([str(folder), str(other)]) == 0, "its own report is overwritten"


def test_page_of_another_name_is_alone(tmp_path: Path, folder: Path) -> None:
    assert main([str(folder), "--out", str(tmp_path / "pages" / "mine.html")]) == 0
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["mine.html"]
    links = [attributes.get("href") or "" for _, attributes in Page(tmp_path / "pages" / "mine.html").tags]
    assert not [link for link in links if link and not link.startswith("#")], "no link to files that are not there"


def test_other_files_are_not_overwritten(tmp_path: Path, folder: Path) -> None:
    (folder / "report.html").write_text("<html>mine</html>")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("...")
    for out in ([], ["--out", str(tmp_path / "papers")]):
        with pytest.raises(ConfigError, match="not overwritten"):
            main([str(folder), *out])
    assert (folder / "report.html").read_text() == "<html>mine</html>"
    assert [path.name for path in (tmp_path / "papers").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_page_of_200_trials_takes_seconds(tmp_path: Path) -> None:
    """Takes 8 to 20 seconds of one core: 10,000 rows, as SVG and PNG."""
    trials: dict[str, MadeTrial] = {}
    for n in range(200):
        values = {"pairs.delta": 0.01 * 1.02**n, "optim.lr": 1e-4 * (1 + n * 7 % 100), "encoder.kind": f"kind_{n % 3}"}
        trials[f"{n:03d}"] = (values, "finished", [row(e, 0.5 + (n % 17) * e / 5000) for e in range(1, 51)])
    folder = make_run(tmp_path / "big", trials)
    began = time.process_time()
    page, _ = published(folder)
    assert time.process_time() - began < 40
    assert "160 more are in leaderboard.csv" in page.text
    assert len(re.findall("<tr", (folder / "report.html").read_text())) < 120
    assert (folder / "report.html").stat().st_size < 5e6
    with (folder / "rows.csv").open() as file:
        assert sum(1 for _ in file) == 10_001
