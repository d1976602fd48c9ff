"""Settings of the probes: their tasks and protocol, and what each probe may use of a cluster."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from doppel_ray.core.schema import Gpus, Names, Section
from doppel_ray.probe.protocols import NamedProtocol, ProtocolConfig
from doppel_ray.probe.tasks import TASKS, Factors, Task, TaskConfigs, Unreadable


class ProbesConfig(Section):
    """Probes, which score the embeddings of each checkpoint on tasks."""

    tasks: TaskConfigs = Field(
        default=(Factors(),),
        description="Tasks that score each checkpoint, each a kind or a mapping such as {kind: hear, root: DIR}; []: "
        "no probes. Kinds: " + ", ".join(f"{kind} ({about})" for kind, about in TASKS.items()) + ".",
    )
    root: Path | None = None
    """Folder of the recordings, for tasks without a root of their own."""
    every: int | Literal["best", "last"] = 1
    """When to probe: every N epochs, best (each epoch with the lowest loss so far) or last (only the last epoch). The
    last epoch is always probed."""
    protocol: NamedProtocol = ProtocolConfig()
    """Probe, for tasks without a protocol of their own."""
    test_folds: Names | None = Field(default=None, min_length=1)
    """Folds to test on, each with a probe trained on all other folds; null: every fold in turn. [5] tests on unseen
    recordings if source.recordings.folds is [1, 2, 3, 4]."""
    unreadable: Unreadable = "refuse"
    """What to do about an unreadable recording. refuse: stop before training starts. skip: leave it out and log it."""
    cache: float = Field(default=4.0, ge=0.0)
    """Size of the disk cache of decoded recordings in GB, in $DOPPEL_RAY_CACHE or the user's cache folder; 0: no
    cache."""
    actors: int = Field(default=1, ge=1, le=256)
    """Number of processes that embed a task's sounds in parallel, each with `cpus` and `gpus`; 1: the probe itself."""
    cpus: float = Field(default=1.0, gt=0.0)
    """CPUs reserved for a probe, in addition to the trial's."""
    gpus: Gpus = 0.0
    """GPUs reserved for a probe; 0: run on the CPU."""
    projector: int = Field(default=1000, ge=0)
    """Number of sounds of the first task whose newest embeddings TensorBoard's projector shows; 0: none."""
    timeout: float = Field(default=600.0, gt=0.0)
    """Seconds from request until a probe is cancelled; the trial continues, and its metrics are marked."""

    def build(self) -> list[Task]:
        """Return the tasks, with this section's values for the settings that an entry leaves out."""
        return [task.with_defaults(self.root, self.unreadable, self.test_folds) for task in self.tasks]

    def check(self, sample_rate: int = 16000) -> None:
        """Check every task's recordings before anything starts.

        Raises:
            ConfigError: recordings are missing or unreadable; names the task, the folder or the files.
        """
        for task in self.build():
            task.check(sample_rate, self.cache)
