"""Dense covariances inside transforms, as engines need them."""

from __future__ import annotations

import warnings

import pyro
import pytest
import torch
from torch.func import vmap

from bayesfs._linalg.jitter import jittered_cholesky
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.covariance import Dense, Diagonal, Points
from bayesfs.models.gaussian.families import CovarianceFamily, Full, LowRankCovariance
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore
from bayesfs.synthetic.tasks import synthetic_episodes


def test_a_cholesky_factor_under_vmap_is_that_without() -> None:
    root = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = root @ root.mT + torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(
        vmap(jittered_cholesky)(matrix), jittered_cholesky(matrix), rtol=1e-7, atol=1e-7
    )


def test_jitter_is_added_only_where_it_is_needed() -> None:
    good, flat = torch.eye(2).double(), torch.ones(2, 2).double()
    flat[1, 1] -= 1e-9
    factor = jittered_cholesky(torch.stack([good, flat]))
    assert torch.equal(factor[0], good)
    torch.testing.assert_close(factor[1] @ factor[1].mT, flat, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    "family", [Full(), LowRankCovariance(rank=1)], ids=lambda f: type(f).__name__
)
def test_dense_families_are_learnt_from_labels(family: CovarianceFamily) -> None:
    batch, _ = synthetic_episodes(users=3, way=3, shots=2, frames=2, dim=3, seed=0)
    program = PredictiveScore(GaussianHierarchy(family))
    engine = SVI(steps=40, draws=4, khat_draws=0)
    elbo = engine.infer(program, batch.to(torch.float64), seed=0).sample_stats["elbo"]
    assert torch.isfinite(elbo).all()
    assert elbo[-10:].mean() > elbo[:10].mean()


def test_full_covariances_of_many_features_warn_in_single_precision() -> None:
    for dim, dtype, warns in ((32, torch.float32, True), (32, torch.float64, False)):
        like = torch.zeros(1, dim, dtype=dtype)
        pyro.set_rng_seed(0)
        sites = Full().sample(like)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Full().build(sites, dim)
        assert any("double precision" in str(w.message) for w in caught) == warns


def test_squares_of_one_vector_are_those_of_many() -> None:
    rng = torch.Generator().manual_seed(1)
    root = torch.randn(2, 3, 4, 4, generator=rng, dtype=torch.float64)
    x = torch.randn(2, 4, generator=rng, dtype=torch.float64)
    for operator in (Diagonal(root[..., 0].exp()), Dense(root @ root.mT)):
        many = operator.squares(Points(x[:, None]))[:, 0]
        torch.testing.assert_close(torch.from_numpy(operator.squares_of_one(x.numpy())), many)
