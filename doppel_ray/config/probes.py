"""Settings of the probes: their tasks and protocol, and what each probe may use of a cluster."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from doppel_ray.core.schema import Names, Section
from doppel_ray.probe.protocols import NamedProtocol, ProtocolConfig
from doppel_ray.probe.tasks import TASKS, Factors, Task, TaskConfigs, Unreadable


class ProbesConfig(Section):
    """What each checkpoint is probed with."""

    tasks: TaskConfigs = Field(
        default=(Factors(),),
        description="Tasks, each a kind or a mapping such as {kind: hear, root: DIR}; an empty list: no probes. "
        + "; ".join(f"{kind}: {about}" for kind, about in TASKS.items())
        + ".",
    )
    root: Path | None = None
    """Folder of the recordings, for tasks without a root of their own."""
    every: int | Literal["best", "last"] = 1
    """Epochs between probes; or best: epochs with the lowest loss so far; or last. The last epoch is always probed."""
    protocol: NamedProtocol = ProtocolConfig()
    """Protocol of the tasks without one of their own."""
    test_folds: Names | None = Field(default=None, min_length=1)
    """Folds of recordings to test on, each with a probe of all the others; null: every one in turn. [5] keeps
    unseen what source.recordings.folds [1, 2, 3, 4] has left out of training."""
    unreadable: Unreadable = "refuse"
    """What to do about a recording that cannot be read."""
    cache: float = Field(default=4.0, ge=0.0)
    """GB of decoded recordings to keep on disk, in $DOPPEL_RAY_CACHE or the user's cache folder, so that the next
    probe need not decode them; 0: none."""
    actors: int = Field(default=1, ge=1, le=256)
    """Processes that share the sounds of a task, each with `cpus` and `gpus`; 1: the probe embeds them itself."""
    cpus: float = Field(default=1.0, gt=0.0)
    """CPUs that a probe reserves, outside the trial's own."""
    gpus: float = Field(default=0.0, ge=0.0)
    """GPUs that a probe reserves; 0: it runs on the CPU."""
    projector: int = Field(default=1000, ge=0)
    """Sounds of the first task whose newest embeddings TensorBoard's projector shows; 0: none."""
    timeout: float = Field(default=600.0, gt=0.0)
    """Seconds from submission after which a probe is cancelled; the trial continues, and its row is marked."""

    def build(self) -> list[Task]:
        """Return the tasks, with this section's values for the settings that an entry leaves out."""
        return [task.with_defaults(self.root, self.unreadable, self.test_folds) for task in self.tasks]

    def check(self, sample_rate: int = 16000) -> None:
        """Check every task's recordings before anything starts.

        Raises:
            ConfigError: recordings are missing or unreadable; names the task, the folder or the files.
        """
        for task in self.build():
            task.check(sample_rate)
