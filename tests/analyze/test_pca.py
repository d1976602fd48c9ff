"""Principal components of groups of vectors."""

import pytest
import torch

from doppel_ray.analyze.pca import components


def test_components_and_explained_variance() -> None:
    random = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    directions, (first, second) = components([random * torch.tensor([1.0, 3.0, 2.0]) + 5.0])
    torch.testing.assert_close(directions.T, torch.eye(3)[[1, 2]], atol=0.05, rtol=0.0)
    assert first == pytest.approx(9 / 14, abs=0.02)
    assert second == pytest.approx(4 / 14, abs=0.02)


def test_groups_have_equal_weight() -> None:
    random = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    wide, high = random * torch.tensor([5.0, 0.1]), random * torch.tensor([0.1, 1.0])
    assert components([wide, high])[1] == pytest.approx(components([wide, high.repeat(50, 1)])[1])
