"""The data sets of the probe tasks: address, checksum, licence and contents of each archive.

Nothing here is guessed: an unknown value is None, and `fetch` reports it. Provenance:

- Speech Commands: the checksum and size that torchaudio and TensorFlow Datasets verify.
- NSynth: the MD5 that HEAR's own preprocessing verifies, and for test also the bucket's ETag; the size of valid is
  the published total less train and test.
- UrbanSound8K: the MD5 that soundata verifies.
- ESC-50: its repository at one commit; the checksum of GitHub's archive as recorded by others.
- VIVAE: the address that several public downloaders use; the licence from a copy of the record's description.
- HEAR: the names in Zenodo's record 6332517 (HEAR 2021.3) as public downloaders list them; only the name of
  NSynth Pitch 5h is inferred from HEAR's rule. The record's checksums were not available.

Sizes serve to check free disk space early; the server's value takes precedence.
"""

from collections.abc import Iterator
from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Archive:
    """One file to download.

    Attributes:
        name: of the file.
        address: its URL; None: it must be downloaded by hand.
        holds: a path, relative to the data set's folder, that exists once the archive is unpacked.
        unpacked: approximate bytes of its files.
        recordings: published number of audio files.
        checksum: "md5:..." or "sha256:..."; None: no published one was found.
        size: bytes of the archive, may be rounded; None: unknown.
        split: its split, in a data set with an archive for each.
    """

    name: str
    address: str | None
    holds: str
    unpacked: int
    recordings: int
    checksum: str | None = None
    size: int | None = None
    split: str = ""


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        title: its name.
        page: address of its description.
        licence: name and address of its licence.
        archives: that make it up.
        note: what to know before downloading.
        by_hand: instructions for archives without an address; `{file}` is where each must be put.
    """

    title: str
    page: str
    licence: str
    archives: tuple[Archive, ...]
    note: str = ""
    by_hand: str = ""


ESC50 = Dataset(
    title="ESC-50 (Piczak, 2015)",
    page="https://github.com/karolpiczak/ESC-50",
    licence="CC BY-NC 3.0, https://creativecommons.org/licenses/by-nc/3.0/ (the clips of ESC-10: CC BY; see LICENSE)",
    archives=(
        Archive(
            name="ESC-50.zip",
            # A commit, because the archive of a branch changes.
            address="https://github.com/karolpiczak/ESC-50/archive/33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6.zip",
            holds="meta/esc50.csv",
            unpacked=2000 * 441_044,
            recordings=2000,
            checksum="sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
            size=645_832_161,
        ),
    ),
)

URBANSOUND8K = Dataset(
    title="UrbanSound8K (Salamon, Jacoby and Bello, 2014)",
    page="https://urbansounddataset.weebly.com/urbansound8k.html",
    licence="CC BY-NC 3.0, https://creativecommons.org/licenses/by-nc/3.0/",
    archives=(
        Archive(
            name="UrbanSound8K.tar.gz",
            address="https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
            holds="metadata/UrbanSound8K.csv",
            unpacked=7 * GB,
            recordings=8732,
            checksum="md5:9aa69802bbf37fb986f71ec1483a196e",
            size=6_023_741_708,
        ),
    ),
)

VIVAE = Dataset(
    title="VIVAE (Holz, Larrouy-Maestri and Poeppel, 2020)",
    page="https://zenodo.org/records/4066235",
    licence="CC BY-NC 4.0, https://creativecommons.org/licenses/by-nc/4.0/ (see the page: some cite CC BY-NC-SA 4.0)",
    archives=(
        Archive(
            name="VIVAE.zip",
            address="https://zenodo.org/records/4066235/files/VIVAE.zip",
            holds="full_set",
            unpacked=GB // 4,  # cries of a second or two at 44.1 kHz
            recordings=1085 + 480,
        ),
    ),
    note="It holds the full set (1,085 recordings) and, again, the core set (480 of them).",
)

SPEECH_COMMANDS = Dataset(
    title="Speech Commands v2 (Warden, 2018)",
    page="https://arxiv.org/abs/1804.03209",
    licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    archives=(
        Archive(
            name="speech_commands_v0.02.tar.gz",
            address="https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
            holds="testing_list.txt",
            unpacked=105_829 * 32_044,
            recordings=105_829 + 6,  # six of them background noises
            checksum="sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            size=2_428_923_189,
        ),
    ),
)


def _nsynth(split: str, notes: int, md5: str, size: int) -> Archive:
    name = f"nsynth-{split}.jsonwav.tar.gz"
    return Archive(
        name=name,
        address=f"https://storage.googleapis.com/download.magenta.tensorflow.org/datasets/nsynth/{name}",
        holds=f"nsynth-{split}/examples.json",
        unpacked=notes * 129_000,  # four seconds at 16 kHz, and a share of the index
        recordings=notes,
        checksum=f"md5:{md5}",
        size=size,
        split=split,
    )


NSYNTH = Dataset(
    title="NSynth (Engel et al., 2017)",
    page="https://magenta.tensorflow.org/datasets/nsynth",
    licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    archives=(
        _nsynth("train", 289_205, "fde6665a93865503ba598b9fac388660", 23_815_298_079),
        _nsynth("valid", 12_678, "87e94a00a19b6dbc99cf6d4c0c0cae87", 1_069_000_000),
        _nsynth("test", 4096, "5e6f8719bf7e16ad0a00d518b78af77d", 349_501_546),
    ),
    note="Train is most of it; --splits valid,test leaves it out.",
)


def _hear() -> Iterator[tuple[str, Dataset]]:
    """Yield HEAR's preprocessed scene tasks, at 48 kHz (free) and at 16 kHz (requester pays).

    Turian et al., PMLR 176 (2022), and hearbenchmark.com/hear-tasks.html: clips, seconds of each, and addresses.
    """
    hear = (
        ("esc50", "ESC-50", "esc50-v2.0.0-full", 2000, 5.0),
        ("libricount", "LibriCount", "libricount-v1.0.0-hear2021-full", 5720, 5.0),
        ("crema_d", "CREMA-D", "tfds_crema_d-1.0.0-full", 7438, 5.0),
        ("nsynth_pitch_5h", "NSynth Pitch 5h", "nsynth_pitch-v2.2.3-5h", 5000, 4.0),
        ("vocal_imitation", "Vocal Imitations", "vocal_imitation-v1.1.3-full", 5601, 11.26),
        ("fsd50k", "FSD50K", "fsd50k-v1.0-full", 51_185, 7.6),
    )
    page = "https://hearbenchmark.com/hear-tasks.html"
    licence = "each data set's own, listed in https://zenodo.org/records/5887964/files/LICENSE.txt"
    for name, title, version, clips, seconds in hear:
        task = f"hear_{name}"

        def archive(file: str, rate: int, address: str | None, clips: int = clips, seconds: float = seconds) -> Archive:
            samples = round(clips * seconds * rate)
            return Archive(file, address, holds="task_metadata.json", unpacked=2 * samples, recordings=clips)

        file = f"hear2021-{version}-48000.tar.gz"
        yield (
            task,
            Dataset(
                title=f"{title}, as HEAR prepared it, at 48 kHz",
                page=page,
                licence=licence,
                archives=(archive(file, 48_000, f"https://zenodo.org/records/6332517/files/{file}"),),
                note=f"48 kHz is the only free rate; {task}_16k explains how to get 16 kHz, a third of the size.",
            ),
        )
        yield (
            f"{task}_16k",
            Dataset(
                title=f"{title}, as HEAR prepared it, at 16 kHz",
                page=page,
                licence=licence,
                archives=(archive(f"{task}_16k.tar.gz", 16_000, None),),
                by_hand=(
                    "HEAR's files at 16 kHz are in requester-pays buckets, which need an account with Google or "
                    f"Amazon:\n  1. find the archive of {version} at 16000 Hz with\n"
                    "       gcloud storage ls --billing-project=PROJECT 'gs://hear2021-archive/tasks/**'\n"
                    "     (or below s3://hear2021-archive/tasks/ with --request-payer requester),\n"
                    "  2. copy it to {file},\n"
                    "  3. run this command again, which unpacks it.\n"
                    f"Or fetch {task}: the same at 48 kHz, without an account."
                ),
            ),
        )


DATASETS: dict[str, Dataset] = {
    "esc50": ESC50,
    "urbansound8k": URBANSOUND8K,
    "speech_commands": SPEECH_COMMANDS,
    "nsynth": NSYNTH,
    "vivae": VIVAE,
    **dict(_hear()),
}
"""Task -> data set that can be fetched."""

PARTS: dict[str, str] = {"esc10": "esc50", "sc09": "speech_commands"}
"""Tasks on a part of another task's recordings."""
