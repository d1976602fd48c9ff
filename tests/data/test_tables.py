"""Tables from spreadsheets and other machines are read whole, or refused with the row and the column."""

import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from doppel_ray.core.errors import ConfigError
from doppel_ray.data.recordings import catalogue, tables
from doppel_ray.data.recordings.tables import read_table
from doppel_ray.probe.tasks import Manifest
from tests.recordings import write_noise

PLAIN = "path,label\na.wav,Bark\nb.wav,Cat\n"


def written(folder: Path, content: str | bytes, name: str = "list.csv") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (PLAIN, "list.csv"),
        (PLAIN, "LIST.CSV"),
        ("\ufeff" + PLAIN, "list.csv"),
        (PLAIN.encode("utf-16"), "list.csv"),
        (PLAIN.replace(",", ";"), "list.csv"),
        ("sep=;\r\n" + PLAIN.replace(",", ";"), "list.csv"),
        ("sep=|\n" + PLAIN.replace(",", "|"), "list.csv"),
        (PLAIN.replace(",", "\t"), "list.tsv"),
        (PLAIN.replace(",", "\t").encode("utf-16"), "list.csv"),
        (PLAIN.replace("\n", "\r\n"), "list.csv"),
        (PLAIN.replace("\n", "\r"), "list.csv"),
        (PLAIN.replace("\n", "\n\n"), "list.csv"),
        (PLAIN.rstrip("\n"), "list.csv"),
        (PLAIN.replace(",", ", "), "list.csv"),
        ('"path","label"\n"a.wav","Bark"\n"b.wav","Cat"\n', "list.csv"),
    ],
)
def test_dialects_of_one_table(tmp_path: Path, content: str | bytes, name: str) -> None:
    found = catalogue.manifest(written(tmp_path, content, name))
    assert (found.paths, found.classes, found.labels) == (("a.wav", "b.wav"), ("Bark", "Cat"), (0, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na.wav,Bark\nb.wav,Cat,loud\n", r"row 2 \(line 3\) has 3 cells, the header 2"),
        ("path,label\na.wav,Bark\nb.wav\n", r"row 2 \(line 3\) has 1 cell, the header 2"),
        ('path,label\na.wav, "Rain, heavy"\n', r"row 1 \(line 2\) has 3 cells.*without a space before"),
        ('path,label\na.wav, "Rain"\n', r"row 1 \(line 2\), column label: a space before the quote"),
        ('path,label\na.wav,"Cat\nb.wav,Dog\n', r"is not CSV: line 3: .*is a quote open"),
        ('path,label\na.wav,"Cat\nb.wav,Dog"\n', r"row 1: label is 'Cat\\nb\.wav,Dog', with a line break"),
        ('path,label\na.wav,"Cat"x\n', r"is not CSV: line 2"),
        ("path,label\na.wav,Cat\0\n", r"line 2 has a zero byte"),
        ("path,label\na.wav,caf\xe9\n".encode("latin-1"), r"is not CSV in UTF-8.*save it as CSV UTF-8"),
        ("path,label,label\na.wav,Cat,Dog\n", r"1 column named more than once in the header: label"),
        ("path,label\na.wav,nan\n", r"row 1: label is 'nan', a missing value"),
        ("path,label\na.wav,Cat\nb.wav,Dog\n./a.wav,Cat\n", r"row 3 is about (\./)?a\.wav, as row 1 is"),
        ("path,label\nC:\\sounds\\a.wav,Cat\n", r"row 1: path is 'C:/sounds/a\.wav', a path of Windows"),
        ("path,label\n\\\\server\\share\\a.wav,Cat\n", r"a path of Windows"),
        ("", r"no column path"),
        ("path,label\na.wav," + "x" * 200_000 + "\n", r"is not CSV: line 2: field larger than field limit"),
    ],
)
def test_faulty_tables_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    """Both readers of manifests refuse what a table has lost, and say where."""
    file = written(tmp_path, content)
    with pytest.raises(ConfigError, match=rf"(?s){file.name}.*{message}"):
        catalogue.manifest(file)
    with pytest.raises(ConfigError, match=rf"(?s){file.name}.*{message}"):
        Manifest(root=file).spec(16000)


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_labels_keep_their_text(tmp_path: Path, name: str) -> None:
    labels = ["007", "1.0", "Rain, heavy", "[red]", "a/b", "1e3", "None", 'say "hi"', "score"]
    paths = [f"{place}.wav" for place in range(len(labels))]
    table = pyarrow.table({"path": paths, "label": labels})
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(table, tmp_path / name)
    else:
        pyarrow.csv.write_csv(table, tmp_path / name)
    found = catalogue.manifest(tmp_path / name)
    assert [found.classes[label] for label in found.labels] == labels


