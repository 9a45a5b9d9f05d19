"""Student's t against SciPy, and fitted to weighted points of a known law."""

import numpy as np
import pytest
import scipy.stats
import torch

from bayesfs._distributions.student import Student


def known() -> Student:
    root = torch.tensor([[1.0, 0.0], [0.8, 0.5]]).double()
    return Student(torch.tensor([-1.0, 0.3]).double(), root, 6)


def test_the_density_is_that_of_scipy() -> None:
    t = known()
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double() * 3
    law = scipy.stats.multivariate_t(t.location.numpy(), (t.root @ t.root.mT).numpy(), df=6)
    assert np.allclose(t.log_density(x), law.logpdf(x.numpy()))


def test_draws_are_of_the_density() -> None:
    t = known()
    x = t.draw(40_000, torch.Generator().manual_seed(0))
    assert torch.allclose(x.mean(0), t.location, atol=0.03)
    assert torch.allclose(torch.cov(x.mT), t.root @ t.root.mT * 6 / 4, atol=0.06)
    # sum over draws of 1 / density, within a box, is the box's area
    inside = (x - t.location).abs().amax(-1) < 2
    area = (t.log_density(x).neg().exp() * inside).mean()
    assert float(area) == pytest.approx(16, rel=0.1)
    assert torch.equal(x[:7], t.draw(40_000, torch.Generator().manual_seed(0))[:7])


def test_weighted_points_of_another_law_are_fitted() -> None:
    target = known()
    broad = Student(torch.zeros(2).double(), 3 * torch.eye(2).double(), 3)
    x = broad.draw(6_000, torch.Generator().manual_seed(1))
    weight = (target.log_density(x) - broad.log_density(x)).softmax(0)
    found = Student.fitted(x, weight, degrees=6)
    fresh = target.draw(4_000, torch.Generator().manual_seed(2))
    divergence = (target.log_density(fresh) - found.log_density(fresh)).mean()
    assert -0.005 <= float(divergence) < 0.02


def test_few_points_do_not_collapse_it() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator).double()
    weight = torch.full((40,), 1e-6).double()
    weight[:4] = 0.25
    found = Student.fitted(x, weight / weight.sum(), degrees=5)
    assert torch.isfinite(found.log_density(x)).all()
    assert float(found.root.diagonal().min()) > 1e-3
