"""Evidences and log densities of double precision against wider arithmetic, at odd sizes."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pyro
import pytest
import torch
from numpy.typing import NDArray
from pyro import poutine
from torch import Tensor

from bayesfs.data.synthetic import synthetic_episodes
from bayesfs.models.gaussian import GaussianHierarchy
from bayesfs.models.niw import NIWClasses
from bayesfs.models.niw_posterior import ClassPrior, condition_niw, support_frames
from bayesfs.types import EpisodeBatch


def tasks(dim: int, *, shots: int = 3, frames: int = 8) -> EpisodeBatch:
    sizes = {"users": 1, "way": 2, "shots": shots, "frames": frames, "query_videos": 1}
    return synthetic_episodes(seed=0, dim=dim, **sizes)[0].to(torch.float64)


def drawn(model: GaussianHierarchy | NIWClasses, dim: int) -> dict[str, Tensor]:
    """A draw of the population from its prior."""
    with torch.random.fork_rng(), poutine.block():
        pyro.set_rng_seed(0)
        return dict(model.sample_population(torch.zeros(dim, dtype=torch.float64)))


def longdouble_log_normal(gap: NDArray[Any], cov: NDArray[Any]) -> np.longdouble:
    """Sum over features of log N(gap; 0, cov), by a Cholesky factor in extended precision.

    Args:
        gap: (feature, n).
        cov: (feature, n, n).
    """
    left, rest = cov.astype(np.longdouble), gap.astype(np.longdouble)
    log_det, square = np.longdouble(0), np.longdouble(0)
    for i in range(cov.shape[-1]):  # eliminate one entry at a time: its conditional density
        pivot = left[:, i, i]
        log_det += np.log(pivot).sum()
        square += (rest[:, i] ** 2 / pivot).sum()
        gain = left[:, :, i] / pivot[:, None]
        rest = rest - gain * rest[:, i : i + 1]
        left = left - gain[:, :, None] * left[:, i : i + 1, :]
    two_pi = np.longdouble(mpmath.nstr(2 * mpmath.pi, 30))
    return -(log_det + square + gap.size * np.log(two_pi)) / 2


@pytest.mark.parametrize(("dim", "frames"), [(256, 8), (7, 3)])
def test_gaussian_evidence_equals_extended_precision(dim: int, frames: int) -> None:
    """At 256 features and 8 frames a count in single precision cost 4e-3 nats."""
    model, episodes = GaussianHierarchy(), tasks(dim, frames=frames)
    values = drawn(model, dim)
    levels = model.levels(values, dim)
    _, way, shots, frames, _ = episodes.support.shape
    index = np.arange(way * shots * frames)
    video, label = index // frames, index // (shots * frames)
    assert (episodes.support_kind == 0).all(), "clean videos have loading 1"
    parts = {  # which pairs of frames share each effect
        "task": np.ones((len(index), len(index))),
        "way": label[:, None] == label,
        "video": video[:, None] == video,
        "frame": np.eye(len(index)),
    }
    variances = {
        "task": levels.task.d,
        "way": levels.way.d,
        "video": levels.video[0].d,
        "frame": levels.frame[0].d,
    }
    cov = sum(
        variances[name].numpy().astype(np.longdouble)[:, None, None] * shared
        for name, shared in parts.items()
    )
    gap = (episodes.support[0].flatten(0, 2) - levels.offset[0]).numpy().T
    expected = longdouble_log_normal(gap, np.asarray(cov))
    assert float(model.log_evidence(episodes, values)[0] - float(expected)) == pytest.approx(
        0.0, abs=1e-9 * abs(float(expected))
    )


def mp_student(x: mpmath.matrix, post: list[Any], g: Any, size: Any) -> Any:
    """Log predictive density of (x - o) = y size under a normal-inverse-Wishart, and the update.

    `post` holds kappa, nu, mean (column) and Psi, and moves on to what x teaches.
    """
    kappa, nu, mean, psi = post
    dim, y = len(x), x / size
    df, gap = nu - dim + 1, y - g * mean
    spread = (1 + g**2 / kappa) / df  # of y
    solved = mpmath.lu_solve(psi, gap)
    quad = sum(a * b for a, b in zip(gap, solved, strict=True)) / spread
    log_det = mpmath.log(mpmath.det(psi)) + dim * mpmath.log(spread)
    value = mpmath.loggamma((df + dim) / 2) - mpmath.loggamma(df / 2)
    value -= (dim * mpmath.log(df * mpmath.pi) + log_det) / 2
    value -= (df + dim) / 2 * mpmath.log1p(quad / df) + dim * mpmath.log(size)
    after = kappa + g**2
    post[:] = [after, nu + 1, (kappa * mean + g * y) / after, psi + gap * gap.T * (kappa / after)]
    return value


@pytest.mark.parametrize("dim", [5, 17])
def test_niw_evidence_equals_mpmath(dim: int) -> None:
    """Video by video, each a Student t given the ones before, with 30 digits."""
    model, episodes = NIWClasses(), tasks(dim)
    values = drawn(model, dim)
    prior: ClassPrior = model.prior(values, dim)
    data, total = support_frames(episodes, prior), mpmath.mpf(0)
    with mpmath.workdps(30):
        for way in range(episodes.way):
            psi = mpmath.diag([mpmath.mpf(float(v)) for v in prior.psi])
            kappa, nu = mpmath.mpf(float(prior.kappa)), mpmath.mpf(float(prior.nu))
            post = [kappa, nu, mpmath.zeros(dim, 1), psi]
            for shot in range(data.size.shape[2]):
                x = mpmath.matrix(data.centred[0, way, shot].tolist())
                size = mpmath.mpf(float(data.size[0, way, shot]))
                total += mp_student(x, post, float(data.loading[0, way, shot]) / size, size)
            ours = condition_niw(episodes, prior)
            assert float(ours.nu[0, way]) == pytest.approx(float(post[1]), rel=1e-14)
        error = float(model.log_evidence(episodes, values)[0]) - total
    assert abs(error) < 1e-10 * max(1.0, abs(float(total)))
