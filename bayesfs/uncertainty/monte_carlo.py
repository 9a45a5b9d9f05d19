"""Monte Carlo error of a run's mean uncertainty and of its epistemic share: `monte_carlo`.

The draws theta_s of a predictive come in B blocks that are independent of each other (`blocks_of`),
with weights w_s and the predictive p = sum_s w_s p_s, where p_s = p(y | x, theta_s). Both parts are
means over the draws,

    total     = H[p]                 = sum_s w_s t_s,   t_s = -sum_y p_s(y) log p(y),
    epistemic = sum_s w_s KL[p_s || p] = sum_s w_s e_s,

and what block b adds to either is its influence: p depends on the draws, too, but
sum_s w_s dKL[p_s || p] / dp = -1 for every label, along which probabilities do not move. So

    I_b = B sum_(s in b) w_s (t_s - total),    error of the total = sd_b(I_b) / sqrt(B),

likewise of the epistemic part, and of their ratio r with (e_s - r t_s) / total. Everything is
averaged over the queries first: population draws are shared by all of them.

Source: Efron (1982), The jackknife, the bootstrap and other resampling plans, chapter 6
(infinitesimal jackknife); Flegal and Jones (2010), Annals of Statistics 38, for the length of
blocks of a chain. refs.bib: efron1982, flegal2010.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bayesfs.prediction import complete_draws, distinct_population
from bayesfs.protocols import Model
from bayesfs.types import LabelDraws, Posterior


class MonteCarlo(NamedTuple):
    """Means over queries, with their standard errors from the draws alone.

    Attributes:
        total: nats.
        total_error: nats; nan where there are fewer than two blocks.
        share: epistemic part over the total, of the means.
        share_error: of the share, in [0, 1].
        blocks: number of independent blocks of draws.
    """

    total: float
    total_error: float
    share: float
    share_error: float
    blocks: int


def monte_carlo(labels: LabelDraws, mask: Tensor, blocks: int) -> MonteCarlo:
    """Mean uncertainty of some queries and its epistemic share, with Monte Carlo errors.

    Args:
        labels: predictive over (...,).
        mask: (...,) which queries count.
        blocks: number of blocks of consecutive draws that are independent of each other.
    """
    given = labels.log_prob_given[:, mask].double()  # (draw, query, way)
    weight = labels.log_weight[:, mask].double().exp()
    log_prob = (given + weight.log()[..., None]).logsumexp(0).clamp(min=-1e4)
    total = -(given.exp() * log_prob).sum(-1)
    epistemic = (given.exp() * (given.clamp(min=-1e4) - log_prob)).sum(-1)
    t, t_each = _influence(total, weight, blocks)
    e, e_each = _influence(epistemic, weight, blocks)
    share = e / t if t > 0 else 0.0
    ratio = (e_each - share * t_each) / t if t > 0 else torch.zeros_like(t_each)
    return MonteCarlo(t, _error(t_each), share, _error(ratio), blocks)


def _influence(value: Tensor, weight: Tensor, blocks: int) -> tuple[float, Tensor]:
    """Mean over queries of (draw, query) values, and (block,) what each block adds to it."""
    mean = (weight * value).sum(0)
    each = (weight * (value - mean)).mean(1)
    block = torch.arange(len(each)) * blocks // len(each)
    sums = torch.zeros(blocks, dtype=each.dtype).index_add_(0, block, each.cpu())
    return float(mean.mean()), blocks * sums


def _error(influence: Tensor) -> float:
    """Standard error of a mean over blocks."""
    return float(influence.std()) / math.sqrt(len(influence)) if len(influence) > 1 else math.nan


def blocks_of(model: Model, posterior: Posterior, given: Posterior | None = None) -> int:
    """Number of independent blocks among the draws of a posterior, in their order.

    Draws of one value of the population make a block; where there is one value, each draw does. A
    chain has no more blocks than stretches of about the root of its length.
    """
    draws = complete_draws(model, posterior, given)
    values = 1
    if any("task" not in axes for axes in model.dims.values()):
        values = len(next(iter(distinct_population(model, draws).values())))
    most = posterior.num_draws
    if posterior.kind == "mcmc":
        most = posterior.chains * math.isqrt(most // posterior.chains)
    return min(values, most) if values > 1 else most
