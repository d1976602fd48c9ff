"""What every entry of `probes.tasks` has: a name, how it is asked, and how it becomes examples."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Names, Section
from doppel_ray.data import audio_files
from doppel_ray.probe.protocols import NamedProtocol
from doppel_ray.probe.sounds import Cached, Recorded
from doppel_ray.probe.task import TaskDataset, TaskSpec
from doppel_ray.probe.tasks.listing import Listing, gaps

log = logging.getLogger(__name__)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Whatever is refused is refused of this task."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"probes.tasks, {name}: {error}") from None


Unreadable = Literal["refuse", "skip"]


class Task(Section, ABC):
    """A probe task, as an entry of `probes.tasks`."""

    kind: str
    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.+-]+$")
    """Of its scores, `probe/<name>/<metric>`; empty: the kind, or for hear and manifest the name of root."""
    protocol: NamedProtocol | None = None
    """How its embeddings are asked; null: probes.protocol."""
    metrics: tuple[str, ...] | None = Field(default=None, min_length=1)
    """In place of the source's own; the first is the score of the task."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("name"):
            return data
        name = cls._default_name(data) or data.get("kind") or cls.model_fields["kind"].default
        return data | {"name": re.sub(r"[^A-Za-z0-9_.+-]+", "-", str(name))}

    @classmethod
    def _default_name(cls, data: dict[str, Any]) -> str:
        """A name from the plain data of an entry, or "" for its kind."""
        return ""

    def __str__(self) -> str:
        return self.name

    def with_defaults(self, root: Path | None, unreadable: Unreadable, test_folds: Names | None) -> Self:
        """A copy in which what the entry leaves open is as `probes` has it."""
        return self

    @abstractmethod
    def check(self, sample_rate: int = 16000) -> None:
        """Refuse now what would fail later, and tell of what is odd.

        Args:
            sample_rate: that will be asked for, in Hz.

        Raises:
            ConfigError: the data is missing, unreadable, or not as its source has it.
        """

    @abstractmethod
    def questions(self, sample_rate: int) -> TaskSpec:
        """What is asked; opens no audio.

        Raises:
            ConfigError: the data is missing, or not as its source has it.
        """

    def files(self, sample_rate: int) -> tuple[Path, ...]:
        """The recordings that it reads, none if it makes its sounds; opens none.

        Raises:
            ConfigError: as `questions`.
        """
        return ()

    @abstractmethod
    def load(self, sample_rate: int, cache: float = 0.0) -> TaskDataset:
        """The examples, at `sample_rate` Hz.

        Args:
            sample_rate: of the sounds.
            cache: GB of decoded recordings kept on disk, of all tasks together; 0: none.

        Raises:
            ConfigError: as `check`, but that no file is opened.
        """


class RecordedTask(Task):
    """A task whose sounds are files."""

    root: Path | None = None
    """Its folder (of a manifest, the table); null: probes.root."""
    unreadable: Unreadable | None = None
    """What to do about a file that cannot be read; null: as probes.unreadable."""
    test_folds: Names | None = Field(default=None, min_length=1)
    """Folds to test on; null: as probes.test_folds. What has a test split of its own has no folds."""

    @abstractmethod
    def listing(self, root: Path, sample_rate: int) -> Listing:
        """What there is in `root`, for sounds at `sample_rate` Hz; opens no audio.

        Raises:
            ConfigError: it is missing, or not as the format has it.
        """

    def with_defaults(self, root: Path | None, unreadable: Unreadable, test_folds: Names | None) -> Self:
        defaults = {"root": root, "unreadable": unreadable, "test_folds": test_folds}
        return self.model_copy(update={name: value for name, value in defaults.items() if getattr(self, name) is None})

    def check(self, sample_rate: int = 16000) -> None:
        with naming(self.name):
            listing = self._listed(sample_rate)
            broken = audio_files.scan(listing.paths)
            named = [f"{path}: {reason}" for path, reason in broken.items()]
            rest = listing.without(broken)
            if not len(rest):
                raise ConfigError(f"none of the {len(listing)} files can be read, first {named[0]}")
            if broken and self.unreadable != "skip":
                shown = "\n  ".join(named[:10]) + (f"\n  and {len(named) - 10} more" if len(named) > 10 else "")
                raise ConfigError(
                    f"{len(broken)} of {len(listing)} files cannot be read:\n  {shown}\n"
                    "mend them, or leave them out with --probes.unreadable skip"
                )
            told = [f"{len(broken)} of {len(listing)} files are left out, first {named[0]}"] if broken else []
            for line in told + gaps(rest.questions(self.test_folds, self.metrics)):
                log.warning("probes.tasks, %s: %s", self.name, line)

    def files(self, sample_rate: int) -> tuple[Path, ...]:
        with naming(self.name):
            return self._listed(sample_rate).paths

    def questions(self, sample_rate: int) -> TaskSpec:
        with naming(self.name):
            return self._listed(sample_rate).questions(self.test_folds, self.metrics)

    def load(self, sample_rate: int, cache: float = 0.0) -> TaskDataset:
        with naming(self.name):
            listing = self._listed(sample_rate)
            questions = listing.questions(self.test_folds, self.metrics)
        paths = listing.paths
        sounds = Cached(paths, sample_rate, round(cache * 1e9)) if cache else Recorded(paths, sample_rate)
        return TaskDataset(sounds, questions)

    def _listed(self, sample_rate: int) -> Listing:
        if self.root is None:
            raise ConfigError(
                "it needs its recordings: give their folder with --probes.root DIR, or as "
                f"{{kind: {self.kind}, root: DIR}}"
            )
        return self.listing(self.root.expanduser(), sample_rate)
