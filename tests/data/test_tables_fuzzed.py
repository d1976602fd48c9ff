"""Whatever bytes a table or a configuration holds, it is read or refused with a ConfigError, in bounded memory.

`DOPPEL_RAY_FUZZ=100000` tries that many inputs of each kind instead of some hundred.
"""

import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.data.recordings import catalogue
from doppel_ray.probe.tasks import Hear, Manifest

INPUTS = int(os.environ.get("DOPPEL_RAY_FUZZ", "60"))
MOST_MEMORY = 512e6
"""Bytes by which the largest memory may grow over all inputs of a test; all inputs are below 1 MB."""

quick = settings(
    max_examples=INPUTS,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TABLE = b'path,label,fold\na.wav,dog,1\nb.wav,cat,2\nc.wav,"Rain, heavy",1\n'
CELLS = st.sampled_from(
    ["a.wav", "007", "nan", '"', '""', ",", ";", "\t", "\r", "\n", "\0", "\\", "~", "/", "é", "9" * 5000]
)
EDITS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "cut", "insert"]), st.binary(max_size=4)), max_size=6
)


@pytest.fixture(autouse=True)
def bounded_memory() -> Any:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY


def changed(data: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    """Return bytes some of which are replaced, inserted, or cut off at the end."""
    for place, edit, new in edits:
        at = place % (len(data) + 1)
        data = data[:at] if edit == "cut" else data[:at] + new + data[at + (len(new) if edit == "set" else 0) :]
    return data


def only_refused(*attempts: Callable[[], object]) -> None:
    """Run each attempt; a ConfigError is the one error it may raise."""
    for attempt in attempts:
        with contextlib.suppress(ConfigError):
            attempt()


def read_all(file: Path) -> None:
    only_refused(
        lambda: catalogue.manifest(file),
        lambda: Manifest(root=file).spec(16000),
        lambda: Manifest(root=file, target="multilabel").spec(16000),
        lambda: Manifest(root=file, target="regression").spec(16000),
    )


@quick
@given(
    content=st.one_of(
        EDITS.map(lambda edits: changed(TABLE, edits)), st.lists(CELLS).map(lambda c: "".join(c).encode()), st.binary()
    )
)
def test_any_csv(tmp_path: Path, content: bytes) -> None:
    for name in ("list.csv", "list.tsv"):
        (tmp_path / name).write_bytes(content)
        read_all(tmp_path / name)


@quick
@given(edits=EDITS)
def test_any_parquet(tmp_path: Path, edits: list[tuple[int, str, bytes]]) -> None:
    file = tmp_path / "list.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.wav", "b.wav"] * 9, "label": ["x", "y"] * 9}), file)
    file.write_bytes(changed(file.read_bytes(), edits))
    read_all(file)


@quick
@given(part=st.sampled_from(["task_metadata.json", "labelvocabulary.csv", "train.json"]), edits=EDITS)
def test_any_hear_task(tmp_path: Path, part: str, edits: list[tuple[int, str, bytes]]) -> None:
    metadata = (
        b'{"embedding_type": "scene", "prediction_type": "multiclass", "split_mode": "trainvaltest", '
        b'"evaluation": ["mAP"]}'
    )
    files = {"task_metadata.json": metadata, "labelvocabulary.csv": b"idx,label\n0,dog\n1,cat\n"}
    files |= dict.fromkeys(("train.json", "valid.json", "test.json"), b'{"a.wav": ["dog"], "b.wav": ["cat"]}')
    (tmp_path / "16000").mkdir(exist_ok=True)
    for name, content in files.items():
        (tmp_path / name).write_bytes(changed(content, edits) if name == part else content)
    only_refused(lambda: Hear(root=tmp_path).spec(16000))


PLAIN = yaml.safe_dump(Experiment().plain()).encode()


@quick
@given(edits=EDITS)
def test_any_configuration(tmp_path: Path, edits: list[tuple[int, str, bytes]]) -> None:
    (tmp_path / "c.yaml").write_bytes(changed(PLAIN, edits))
    only_refused(lambda: read_experiment(tmp_path / "c.yaml", {}))


KEYS = st.sampled_from(
    [
        "probes.tasks",
        "probes.tasks.0",
        "probes.tasks.x.y",
        "pairs.delta",
        "pairs.delta.pitch",
        "search.pairs.delta",
        "generators.0.num_cpus",
        "train",
        "train.epochs",
        "",
        ".",
        "search",
        "search.",
        "source.recordings.root",
        "tune.metric",
    ]
)
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "null",
            "[]",
            "{}",
            "[[",
            "{a: b}",
            "nan",
            ".inf",
            "1e999",
            "9" * 5000,
            "-1",
            "&a [*a]",
            "!!python/x",
            "2024-01-01",
            "{1: 2}",
            "[" * 50,
            "{grid: [1]}",
            "{uniform: [1]}",
            "{? [a] : b}",
        ]
    ),
)


@quick
@given(overrides=st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_override(overrides: dict[str, str]) -> None:
    only_refused(lambda: read_experiment(None, overrides))
