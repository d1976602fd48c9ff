"""The base classes of probe tasks, which are entries of `probes.tasks`."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Names, Section
from doppel_ray.data import audio_files
from doppel_ray.data.audio_folders import printable
from doppel_ray.probe.protocols import NamedProtocol
from doppel_ray.probe.sounds import Cached, Recorded
from doppel_ray.probe.task import TaskDataset, TaskSpec
from doppel_ray.probe.tasks.listing import Listing, gaps

log = logging.getLogger(__name__)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Name the task in a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"probes.tasks, {name}: {error}") from None


Unreadable = Literal["refuse", "skip"]


class Task(Section, ABC):
    """A probe task, as an entry of `probes.tasks`."""

    kind: str
    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.+-]+$")
    """Name in its scores, `probe/<name>/<metric>`; empty: the kind, or for hear and manifest the name of root."""
    protocol: NamedProtocol | None = None
    """Protocol of this task; null: probes.protocol."""
    metrics: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Metrics that replace the source's own; the first is the score of the task."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("name"):
            return data
        name = cls._default_name(data) or data.get("kind") or cls.model_fields["kind"].default
        return data | {"name": re.sub(r"[^A-Za-z0-9_.+-]+", "-", str(name))}

    @classmethod
    def _default_name(cls, data: dict[str, Any]) -> str:
        """Return a name from the plain data of an entry; "" for its kind."""
        return ""

    def __str__(self) -> str:
        return self.name

    def with_defaults(self, root: Path | None, unreadable: Unreadable, test_folds: Names | None) -> Self:
        """Return a copy with the values of `probes` for the settings that the entry leaves out."""
        return self

    @abstractmethod
    def check(self, sample_rate: int = 16000, cache: float = 0.0) -> None:
        """Check the data before anything starts, and log what is odd about it.

        Recordings are decoded whole, because a header does not tell that a file is cut short or damaged inside.

        Args:
            sample_rate: of the sounds that will be read, in Hz.
            cache: GB of decoded recordings to keep on disk for the probes, as in `load`; 0: none.

        Raises:
            ConfigError: the data is missing, unreadable or incomplete.
        """

    @abstractmethod
    def spec(self, sample_rate: int) -> TaskSpec:
        """Return targets, splits and metrics; opens no audio.

        Raises:
            ConfigError: the data is missing or incomplete.
        """

    def files(self, sample_rate: int) -> tuple[Path, ...]:
        """Return the recordings that it reads, none if its sounds are rendered; opens no audio.

        Raises:
            ConfigError: as `spec`.
        """
        return ()

    @abstractmethod
    def load(self, sample_rate: int, cache: float = 0.0) -> TaskDataset:
        """Return sounds and spec; opens no audio.

        Args:
            sample_rate: of the sounds, in Hz.
            cache: GB of decoded recordings to keep on disk, for all tasks together; 0: none.

        Raises:
            ConfigError: as `spec`.
        """


class RecordedTask(Task):
    """A task whose sounds are files."""

    root: Path | None = None
    """Folder of the recordings (for a manifest, the table); null: probes.root."""
    unreadable: Unreadable | None = None
    """What to do about a file that cannot be read; null: probes.unreadable."""
    test_folds: Names | None = Field(default=None, min_length=1)
    """Folds to test on; null: probes.test_folds. A data set with a test split has no folds."""

    @abstractmethod
    def listing(self, root: Path, sample_rate: int) -> Listing:
        """List the recordings in `root`, for sounds at `sample_rate` Hz; opens no audio.

        Raises:
            ConfigError: the folder is missing or has another format.
        """

    def with_defaults(self, root: Path | None, unreadable: Unreadable, test_folds: Names | None) -> Self:
        defaults = {"root": root, "unreadable": unreadable, "test_folds": test_folds}
        return self.model_copy(update={name: value for name, value in defaults.items() if getattr(self, name) is None})

    def check(self, sample_rate: int = 16000, cache: float = 0.0) -> None:
        with naming(self.name):
            listing = self._listed(sample_rate)
            listing.spec(self.test_folds, self.metrics)  # refuses what needs no audio
            broken = audio_files.scan(listing.paths)  # what headers tell, which is quick
            if not broken or self.unreadable == "skip":
                broken |= self._undecodable(listing, sample_rate, cache)
            named = [f"{printable(path)}: {reason}" for path, reason in broken.items()]
            rest = listing.without(broken)
            if not len(rest):
                raise ConfigError(f"none of the {len(listing)} files can be read, first {named[0]}")
            if broken and self.unreadable != "skip":
                shown = "\n  ".join(named[:10]) + (f"\n  and {len(named) - 10} more" if len(named) > 10 else "")
                raise ConfigError(
                    f"{len(broken)} of {len(listing)} files cannot be read:\n  {shown}\n"
                    "mend them, or leave them out with --probes.unreadable skip"
                )
            warnings = [f"{len(broken)} of {len(listing)} files are left out, first {named[0]}"] if broken else []
            warnings += [listing.skipped] if listing.skipped else []
            for line in warnings + gaps(rest.spec(self.test_folds, self.metrics)):
                log.warning("probes.tasks, %s: %s", self.name, line)

    def files(self, sample_rate: int) -> tuple[Path, ...]:
        with naming(self.name):
            return self._listed(sample_rate).paths

    def spec(self, sample_rate: int) -> TaskSpec:
        with naming(self.name):
            return self._listed(sample_rate).spec(self.test_folds, self.metrics)

    def load(self, sample_rate: int, cache: float = 0.0) -> TaskDataset:
        with naming(self.name):
            listing = self._listed(sample_rate)
            spec = listing.spec(self.test_folds, self.metrics)
        return TaskDataset(_sounds(listing, sample_rate, cache), spec)

    def _undecodable(self, listing: Listing, sample_rate: int, cache: float) -> dict[Path, str]:
        def progress(sounds: Iterable[Tensor | None]) -> Iterable[Tensor | None]:
            return cli.with_progress(sounds, len(listing), f"decoding {self.name}", "files")

        return _sounds(listing, sample_rate, cache).unreadable(progress)

    def _listed(self, sample_rate: int) -> Listing:
        if self.root is None:
            raise ConfigError(
                "the folder of its recordings is not set: give it with --probes.root DIR, or as "
                f"{{kind: {self.kind}, root: DIR}}"
            )
        return self.listing(self.root.expanduser(), sample_rate)


def _sounds(listing: Listing, sample_rate: int, cache: float) -> Recorded:
    paths = listing.paths
    return Cached(paths, sample_rate, round(cache * 1e9)) if cache else Recorded(paths, sample_rate)
