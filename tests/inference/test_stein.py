"""Stein's moments: right draws pass, wrong ones are found, at the rates that are printed."""

from __future__ import annotations

import pytest
import torch

from bayesfs.diagnostics.convergence import diagnose
from bayesfs.diagnostics.posterior_distance import Inferred, compare_engines
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.program.stein import along_widest, stein_moments, widest
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.prediction import predict
from bayesfs.results.convert import to_datatree
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import GaussianToy

TASKS, DRAWS = 200, 100


def student_score(z: torch.Tensor, freedom: float = 10.0) -> torch.Tensor:
    return -(freedom + 1) * z / (freedom + z.square())


@pytest.mark.parametrize("size", [5, 50, 200])
def test_right_draws_pass(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Of independent draws from a normal and from Student's t, at most a few in a hundred fail."""
    g = torch.Generator().manual_seed(size)
    z = torch.randn(TASKS, DRAWS, size, generator=g, dtype=torch.float64)
    heavy = torch.distributions.StudentT(10.0)
    with torch.random.fork_rng():
        torch.manual_seed(size)
        t = heavy.sample((TASKS, DRAWS, size)).double()
    alarms = [float((stein_moments(z, -z) > 1).double().mean())]
    alarms.append(float((stein_moments(t, student_score(t)) > 1).double().mean()))
    print(f"false alarms at {size} latents: normal {alarms[0]:.3f}, Student's t {alarms[1]:.3f}")
    assert max(alarms) <= 0.05


@pytest.mark.parametrize("size", [5, 50, 200])
@pytest.mark.parametrize(
    ("wrong", "scale", "shift"),
    [("ten times too wide", 10.0, 0.0), ("half as wide", 0.5, 0.0), ("one mean off", 1.0, 1.0)],
)
def test_wrong_draws_are_found(size: int, wrong: str, scale: float, shift: float) -> None:
    g = torch.Generator().manual_seed(size)
    z = scale * torch.randn(TASKS, DRAWS, size, generator=g, dtype=torch.float64)
    z[..., 0] += shift
    hits = float((stein_moments(z, -z) > 1).double().mean())
    print(f"{wrong}, {size} latents: found in {hits:.3f}")
    assert hits >= 0.95


def test_few_draws_are_not_judged_and_infinite_scores_never_pass() -> None:
    z = torch.zeros(2, 19, 3)
    assert torch.isnan(stein_moments(z, z)).all()
    z = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0))
    score = -z.clone()
    score[0, 3, 1] = torch.inf
    assert torch.isinf(stein_moments(z, score)).all()


def test_engines_that_stop_too_early_do_not_pass() -> None:
    tasks, _ = synthetic_episodes(users=2, way=3, shots=2, frames=2, dim=3, seed=0)
    tasks = tasks.to(torch.float64)
    model = GaussianToy()
    for short, long in (
        (SVI(steps=3, draws=200), SVI(steps=800, draws=200)),
        (SVGD(steps=2, precondition=False), SVGD(steps=300)),
    ):
        early, late = (e.infer(model, tasks, seed=0) for e in (short, long))
        assert (early.sample_stats["stein_moments"] > 1).all()
        assert (late.sample_stats["stein_moments"] <= 1).all()


@pytest.mark.parametrize("size", [5, 50, 200])
@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_a_mean_field_is_found_along_the_widest_directions(size: int, correlation: float) -> None:
    """Each latent as wide as the others let it: every axis passes, the whole is too narrow."""
    g = torch.Generator().manual_seed(size)
    at = torch.arange(size)
    covariance = correlation ** (at[:, None] - at).abs().double()
    precision = torch.linalg.inv(covariance)
    noise = torch.randn(TASKS, DRAWS, size, generator=g, dtype=torch.float64)
    right, narrow = noise @ torch.linalg.cholesky(covariance).mT, noise / precision.diag().sqrt()
    rates = []
    for z in (right, narrow):
        score, sd = -z @ precision, z.std(1, correction=0, keepdim=True)
        along = widest(lambda points: -points @ precision, z, score)
        torch.testing.assert_close(along.mT @ along, torch.eye(4).double().expand(TASKS, 4, 4))
        whole = torch.cat([z, (z / sd) @ along], -1), torch.cat([score, (score * sd) @ along], -1)
        found = stein_moments(z, score), stein_moments(*whole)
        rates.append([float((moments > 1).double().mean()) for moments in found])
    (_, false_alarms), (by_axis, hits) = rates
    print(
        f"mean field, {size} latents: {hits:.3f}, by axis {by_axis:.3f}; false {false_alarms:.3f}"
    )
    assert hits >= 0.95
    assert by_axis <= 0.1
    assert false_alarms <= 0.05


@pytest.mark.parametrize("size", [2, 5, 12])
def test_a_mean_field_of_few_latents_is_found_by_its_scores_alone(size: int) -> None:
    g = torch.Generator().manual_seed(size)
    covariance = 0.9 * torch.ones(size, size).double() + 0.1 * torch.eye(size).double()
    precision = torch.linalg.inv(covariance)
    noise = torch.randn(TASKS, 200, size, generator=g, dtype=torch.float64)
    right, narrow = noise @ torch.linalg.cholesky(covariance).mT, noise / precision.diag().sqrt()
    rates = [float((along_widest(z, -z @ precision) > 1).double().mean()) for z in (right, narrow)]
    print(f"{size} latents: false {rates[0]:.3f}, found {rates[1]:.3f}")
    assert rates[0] <= 0.05
    assert rates[1] >= 0.95
    heavy = torch.distributions.StudentT(10.0)
    with torch.random.fork_rng():
        torch.manual_seed(size)
        t = heavy.sample((TASKS, 200, size)).double()
    assert float((along_widest(t, student_score(t)) > 1).double().mean()) <= 0.05


def test_of_few_draws_no_directions_are_taken() -> None:
    z = torch.randn(2, 39, 5, generator=torch.Generator().manual_seed(0))
    assert torch.isnan(along_widest(z, -z)).all()


@pytest.mark.slow
def test_joint_fits_that_are_far_off_are_not_fit_for_use() -> None:
    """A head's population fitted with its tasks: only what agrees with NUTS passes every check."""
    batch, _ = synthetic_episodes(
        users=4, way=3, shots=3, frames=2, query_videos=1, query_frames=1, dim=4, seed=0
    )
    batch, model = batch.to(torch.float64), HierarchicalHead()
    engines = {
        "nuts": NUTS(warmup=300, draws=300, chains=4),
        "svi": SVI(),
        "laplace": Laplace(),
    }
    found = {name: engine.infer(model, batch, seed=0) for name, engine in engines.items()}
    inferred = {n: Inferred(p, predict(model, p, batch), 0.0) for n, p in found.items()}
    sites = compare_engines(inferred, "nuts", batch).by_site.set_index(["engine", "site"])
    fit = {name: diagnose(to_datatree(p)).verdict.startswith("fit") for name, p in found.items()}
    for name in ("svi", "laplace"):
        row = sites.loc[name, "population_scale"]
        off = abs(row["shift"]) > 0.5 or not 0.6 < row["ratio"] < 1.6
        assert off
        assert not fit[name]
