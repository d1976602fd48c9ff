"""The objectives are the published ones, written out plainly here in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from doppel_ray.models import EncoderConfig, HeadConfig, Model
from doppel_ray.models.objectives import (
    UNLABELLED,
    Objective,
    ObjectiveConfig,
    alignment,
    collapsed,
    effective_rank,
    equal_pairs,
    nt_xent,
    uniformity,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@st.composite
def views(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two views' embeddings, (n, size) float64 on the unit sphere, from quite alike to unrelated."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(2, 24)), draw(st.integers(2, 48)))
    x = random.standard_normal(shape)
    return unit(x), unit(x + draw(st.sampled_from([0.01, 0.3, 10.0])) * random.standard_normal(shape))


def tensors(*arrays: np.ndarray) -> list[Tensor]:
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


@given(views(), st.sampled_from([1.0, 2.0, 3.0]))
def test_alignment_equals_its_definition(pair: tuple[np.ndarray, np.ndarray], alpha: float) -> None:
    """The mean distance of positive pairs, to the power α."""
    x, y = pair
    expected = np.mean([np.linalg.norm(a - b) ** alpha for a, b in zip(x, y, strict=True)])
    first, second = tensors(x, y)
    assert alignment(first, second, alpha).item() == pytest.approx(expected, abs=1e-4)


@given(views(), st.sampled_from([0.5, 2.0]))
def test_uniformity_equals_its_definition(pair: tuple[np.ndarray, np.ndarray], t: float) -> None:
    """The logarithm of the mean Gaussian potential over distinct pairs."""
    x, _ = pair
    potentials = [math.exp(-t * np.sum((a - b) ** 2)) for i, a in enumerate(x) for b in x[:i]]
    (view,) = tensors(x)
    assert uniformity(view, t).item() == pytest.approx(math.log(np.mean(potentials)), abs=1e-4)


@given(views(), st.sampled_from([0.1, 0.2, 0.5]))
def test_nt_xent_equals_its_definition(pair: tuple[np.ndarray, np.ndarray], temperature: float) -> None:
    """The cross-entropy of each view among all others."""
    x, y = pair
    n, z = len(x), np.concatenate(pair)
    losses = []
    for i in range(2 * n):
        similarity = {j: float(z[i] @ z[j]) / temperature for j in range(2 * n) if j != i}
        losses.append(math.log(sum(map(math.exp, similarity.values()))) - similarity[(i + n) % (2 * n)])
    first, second = tensors(x, y)
    assert nt_xent(first, second, temperature).item() == pytest.approx(np.mean(losses), abs=1e-4)


@given(views(), st.sampled_from(["alignment_uniformity", "nt_xent"]), st.integers(0, 1000))
def test_loss_invariances(pair: tuple[np.ndarray, np.ndarray], kind: str, seed: int) -> None:
    """No loss depends on the order of pairs, rotation, scale, or which view is first."""
    random = np.random.default_rng(seed)
    objective = ObjectiveConfig.model_validate({"kind": kind}).build()
    x, y = pair
    rotation, _ = np.linalg.qr(random.standard_normal((x.shape[1], x.shape[1])))
    order = random.permutation(len(x))
    loss = objective(*tensors(x, y))[0].item()
    assert objective(*tensors(x[order], y[order]))[0].item() == pytest.approx(loss, abs=1e-4)
    assert objective(*tensors(x @ rotation, y @ rotation))[0].item() == pytest.approx(loss, abs=1e-3)
    assert objective(*tensors(7.0 * x, 0.1 * y))[0].item() == pytest.approx(loss, abs=1e-4)
    assert objective(*tensors(y, x))[0].item() == pytest.approx(loss, abs=1e-4)


@given(views())
def test_bounds_of_terms(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = tensors(*pair)
    assert 0.0 <= alignment(x, y).item() <= 4.0 + 1e-5
    assert alignment(x, x).item() == 0.0
    assert -8.0 - 1e-5 <= uniformity(x).item() <= 1e-5
    assert nt_xent(x, y, 0.5).item() > 0.0


def test_terms_of_a_collapsed_embedding() -> None:
    collapsed = torch.nn.functional.normalize(torch.ones(8, 4))
    assert uniformity(collapsed).item() == pytest.approx(0.0, abs=1e-5)
    assert nt_xent(collapsed, collapsed, 0.5).item() == pytest.approx(math.log(15), abs=1e-5)
    assert effective_rank(collapsed).item() == pytest.approx(1.0)


def test_terms_of_orthogonal_pairs() -> None:
    """Their loss is computed by hand."""
    x = torch.eye(6)
    assert alignment(x, x).item() == 0.0
    assert uniformity(x, t=2.0).item() == pytest.approx(-4.0, abs=1e-6)
    assert nt_xent(x, x, 0.5).item() == pytest.approx(math.log(math.exp(2) + 10) - 2, abs=1e-6)


def test_loss_weights() -> None:
    """The loss is the weighted sum, with uniformity averaged over the views."""
    x, y = tensors(*(unit(np.random.default_rng(k).standard_normal((12, 5))) for k in range(2)))
    loss, terms = ObjectiveConfig(alignment_weight=0.5, uniformity_weight=3.0).build()(x, y)
    assert loss.item() == pytest.approx(
        0.5 * alignment(x, y).item() + 1.5 * (uniformity(x) + uniformity(y)).item(), abs=1e-5
    )
    assert terms["alignment"].item() == pytest.approx(alignment(x, y).item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["alignment_uniformity", "nt_xent"])
def test_gradients_of_identical_views_are_finite(kind: str) -> None:
    """δ = 0 gives such pairs: their distance is 0, where a square root has no slope."""
    x = torch.randn(8, 4, generator=torch.manual_seed(0), requires_grad=True)
    loss, _ = ObjectiveConfig.model_validate({"kind": kind}).build()(x, x)
    loss.backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_effective_rank() -> None:
    directions = torch.eye(10)[:4].repeat(50, 1)
    assert 2.9 < effective_rank(directions).item() < 3.1  # four points span three directions around their mean


# --- labels ---------------------------------------------------------------------------------------------------------


def objective(kind: str, **options: float) -> Objective:
    return ObjectiveConfig.model_validate({"kind": kind, **options}).build()


@st.composite
def labelled_views(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two views (n, size), logits (2 n, classes) and labels (n,), some of them or all or none unlabelled."""
    x, y = draw(views())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(2, 10))
    labels = random.integers(0, classes, len(x))
    labels[random.random(len(x)) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))] = UNLABELLED
    return x, y, 3.0 * random.standard_normal((2 * len(x), classes)), labels