def test_parquet_cells(tmp_path: Path) -> None:
    """NaN and null are empty; lists and bytes are no columns of labels."""
    columns = {"path": ["a.wav", "b.wav"], "label": [float("nan"), None], "audio": [b"RIFF", b""], "tags": [["x"], []]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")
    assert catalogue.manifest(tmp_path / "list.parquet").labels == (catalogue.UNLABELLED,) * 2
    assert read_table(tmp_path / "list.parquet")[0] == ["path", "label"]
    for column in ("audio", "tags"):
        with pytest.raises(ConfigError, match=f"no column {column}; it has path, label"):
            catalogue.manifest(tmp_path / "list.parquet", label_column=column)
    with pytest.raises(ConfigError, match=r"row 1 \(a\.wav\) has no label"):
        Manifest(root=tmp_path / "list.parquet").spec(16000)


def test_large_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Parquet file of kilobytes may hold 1e9 equal rows: their number is known before they are read."""
    monkeypatch.setattr(tables, "MOST_CELLS", 1000)
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a"] * 501, "label": ["b"] * 501}), tmp_path / "list.parquet")
    for file in (tmp_path / "list.parquet", written(tmp_path, "path,label\n" + "a,b\n" * 501)):
        with pytest.raises(ConfigError, match="more than 1,000 cells"):
            read_table(file)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_accents_of_either_form(tmp_path: Path, on_disk: str, in_table: str) -> None:
    """File names and labels are the same in both of Unicode's forms."""
    name, label = "Käuzchen é.wav", "Café"
    write_noise(tmp_path / "Zoo" / unicodedata.normalize(on_disk, name), seconds=0.01)
    other = unicodedata.normalize("NFD" if in_table == "NFC" else "NFC", label)
    rows = f"path,label\nZoo/{unicodedata.normalize(in_table, name)},{unicodedata.normalize(in_table, label)}\n"
    found = catalogue.manifest(written(tmp_path, rows + f"b.wav,{other}\n"))
    assert found.classes == ("Café",)
    assert found.absent() == ["b.wav"]


def test_paths_of_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backslashes, the home folder and absolute paths; a backslash in a file's own name stays."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for file in (tmp_path / "sub" / "a.wav", tmp_path / "home" / "b.wav", tmp_path / "c.wav", tmp_path / "d\\e.wav"):
        write_noise(file, seconds=0.01)
    rows = f"path,label\nsub\\a.wav,x\n~/b.wav,y\n{tmp_path / 'c.wav'},z\nd\\e.wav,z\n"
    found = catalogue.manifest(written(tmp_path, rows))
    assert found.absent() == []
    assert len(found) == 4


def test_tables_of_data_sets_name_the_row(esc50_folder: Path) -> None:
    """The data sets' own tables are read by the same reader."""
    table = esc50_folder / "meta" / "esc50.csv"
    lines = table.read_text().splitlines()
    written(table.parent, "\ufeff" + "\r\n".join(line.replace(",", ";") for line in lines), table.name)
    assert len(catalogue.esc50(esc50_folder)) == 24
    for row, message in (
        (lines[3] + ",more", r"row 3 \(line 4\) has 8 cells, the header 7"),
        (lines[1], r"row 3 is about audio/1-0-A-0\.wav, as row 1 is"),
        ("," + lines[3].split(",", 1)[1], r"row 3 \(1\) has no filename"),
        (lines[3].replace(",1,", f",{'1' * 5000},", 1), r"row 3: fold of .* expected a whole number"),
    ):
        table.write_text("\n".join([*lines[:3], row, *lines[4:]]))
        with pytest.raises(ConfigError, match=message):
            catalogue.esc50(esc50_folder)
