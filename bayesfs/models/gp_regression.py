"""Regression on labels, with the predictive variance used: `LabelRegression`.

The label of a frame is coded as one target per class, t_k = high for its class and low for the
others, and regressed on by independent Gaussian processes. A query's label is one of the `way`
codes, so its probability is the predictive density of that code among them:

    p(y = c | x, D) ~ prod_k N(t_k(c); mean_k, variance_k)
                    ~ exp{ [(high - low) mean_c - (high^2 - low^2) / 2] / variance_c }

A wide predictive flattens the probabilities. For a video all frames have one label and their
deviations are correlated; with S_c the (frame, frame) predictive covariance of the class and 1
the vector of ones,

    log p(y = c | video) = (high - low) 1' S_c^-1 mean_c - (high^2 - low^2) / 2 1' S_c^-1 1 + const

and with S = L L' the two products are sums over frames of whitened numbers, whose partial sums
are the exact posterior given the first frames: the running posterior costs nothing extra.

Draws are of f + b given that the query's code is a valid one: first the class c from its
posterior, then f from the Gaussian conditioned on that code. They weigh the same.

Source: Patacchiola et al. 2020 (deep kernel transfer) regress on -1 / +1 in the same way, but
predict with the sigmoid of the mean (`SigmoidOfMean`) and never use the variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bayesfs.categorical import systematic
from bayesfs.models.gp_gaussian import (
    Conditioned,
    Latent,
    TaskPrior,
    condition,
    log_normal,
    root,
)
from bayesfs.models.gp_likelihood import (
    Scores,
    equal_weights,
    normalise,
    standard_normal,
)
from bayesfs.models.gp_linalg import cholesky, half_solve, solve
from bayesfs.models.gp_points import Query
from bayesfs.models.gp_sites import Site
from bayesfs.types import Predictive

Coding = Literal["centred", "sign"]


@dataclass(frozen=True)
class LabelRegression:
    """Gaussian process regression on coded labels.

    Attributes:
        coding: "centred" has targets 1 - 1/way and -1/way, which sum to zero over the classes and
            so fit the zero prior mean; "sign" has +1 and -1.
    """

    coding: Coding = "centred"

    @property
    def sites(self) -> Mapping[str, Site]:
        """None: the label noise is the kernel's frame deviation."""
        return {}

    def fit(self, prior: TaskPrior) -> FittedRegression:
        """Condition on the coded labels; one Cholesky factor per task serves all classes."""
        y = prior.support.one_hot.mT
        high, low = codes(self.coding, prior.support.way_mask, y)
        real = prior.support.mask[:, None] & prior.support.way_mask[:, :, None]
        targets = (low[:, None, None] + (high - low)[:, None, None] * y) * real
        return FittedRegression(condition(prior, targets), high, low)