@given(labelled_views(), st.sampled_from([0.3, 1.0]))
def test_joint_equals_its_definition(
    batch: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], weight: float
) -> None:
    """NT-Xent, and each view's cross-entropy of the labelled pairs."""
    x, y, logits, labels = batch
    entropies: list[list[float]] = [[], []]
    for view, rows in enumerate(np.split(logits, 2)):
        for row, label in zip(rows, labels, strict=True):
            if label != UNLABELLED:
                entropies[view].append(math.log(np.exp(row).sum()) - row[label])
    means = [float(np.mean(found)) if found else 0.0 for found in entropies]
    a, b, scores = tensors(x, y, logits)
    contrast = nt_xent(a, b, 0.5).item()
    joint, terms = objective("joint", cross_entropy_weight=weight)(a, b, scores, torch.tensor(labels))
    assert joint.item() == pytest.approx(contrast + weight * sum(means), abs=1e-4)
    assert terms["nt_xent"].item() == pytest.approx(contrast, abs=1e-4)
    alone, _ = objective("cross_entropy")(a, b, scores, torch.tensor(labels))
    assert alone.item() == pytest.approx(sum(means) / 2, abs=1e-4)
    assert ("cross_entropy" in terms) == ("accuracy" in terms) == bool(entropies[0])


def test_accuracy_of_labelled_views() -> None:
    x, y = tensors(np.eye(4), np.eye(4))
    predicted = torch.tensor([0, 1, 2, 0, 0, 2, 2, 0])
    labels = torch.tensor([0, 1, 1, UNLABELLED])
    _, terms = objective("cross_entropy")(x, y, torch.eye(3)[predicted], labels)
    assert terms["accuracy"].item() == pytest.approx(3 / 6)


@pytest.mark.parametrize("kind", ["cross_entropy", "joint"])
def test_batch_without_labels_has_zero_gradient(kind: str) -> None:
    """DDP waits for the gradient of every parameter."""
    x, y = tensors(np.eye(4), np.eye(4))
    logits = torch.randn(8, 3, requires_grad=True)
    loss, terms = objective(kind)(x, y, logits, torch.full((4,), UNLABELLED))
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()
    assert not {"cross_entropy", "accuracy"} & terms.keys()


@pytest.mark.parametrize("kind", ["cross_entropy", "joint"])
def test_missing_labels_are_refused(kind: str) -> None:
    assert ObjectiveConfig.model_validate({"kind": kind}).needs_labels
    x, y = tensors(np.eye(4), np.eye(4))
    with pytest.raises(ValueError, match=f"objective.kind is '{kind}', which needs class logits and labels"):
        objective(kind)(x, y)


