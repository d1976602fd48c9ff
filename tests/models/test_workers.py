"""Several workers with a share of the batch each learn exactly what one worker learns from the whole batch."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import update_bn

from doppel_ray.models import EncoderConfig, HeadConfig, Model, learner
from doppel_ray.models.batchnorm import synchronise
from doppel_ray.models.objectives import UNLABELLED, ObjectiveConfig
from doppel_ray.models.optimizers import averaged

pytestmark = pytest.mark.slow  # seconds for each test

BATCH = 24
CLASSES = 3
CASES = (
    ("resnet18", "alignment_uniformity"),
    ("cnn", "nt_xent"),
    ("cnn", "cross_entropy"),
    ("resnet18_1d", "joint"),
    ("framenet", "joint without labels"),
    ("cnn", "nt_xent with equal pairs"),
    ("cnn", "alignment_uniformity with equal pairs"),
    ("cnn", "joint with equal pairs"),
)
"""Encoder and objective: each encoder once, for its batch norms, and each objective once, for its gathering."""


def learn(encoder: str, objective: str, rank: int, workers: int) -> dict[str, torch.Tensor]:
    """Loss, terms, gradients and batch-norm statistics of one step, as `train_loop` takes it."""
    config = ObjectiveConfig.model_validate({"kind": objective.partition(" ")[0]})
    encoding = EncoderConfig.model_validate({"kind": encoder, "width": 8})
    model = Model(
        encoding, HeadConfig(kind="mlp", hidden=32, size=16), seed=1, classes=CLASSES if config.needs_labels else 0
    )
    random = torch.Generator().manual_seed(7)
    features = torch.randn(BATCH, 2, 1, *((48, 64) if encoding.domain == "spectrogram" else (1000,)), generator=random)
    features[:, 1] = features[:, 0] + 0.5 * features[:, 1]
    # Only the first third of the batch has labels, and not all of it: the last worker of three sees none.
    labels = torch.full((BATCH,), UNLABELLED)
    if "without" not in objective:
        labels[: BATCH // 3] = torch.arange(BATCH // 3) % (CLASSES + 1) - 1
    # Pairs come again on the same worker and on another.
    ids = torch.arange(BATCH) % 7 if "equal" in objective else torch.arange(BATCH)
    mine = slice(rank * BATCH // workers, (rank + 1) * BATCH // workers)
    network: torch.nn.Module = model
    if workers > 1:
        network = DistributedDataParallel(synchronise(model, torch.device("cpu")), broadcast_buffers=False)
    embeddings, logits = network.train()(features[mine].transpose(0, 1).flatten(0, 1))
    x, y = embeddings.chunk(2)
    loss, terms = config.build()(x, y, logits, labels[mine], ids[mine])
    loss.backward()
    found = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return {"loss": loss.detach(), **terms, **found, **{name: b.float() for name, b in model.named_buffers()}}


def statistics(rank: int, workers: int) -> dict[str, torch.Tensor]:
    """Batch-norm statistics of a running average, computed from two batches."""
    model = Model(EncoderConfig(kind="cnn", width=8), HeadConfig(kind="mlp", hidden=32, size=16), seed=1)
    if workers > 1:
        synchronise(model, torch.device("cpu"))
    average = averaged(model, 0.9)
    batches = 3.0 + torch.randn(2, BATCH, 1, 48, 64, generator=torch.Generator().manual_seed(7))
    mine = slice(rank * BATCH // workers, (rank + 1) * BATCH // workers)
    update_bn((batch[mine] for batch in batches), average)
    return {name: value.float() for name, value in average.module.named_buffers()}


def worker(rank: int, workers: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    found: dict[Any, Any] = {case: learn(*case, rank, workers) for case in CASES}
    found["statistics"] = statistics(rank, workers)
    for able in ((), (0,), range(workers)):
        with patch.object(learner, "has_bf16_units", return_value=rank in able):
            found["precision", len(able)] = learner.agreed_precision("auto", torch.device("cpu"), workers)
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3], ids=["2 workers", "3 workers"])
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each worker learned, for every encoder and objective; processes of their own, joined by gloo."""
    folder: Path = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(worker, args=(request.param, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(request.param)]


@pytest.mark.parametrize(("encoder", "objective"), CASES)
def test_gradients_with_several_workers(encoder: str, objective: str, learned: list[Any]) -> None:
    """Workers with a share of the batch have the gradients of the whole batch."""
    whole = learn(encoder, objective, 0, 1)
    if "equal" in objective:
        assert whole["loss"] != learn(encoder, objective.partition(" ")[0], 0, 1)["loss"]
    assert any(value.abs().max() > 1e-2 for name, value in whole.items() if "gradient" in name)
    for share in learned:
        found = share[encoder, objective]
        assert found.keys() == whole.keys()
        for name, expected in whole.items():
            if "gradient" in name:
                # One ReLU within rounding of its kink changes all gradients before it by up to 1 %, on some processors.
                assert (found[name] - expected).norm() < 0.02 * expected.norm() + 1e-4, name
                continue
            torch.testing.assert_close(
                found[name], expected, rtol=1e-4, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
            )


def test_statistics_of_an_average(learned: list[Any]) -> None:
    """Workers compute the averaged model's batch-norm statistics as one worker would, the mean over its batches."""
    whole = statistics(0, 1)
    for share in learned:
        for name, expected in whole.items():
            torch.testing.assert_close(share["statistics"][name], expected, rtol=1e-4, atol=1e-4)


def test_precision_with_several_workers(learned: list[Any]) -> None:
    """`precision: auto` is bf16 only if every worker's device has units for it."""
    for share in learned:
        assert share["precision", 0] == share["precision", 1] == "fp32"
        assert share["precision", len(learned)] == "bf16"
