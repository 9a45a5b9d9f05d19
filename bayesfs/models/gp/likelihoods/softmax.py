"""Softmax likelihood by variational inference: `Softmax`.

    p(y = c | u) = exp(u_c) / sum_k exp(u_k)

q(u) = prod_c N(m_c, S_c) over the support points; its optimum has sites with

    precision = E_q p_c (1 - p_c),    linear = precision m_c + y_c - E_q p_c,

which a damped natural-gradient step approaches; the expectations use antithetic Sobol points. It
is the optimum of the bound that a variational GP with its inducing points at the support
maximises by stochastic gradients: GPyTorch's ApproximateGP with SoftmaxLikelihood, say, takes
hundreds of steps per task to come near.

Source: Khan and Lin 2017 (conjugate-computation variational inference); Opper and Archambeau 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._utils.ranges import Count, Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gp.approximations.latent import FittedGaussian, by_rank, sobol_normal_nodes
from bayesfs.models.gp.approximations.variational import Marginals, Sites, approximate
from bayesfs.models.gp.conditioning import TaskPrior
from bayesfs.models.gp.hyperparameters import Hyperparameter
from bayesfs.models.gp.links import Link, softmax


@dataclass(frozen=True)
class Softmax:
    """Variational Gaussian process classification with softmax.

    Attributes:
        steps: natural-gradient steps.
        damping: share of the old sites kept in each step.
        nodes: quadrature points.
    """

    steps: Count = 20
    damping: Positive = 0.4
    nodes: Count = 32

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """None."""
        return {}

    @property
    def link(self) -> Link:
        """Softmax."""
        return softmax

    def fit(self, prior: TaskPrior) -> FittedGaussian:
        """Natural-gradient ascent; `log_evidence` is the ELBO."""
        return approximate(prior, self, steps=self.steps, damping=self.damping)

    def update(self, prior: TaskPrior, q: Marginals) -> Sites:
        """Sites at which the ELBO's natural gradient vanishes, given the marginals."""
        prob = self._log_prob(prior, q).exp()
        mean = prob.mean(0)
        precision = (prob * (1 - prob)).mean(0)
        linear = precision * q.mean + prior.support.one_hot.mT - mean
        real = prior.support.mask[:, None] & prior.support.way_mask[..., None]
        return Sites(torch.where(real, linear, 0.0), torch.where(real, precision, 0.0))

    def expected_log_prob(self, prior: TaskPrior, q: Marginals) -> Tensor:
        """(task,): E_q log softmax of the labels' latent values."""
        expected = self._log_prob(prior, q).mean(0)
        return torch.where(prior.support.one_hot.mT > 0, expected, 0.0).sum((1, 2))

    def _log_prob(self, prior: TaskPrior, q: Marginals) -> Tensor:
        """(node, task, way, n): log softmax at the quadrature points; very low where padded."""
        z = sobol_normal_nodes(self.nodes, q.mean.shape[1], 1, q.mean)
        z = by_rank(z.expand(-1, len(q.mean), -1, -1), prior.support.rank)
        u = q.mean + q.variance.sqrt() * z
        low = torch.finfo(u.dtype).min / 4
        return torch.log_softmax(u.masked_fill(~prior.support.way_mask[..., None], low), 2)
