"""Probes of a trial's checkpoints: each runs in a Ray task of its own while training continues."""

import functools
import time
from pathlib import Path
from typing import Any

import ray

from doppel_ray.config.probes import ProbesConfig


class Probe:
    """One running probe.

    Args:
        checkpoint: its folder.
        epoch: of the checkpoint.
        probes: what to evaluate, and with what.
        trial: the trial's folder, which gets the embeddings to show.
    """

    def __init__(self, checkpoint: str, epoch: int, probes: ProbesConfig, trial: Path) -> None:
        self.epoch, self.timeout = epoch, probes.timeout
        self.began = time.monotonic()
        # "DEFAULT": a task would inherit the placement group of the trial, where it can never fit.
        # With a pool of processes the task itself needs no GPU: it waits, and fits the linear probes.
        options = _probe.options(
            num_cpus=probes.cpus, num_gpus=probes.gpus if probes.actors == 1 else 0.0, scheduling_strategy="DEFAULT"
        )
        self.task = options.remote(checkpoint, probes, str(trial))

    def poll(self) -> dict[str, float] | None:
        """Return the scores, or None while the probe runs.

        Raises:
            ProbeError: it failed or took too long.
        """
        ready, _ = ray.wait([self.task], timeout=0)
        if ready:
            try:
                return ray.get(self.task)
            except ray.exceptions.RayError as error:
                raise ProbeError(f"the probe of epoch {self.epoch} failed: {last_line(error)}") from error
        if time.monotonic() - self.began > self.timeout:
            ray.cancel(self.task, force=True)
            limit = f"{self.timeout:.0f} s (probes.timeout)"
            raise ProbeError(f"the probe of epoch {self.epoch} took more than {limit} and was cancelled")
        return None


class ProbeError(RuntimeError):
    """A probe failed or took too long."""


def last_line(error: BaseException) -> str:
    """Return an error's type and last line, which says what it was; of Ray's long explanations the first sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].partition('. Worker exit type')[0][:300] if lines else ''}"


@ray.remote(max_retries=3)  # after a lost process or node, not after an error
def _probe(checkpoint: str, probes: ProbesConfig, trial: str) -> dict[str, float]:
    """Return one checkpoint's scores, and write its embeddings into the trial's folder."""
    import torch

    from doppel_ray.probe import projector
    from doppel_ray.probe.evaluate import TaskEmbedder, evaluate_checkpoint

    torch.set_num_threads(max(1, round(probes.cpus)))
    began, folder = time.perf_counter(), Path(checkpoint)
    encoder: Any
    if probes.actors == 1:
        encoder = TaskEmbedder(folder, probes.cache, "cuda" if probes.gpus else "cpu")
    else:
        from doppel_ray.tune.probe_pool import EncoderPool

        encoder = EncoderPool(folder, probes)
    tasks, kept = probes.build(), Path(trial).parent.parent / "baselines"
    project = functools.partial(projector.project, Path(trial), tasks[0].name, probes.projector, folder.name)
    scores = evaluate_checkpoint(folder, tasks, probes.protocol, encoder, kept, project)
    return scores | {"probe/seconds": time.perf_counter() - began}
