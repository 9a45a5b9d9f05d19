"""Deep kernel transfer as published, for comparison: `SigmoidOfMean`.

Regression on -1 / +1 labels whose predictive mean goes through a sigmoid,

    p(y = c | x, D) = sigma(mean_c) / sum_k sigma(mean_k).

The predictive variance is not used, so that there is nothing epistemic in the result: every draw
is the same. The video's probabilities are the mean of its frames'. Targets are -1 and +1, so no
sigmoid leaves [sigma(-1), sigma(1)] by much: of six classes the right one gets at most about .35,
which is why its calibration error is large. Use `LabelRegression`, which is the same regression
with its variance used.

Source: Patacchiola et al. 2020, section 3.2 and eq. 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from bayesfs._distributions.noise import Noise
from bayesfs.models.gp.conditioning import TaskPrior
from bayesfs.models.gp.hyperparameters import Hyperparameter
from bayesfs.models.gp.likelihood import Scores, equal_weights, normalise
from bayesfs.models.gp.likelihoods.regression import FittedRegression, LabelRegression
from bayesfs.models.gp.points import Query
from bayesfs.types import LabelDraws, Predictive


@dataclass(frozen=True)
class SigmoidOfMean:
    """Regression on -1 / +1 labels, predicted by the sigmoid of the mean."""

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """None."""
        return {}

    def fit(self, prior: TaskPrior) -> FittedSigmoid:
        """Condition on the labels, as `LabelRegression` does."""
        return FittedSigmoid(LabelRegression("sign").fit(prior))


@dataclass(frozen=True)
class FittedSigmoid:
    """Class functions given -1 / +1 labels, of which only the mean is used.

    Attributes:
        regression: the fitted regression.
    """

    regression: FittedRegression

    @property
    def log_evidence(self) -> Tensor:
        """(task,): that of the regression."""
        return self.regression.log_evidence

    def scores(self, query: Query, nodes: int = 0) -> Scores:
        """Sigmoids of the means, normalised."""
        latent = self.regression.conditioned.latent(query)
        weight = logsigmoid(latent.mean)
        frame = normalise(weight, latent.way_mask[..., None, None], 1).movedim(1, -1)
        count = latent.mask.cumsum(-1).clamp_min(1)[..., None]
        running = torch.where(latent.mask[..., None], frame.exp(), 0.0).cumsum(2) / count
        return Scores(frame, running.log())

    def predictive(self, query: Query, draws: int, noise: Noise) -> Predictive:
        """The same at every draw: this method has no epistemic uncertainty."""
        scores = self.scores(query)

        def repeated(log_prob: Tensor) -> LabelDraws:
            return equal_weights(log_prob, log_prob.expand(draws, *log_prob.shape))

        return Predictive(repeated(scores.frame), repeated(scores.video))

    def function(self, draws: int, noise: Noise) -> Tensor:
        """(draw, task, way, n): draws of f + b at the support points."""
        return self.regression.function(draws, noise)
