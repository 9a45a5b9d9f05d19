"""How a person asks: the closed form against one dense Gaussian of all frames."""

import math

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor

from bayesfs.models.gaussian.asking import (
    LEAST,
    POSITIONS,
    conditioned_asking,
    weighed_asking,
)
from bayesfs.models.gaussian.conjugate import Levels, condition_classes, evidence_in
from bayesfs.models.gaussian.covariance import Dense, Diagonal, Operator
from bayesfs.models.gaussian.families import CovarianceFamily, Full, PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.types import EpisodeBatch

DIM, WAYS, SHOTS, FRAMES = 3, 3, 4, 2
SCATTER = torch.tensor([0.5, 0.1, 0.2], dtype=torch.float64)
W = torch.tensor([0.3, 1.0], dtype=torch.float64)


def made(family: CovarianceFamily) -> Levels:
    """Two values of the population."""
    model = GaussianHierarchy(family=family)
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        like = torch.zeros(1, DIM, dtype=torch.float64)
        sites = [model.sample_population(like) for _ in range(2)]
    return Levels.of_each([model.levels({k: v.detach() for k, v in s.items()}, DIM) for s in sites])


def support() -> tuple[EpisodeBatch, Tensor]:
    """One task with videos of different lengths and conditions, and which were asked about."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(1, WAYS, SHOTS, FRAMES, DIM)))
    mask = torch.ones(x.shape[:-1], dtype=torch.bool)
    mask[0, 0, 3], mask[0, 1, 2, 1] = False, False
    condition = torch.tensor([[[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]])
    asked = torch.tensor([[[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]]]).bool()
    x = torch.where(mask[..., None], x + 0.8 * asked[..., None, None], 0.0)
    tasks = EpisodeBatch(
        x,
        mask,
        condition,
        torch.zeros(1, 1, 1, DIM, dtype=torch.float64),
        torch.zeros(1, 1, 1, dtype=torch.bool),
        torch.zeros(1, 1, dtype=torch.long),
        torch.full((1, 1), -1),
    )
    return tasks, asked


def matrix(operator: Operator) -> Tensor:
    if isinstance(operator, Diagonal):
        return torch.diag_embed(operator.d)
    assert isinstance(operator, Dense)
    return operator.m


def between(value: Tensor, w: float, q: int, asked: bool) -> Tensor:
    return (1 - w) * value[q] + w * value[1] if asked else value[q]


def dense(levels: Levels, n: int, w: float, told: int) -> tuple[float, Tensor, Tensor]:
    """Log evidence, and mean and covariance of s + r mu_k, from the n-th value's Gaussian."""
    tasks, asked = support()
    task, way = matrix(levels.task)[n], matrix(levels.way)[n, 0]
    video, frame = matrix(levels.video)[n], matrix(levels.frame)[n]
    shift, r = torch.diag((w**2 + LEAST) * SCATTER), levels.loading[n]
    items = [
        (k, v, int(tasks.support_condition[0, k, v]), bool(asked[0, k, v]), x)
        for k in range(WAYS)
        for v in range(SHOTS)
        for x, there in zip(tasks.support[0, k, v], tasks.support_mask[0, k, v], strict=True)
        if there
    ]
    size, own = len(items), between(r, w, told, True)
    cov = torch.zeros(size, DIM, size, DIM, dtype=torch.float64)
    cross = torch.zeros(WAYS, DIM, size, DIM, dtype=torch.float64)
    for i, (k, v, q, a, _) in enumerate(items):
        for j, (c, u, p, b, _) in enumerate(items):
            block = between(r, w, q, a) * between(r, w, p, b) * (task + (k == c) * way)
            block = block + (a and b) * shift
            if (k, v) == (c, u):
                block = block + between(video, w, q, a) + (i == j) * between(frame, w, q, a)
            cov[i, :, j] = block
        for c in range(WAYS):
            cross[c, :, i] = own * between(r, w, q, a) * (task + (c == k) * way) + a * shift
    whole = cov.reshape(size * DIM, -1)
    y = torch.cat([x - levels.offset[n, q] for _, _, q, _, x in items])
    law = torch.distributions.MultivariateNormal(torch.zeros_like(y), whole)
    flat = cross.reshape(WAYS * DIM, -1)
    prior = torch.kron(torch.ones(WAYS, WAYS).double(), own**2 * task + shift)
    prior = prior + torch.kron(torch.eye(WAYS).double(), own**2 * way)
    gain = torch.linalg.solve(whole, flat.mT).mT
    return float(law.log_prob(y)), (gain @ y).reshape(WAYS, DIM), prior - gain @ flat.mT


@pytest.mark.parametrize("family", [PowerLaw(), Full()])
@pytest.mark.parametrize("told", [0, 1])
def test_the_dense_gaussian(family: CovarianceFamily, told: int) -> None:
    levels, (tasks, asked) = made(family), support()
    found = conditioned_asking(tasks, asked, levels, SCATTER, W)
    classes = found.of(told + 2)
    for n in range(2):
        r = found.levels.loading[n, told + 2]
        evidence, mean, cov = dense(levels, n, float(W[n]), told)
        assert float(found.log_evidence[n]) == pytest.approx(evidence, rel=1e-9)
        torch.testing.assert_close(r * classes.mean[n], mean, rtol=1e-7, atol=1e-9)
        blocks = cov.reshape(WAYS, DIM, WAYS, DIM)
        for k in range(WAYS):
            torch.testing.assert_close(r**2 * matrix(classes.cov())[n, k], blocks[k, :, k])
            for j in range(WAYS):
                one = r**2 * matrix(classes.cross(k))[n, j]
                torch.testing.assert_close(one, blocks[j, :, k])


def test_positions_are_weighed_by_their_evidence() -> None:
    levels, (tasks, asked) = made(PowerLaw()), support()
    found = weighed_asking(tasks, asked, levels, SCATTER)
    each = torch.tensor([[dense(levels, n, w, 0)[0] for w in POSITIONS] for n in range(2)]).double()
    want = each.logsumexp(1) - math.log(len(POSITIONS))
    torch.testing.assert_close(found.log_evidence, want, rtol=1e-6, atol=1e-6)
    reached = each.softmax(1).cumsum(1)
    for n, quantile in enumerate((0.25, 0.75)):
        w = POSITIONS[int((reached[n, :-1] < quantile).sum())]
        r = levels.loading[n]
        assert float(found.levels.loading[n, 2]) == pytest.approx(float((1 - w) + w * r[1]))


def test_nothing_asked_leaves_the_posterior_as_it_was() -> None:
    levels, (tasks, asked) = made(PowerLaw()), support()
    found = conditioned_asking(tasks, asked & False, levels, SCATTER, torch.zeros(2).double())
    post = condition_classes(tasks, levels)
    torch.testing.assert_close(found.classes.mean, post.mean)
    assert float(found.offset.abs().max()) == 0.0
    want = evidence_in(tasks, tasks.support_condition, levels, post)
    torch.testing.assert_close(found.log_evidence, want)
