"""Stein's moments: right draws pass, wrong ones are found, at the rates that are printed."""

from __future__ import annotations

import pytest
import torch

from bayesfs.inference.program.stein import stein_moments
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.svi import SVI
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