def codes(coding: Coding, way_mask: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(task,), (task,): the target of the right class, and that of the others."""
    way = way_mask.sum(-1).to(like)
    if coding == "centred":
        return 1 - 1 / way, -1 / way
    return torch.ones_like(way), -torch.ones_like(way)


@dataclass(frozen=True)
class FittedRegression:
    """Class functions given coded labels.

    Attributes:
        conditioned: Gaussian posterior.
        high: (task,) code of the right class.
        low: (task,) code of the other classes.
    """

    conditioned: Conditioned
    high: Tensor
    low: Tensor

    @property
    def log_evidence(self) -> Tensor:
        """(task,): exact log density of the coded labels; of their video means with a video kernel.

        A video has one label, so the code is constant over its frames and its contrasts between
        them are zero whatever the hyperparameters. Their density would only say so, and grows
        without bound as the frame deviation goes to 0: the evidence is that of the video means.
        """
        prior = self.conditioned.prior
        if prior.covariance.video is None:
            return self.conditioned.log_evidence
        mean = prior.support.video_means()
        mask = mean.any(-1)
        targets = self.conditioned.targets @ mean.mT
        matrix = mean @ prior.matrix @ mean.mT + torch.diag_embed((~mask).to(mean))
        factor = cholesky(matrix, name=prior.covariance.name)[:, None]
        weights = solve(factor[:, 0], targets.mT).mT
        return log_normal(targets, weights, factor, mask, prior.support.way_mask)

    def scores(self, query: Query, nodes: int = 0) -> Scores:
        """Closed-form class probabilities of frames and of growing videos."""
        return self.scores_of(self.conditioned.latent(query))

    def scores_of(self, latent: Latent) -> Scores:
        """The same from the predictive of the latent values."""
        variance = latent.total.diagonal(dim1=-2, dim2=-1)
        frame = self._log_prob(1 / variance, latent.mean / variance, latent.way_mask)
        if latent.mask.shape[-1] == 1:
            return Scores(frame, frame)
        factor = cholesky(latent.total, name="of a query video")
        ones, mean = _whitened(factor, latent)
        precision, mean = (ones * ones).cumsum(-1), (ones * mean).cumsum(-1)
        return Scores(frame, self._log_prob(precision, mean, latent.way_mask))

    def predictive(self, query: Query, draws: int, generator: torch.Generator) -> Predictive:
        """Closed-form probabilities, with draws of f + b given that the label is a valid one."""
        latent = self.conditioned.latent(query)
        scores = self.scores_of(latent)
        t, v, f = query.mask.shape
        frames = latent.by_frame()
        frame = self._draws(frames, scores.frame.flatten(1, 2), draws, generator)
        frame_given = frame.reshape(draws, t, v, f, -1)
        video = self._draws(latent, scores.video, draws, generator)
        return Predictive(
            frame=equal_weights(scores.frame, frame_given),
            video=equal_weights(scores.video, video),
        )

    def function(self, draws: int, generator: torch.Generator) -> Tensor:
        """(draw, task, way, n): draws of f + b at the support points."""
        shape = (draws, *self.conditioned.targets.shape)
        noise = [standard_normal(shape, self.conditioned.targets, generator) for _ in range(2)]
        return self.conditioned.function(*noise)

    def _log_prob(self, precision: Tensor, mean: Tensor, way_mask: Tensor) -> Tensor:
        """Normalised (high - low) mean - (high^2 - low^2) / 2 precision.

        Args:
            precision: (..., task, way or 1, video, frame).
            mean: (..., task, way, video, frame), times the precision.
            way_mask: (task, way).

        Returns:
            (..., task, video, frame, way).
        """
        high, low = (c.reshape(-1, 1, 1, 1) for c in (self.high, self.low))
        weight = (high - low) * mean - 0.5 * (high**2 - low**2) * precision
        return normalise(weight, way_mask[..., None, None], -3).movedim(-3, -1)

    def _draws(
        self, latent: Latent, log_prob: Tensor, draws: int, generator: torch.Generator
    ) -> Tensor:
        """(draw, task, video, way): log p(y | f_s) for draws f_s of all frames of each video."""
        chosen = systematic(log_prob.exp(), draws, generator)
        target = self._codes_of(chosen, latent)
        f = conditional_draws(latent, target, generator)
        factor = cholesky(latent.deviation, name="of a query video")
        ones = latent.mask[:, None, :, :, None].to(f)
        solved = solve(factor, ones)[..., 0]
        precision = (solved * ones[..., 0]).sum(-1, keepdim=True)
        mean = (solved * f).sum(-1, keepdim=True)
        return self._log_prob(precision, mean, latent.way_mask)[..., 0, :]

    def _codes_of(self, chosen: Tensor, latent: Latent) -> Tensor:
        """Classes (draw, task, video) -> codes (draw, task, way, video, frame)."""
        way = torch.arange(latent.mean.shape[1], device=chosen.device)
        high, low = (c.reshape(-1, 1, 1) for c in (self.high, self.low))
        right = chosen[:, :, None] == way[:, None]
        return torch.where(right, high, low)[..., None] * latent.mask[:, None].to(latent.mean)


def _whitened(factor: Tensor, latent: Latent) -> tuple[Tensor, Tensor]:
    """L^-1 1 and L^-1 mean over the frames, (task, way or 1, video, frame) and with all classes."""
    ones = latent.mask[:, None, :, :, None].to(latent.mean)
    if factor.shape[1] == 1:  # one factor for all classes: they are columns of one solve
        columns = torch.cat([ones[:, 0], latent.mean.permute(0, 2, 3, 1)], -1)
        solved = half_solve(factor[:, 0], columns)
        return solved[..., 0][:, None], solved[..., 1:].permute(0, 3, 1, 2)
    mean = half_solve(factor, latent.mean[..., None])[..., 0]
    return half_solve(factor, ones.expand(*factor.shape[:-1], 1))[..., 0], mean


def conditional_draws(latent: Latent, target: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of f + b at query frames given u = target there, by Matheron's rule.

    Args:
        latent: Gaussian predictive.
        target: (draw, task, way, video, frame), zero where padded.
        generator: source of the draws.

    Returns:
        (draw, task, way, video, frame).
    """
    noise = [standard_normal(tuple(target.shape), target, generator) for _ in range(2)]
    mask = latent.mask[:, None].to(target)
    start = latent.mean + (root(latent.signal) @ noise[0][..., None])[..., 0] * mask
    factor = cholesky(latent.deviation, name="of a query video")
    error = (factor @ noise[1][..., None])[..., 0] * mask
    total = cholesky(latent.total, name="of a query video")
    gap = (target - start - error)[..., None]
    gain = latent.signal @ torch.cholesky_inverse(total)
    return start + (gain @ gap)[..., 0] * mask
