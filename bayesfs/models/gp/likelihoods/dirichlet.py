"""Dirichlet-transformed labels: a classifier by one Gaussian regression, `Dirichlet`.

A label gives the class probabilities a Dirichlet(alpha) with alpha = concentration, plus one for
the class that was seen. Dirichlet variables are normalised Gamma(alpha_c, 1) variables, and each
Gamma is matched by a log-normal, which makes every label a Gaussian observation per class:

    u_c + N(0, noise_c) = target_c,   noise_c = log(1 + 1 / alpha_c),
                                      target_c = log alpha_c - noise_c / 2,

and p(y | u) = softmax(u). The noise depends on the label, so there is one Cholesky factor per
task and class. Everything is exact given these targets, the evidence included.

How this departs: targets are shifted by their mean over the classes of the task (softmax does
not see it; the zero prior mean then says "no class in particular"), and classes that a task does
not have are padding, not classes without labels.

Source: Milios et al. 2018, eqs. 5 to 7. GPyTorch's DirichletClassificationLikelihood takes the
number of classes from the largest label and has no batch shape; hence our own targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._utils.ranges import Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gp.approximations.latent import FittedGaussian
from bayesfs.models.gp.conditioning import TaskPrior, condition
from bayesfs.models.gp.hyperparameters import Hyperparameter, positive
from bayesfs.models.gp.links import softmax
from bayesfs.models.gp.points import Support


@dataclass(frozen=True)
class Dirichlet:
    """Gaussian regression on log-normal matches of Dirichlet observations.

    Attributes:
        concentration: alpha of a class that was not seen; smaller is more certain of labels.
        learnt: learn it, with this value as prior median. Only for objectives that score
            predictions: the density of the targets is in units that depend on it.
        spread: prior sd of its log, where it is learnt.
    """

    concentration: Positive = 0.01
    learnt: bool = False
    spread: Positive = 2.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """The concentration, if it is learnt."""
        if not self.learnt:
            return {}
        return {"concentration": positive(self.concentration, self.spread)}

    def fit(self, prior: TaskPrior) -> FittedGaussian:
        """Condition every class on its targets."""
        alpha = prior.values["concentration"] if self.learnt else self.concentration
        targets, noise = dirichlet_targets(prior.support, alpha)
        conditioned = condition(prior, targets, noise)
        return FittedGaussian(conditioned, softmax, conditioned.log_evidence)


def dirichlet_targets(support: Support, concentration: float | Tensor) -> tuple[Tensor, Tensor]:
    """Targets and noise variances, each (task, way, n); zero targets where padded."""
    alpha = support.one_hot.mT + concentration
    noise = torch.log1p(1 / alpha)
    targets = torch.log(alpha) - noise / 2
    real = support.mask[:, None] & support.way_mask[..., None]
    way = support.way_mask.sum(1)[:, None, None]
    level = torch.where(real, targets, 0.0).sum(1, keepdim=True) / way
    return torch.where(real, targets - level, 0.0), noise
