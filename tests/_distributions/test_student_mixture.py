"""Mixtures of Student's t against SciPy, and fitted to weighted points of a known law."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from bayesfs._distributions.student_mixture import StudentMixture


def two() -> StudentMixture:
    """A wide and a narrow component, apart."""
    root = torch.tensor([[[1.0, 0.0], [0.8, 0.5]], [[0.4, 0.0], [-0.1, 0.3]]]).double()
    location = torch.tensor([[-1.0, 0.0], [2.0, 1.0]]).double()
    return StudentMixture(torch.tensor([0.7, 0.3]).double().log(), location, root, 6)


def test_the_density_is_that_of_scipy() -> None:
    mixture = two()
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double() * 3
    parts = [
        share * scipy.stats.multivariate_t(m.numpy(), (r @ r.mT).numpy(), df=6).pdf(x.numpy())
        for share, m, r in zip((0.7, 0.3), mixture.location, mixture.root, strict=True)
    ]
    assert np.allclose(mixture.log_density(x), np.log(sum(parts)))


def test_draws_are_of_the_density() -> None:
    mixture = two()
    x = mixture.draw(40_000, torch.Generator().manual_seed(0))
    mean = torch.tensor([-0.1, 0.3]).double()  # .7 (-1, 0) + .3 (2, 1)
    assert torch.allclose(x.mean(0), mean, atol=0.02)
    covariance = mixture.root @ mixture.root.mT * 6 / 4
    apart = (mixture.location - mean).unsqueeze(-1)
    whole = torch.tensor([0.7, 0.3]).double() @ (covariance + apart @ apart.mT).flatten(1)
    assert torch.allclose(torch.cov(x.mT).flatten(), whole, atol=0.06)
    # sum over draws of 1 / density, within a box, is the box's area
    inside = (x - mean).abs().amax(-1) < 2
    area = (mixture.log_density(x).neg().exp() * inside).mean()
    assert float(area) == pytest.approx(16, rel=0.05)


def test_equal_seeds_give_equal_draws() -> None:
    one, same = (two().draw(7, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, same)


def test_weighted_points_of_another_law_are_fitted() -> None:
    target = two()
    broad = StudentMixture(
        torch.zeros(1).double(), torch.zeros(1, 2).double(), 3 * torch.eye(2).double()[None], 3
    )
    x = broad.draw(6_000, torch.Generator().manual_seed(1))
    weight = (target.log_density(x) - broad.log_density(x)).softmax(0)
    start = torch.multinomial(weight, 2, generator=torch.Generator().manual_seed(0))
    found = StudentMixture.fitted(x, weight, components=2, degrees=6, start=start)
    fresh = target.draw(4_000, torch.Generator().manual_seed(2))
    divergence = (target.log_density(fresh) - found.log_density(fresh)).mean()
    assert 0 <= float(divergence) < 0.02
    one = StudentMixture.fitted(x, weight, components=1, degrees=6, start=start[:1])
    alone = (target.log_density(fresh) - one.log_density(fresh)).mean()
    assert float(alone) > 0.1, "one component cannot hold two"
    assert math.isclose(float(found.log_share.exp().sum()), 1.0, abs_tol=1e-9)


def test_few_points_do_not_collapse_a_component() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator).double()
    weight = torch.full((40,), 1e-6).double()
    weight[:4] = 0.25
    weight = weight / weight.sum()
    found = StudentMixture.fitted(x, weight, components=2, degrees=5, start=torch.tensor([0, 1]))
    assert torch.isfinite(found.log_density(x)).all()
    assert float(found.root.diagonal(0, -2, -1).min()) > 1e-3