def test_contrastive_objectives_need_no_labels() -> None:
    assert not ObjectiveConfig(kind="nt_xent").needs_labels
    assert not ObjectiveConfig(kind="alignment_uniformity").needs_labels


# --- equal pairs ----------------------------------------------------------------------------------------------------


@st.composite
def views_with_ids(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two views (n, size) and identities (n,), of which few, many or all occur more than once."""
    x, y = draw(views())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    different = draw(st.sampled_from([1, 2, len(x), 10 * len(x)]))
    return x, y, random.integers(-different, different, len(x)) // 2 * 2**40


@given(views_with_ids(), st.sampled_from([0.1, 0.5]))
def test_nt_xent_equal_pairs(batch: tuple[np.ndarray, np.ndarray, np.ndarray], temperature: float) -> None:
    """Views of one identity are no negatives of each other; the two views of a row stay each other's positive."""
    x, y, ids = batch
    n, z, who = len(x), np.concatenate([x, y]), np.concatenate([ids, ids])
    losses = []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [j for j in range(2 * n) if j == partner or who[j] != who[i]]
        similarity = {j: float(z[i] @ z[j]) / temperature for j in others}
        losses.append(math.log(sum(map(math.exp, similarity.values()))) - similarity[partner])
    for kind in ("nt_xent", "joint"):
        given_logits = torch.zeros(2 * n, 3) if kind == "joint" else None
        labels = torch.full((n,), UNLABELLED)
        loss, _ = objective(kind, temperature=temperature)(*tensors(x, y), given_logits, labels, torch.tensor(ids))
        assert loss.item() == pytest.approx(np.mean(losses), abs=1e-4)


@given(views_with_ids())
def test_uniformity_equal_pairs(batch: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The mean is over pairs of different identities; without any, the term is 0 and so are its gradients."""
    x, y, ids = batch
    expected = 0.0
    for view in (x, y):
        potentials = [
            math.exp(-2.0 * np.sum((view[i] - view[j]) ** 2))
            for i in range(len(x))
            for j in range(len(x))
            if ids[i] != ids[j]
        ]
        expected += math.log(np.mean(potentials)) / 2 if potentials else 0.0
    first, second = tensors(x, y)
    first.requires_grad_()
    _, terms = objective("alignment_uniformity")(first, second, ids=torch.tensor(ids))
    assert terms["uniformity"].item() == pytest.approx(expected, abs=1e-4)
    uniformity(first, equal=equal_pairs(torch.tensor(ids))).backward()
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()
    assert bool(first.grad.any()) is (len(set(ids)) > 1)


@pytest.mark.parametrize("kind", ["alignment_uniformity", "nt_xent", "joint"])
def test_different_pairs_bit_for_bit(kind: str) -> None:
    """Identities that are all different change no bit of the loss or the gradient."""
    found = []
    for ids in (None, torch.randperm(96, generator=torch.manual_seed(1)) * 2**50):
        random = torch.manual_seed(0)
        x, y = (torch.randn(96, 32, generator=random, requires_grad=True) for _ in range(2))
        loss, _ = objective(kind)(x, y, torch.zeros(192, 3), torch.full((96,), UNLABELLED), ids)
        loss.backward()
        found.append((loss.detach(), x.grad, y.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


# --- collapse -------------------------------------------------------------------------------------------------------


def verdict(embeddings: Tensor) -> str | None:
    return collapsed(uniformity(torch.nn.functional.normalize(embeddings)).item(), effective_rank(embeddings).item())


def test_collapsed_to_a_point_or_line() -> None:
    random = torch.manual_seed(0)
    noise = torch.randn(64, 32, generator=random)
    assert "one point" in (verdict(torch.ones(64, 32) + 1e-3 * noise) or "")
    assert "one line" in (verdict(noise[:, :1] * torch.ones(64, 32)) or "")
    assert verdict(noise) is None


def test_untrained_model_has_not_collapsed() -> None:
    """Its embeddings are a narrow cone: the criterion must not stop a run that has just begun."""
    features = torch.randn(64, 1, 96, 64, generator=torch.manual_seed(0)) - 2.0
    for head in (HeadConfig(), HeadConfig(kind="mlp", size=128), HeadConfig(kind="none")):
        with torch.no_grad():
            model = Model(EncoderConfig(kind="cnn", width=8), head, seed=0)
            assert verdict(model(features).embeddings) is None
