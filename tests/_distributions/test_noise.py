"""Noise of a task: spread evenly, the same in whatever calls and batches it is asked for."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import kstest

from bayesfs._distributions.noise import Noise, TaskOrder, _evenly, _normal_quantile
from bayesfs.synthetic.tasks import synthetic_episodes

BATCH, _ = synthetic_episodes(users=3, way=4, shots=2, frames=2, dim=3, seed=0)
LIKE = torch.zeros((), dtype=torch.float64)


def noise(*, even: bool) -> Noise:
    return Noise(5, TaskOrder.of(BATCH), even=even)


def test_levels_at_once_are_calls_one_after_another() -> None:
    for even in (False, True):
        at_once = noise(even=even).normals(7, ["task", "way", "shot", "way"], (3,), LIKE)
        one = noise(even=even)
        for level, found in zip(["task", "way", "shot", "way"], at_once, strict=True):
            assert torch.equal(found, one.normal(7, level, (3,), LIKE))  # type: ignore[arg-type]


def test_a_task_alone_has_the_numbers_that_it_has_among_others() -> None:
    among = noise(even=True).normals(7, ["task", "way"], (3,), LIKE)
    order = TaskOrder.of(BATCH.select([1]))
    alone = Noise(5, order, even=True).normals(7, ["task", "way"], (3,), LIKE)
    for a, b in zip(among, alone, strict=True):
        assert torch.equal(a[:, 1:2], b)


def test_even_draws_fall_one_into_each_part_and_are_standard_normal() -> None:
    draws = noise(even=True).normal(500, "way", (3,), LIKE)
    part = torch.special.ndtr(draws).mul(500).floor().sort(0)[0]
    assert torch.equal(part, torch.arange(500.0).double()[:, None, None, None].expand_as(part))
    assert kstest(noise(even=False).normal(500, "way", (3,), LIKE).flatten(), "norm").pvalue > 0.01


def test_quantiles_are_scipy_s() -> None:
    u = np.random.default_rng(0).random((50, 2, 17))
    found = _normal_quantile(u.copy())
    np.testing.assert_allclose(found, ndtri(_evenly(u)), rtol=1e-12, atol=1e-12)


def test_no_draw_is_infinite() -> None:
    u = np.stack([np.arange(9.0), np.full(9, np.nextafter(1.0, 0.0))])
    u[1, 0] = 0.0
    assert np.isfinite(_normal_quantile(u)).all()
